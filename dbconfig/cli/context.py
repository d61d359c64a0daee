"""Shared by the commands: the selected profile and why it was selected, its databases, and connections to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from dbconfig.cli.output import Output
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, printable, quoted, suggest
from dbconfig.errors.problem import Problem

if TYPE_CHECKING:
    from dbconfig.cli.parser import Arguments
    from dbconfig.config.active_profile import Selection
    from dbconfig.config.folder import Folder
    from dbconfig.engine.any_driver import Database
    from dbconfig.settings.database import DatabaseSettings
    from dbconfig.settings.environment_variables import Environment
    from dbconfig.settings.loaded_profile import AnyProfile


class Context:
    """The arguments of a command, and what they select; loaded on demand."""

    def __init__(self, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ
        self.out: Output = Output(arguments.format, arguments.color, environ)

    @property
    def is_json(self) -> bool:
        return self.out.format == "json"

    @cached_property
    def folder(self) -> Folder:
        from dbconfig.config.folder import find_folder

        return find_folder(self.arguments.config)

    @cached_property
    def environment(self) -> Environment:
        from dbconfig.config.loader import read_environment

        return read_environment(self.folder, self.environ)

    @cached_property
    def selection(self) -> Selection:
        from dbconfig.config.active_profile import select

        return select(self.arguments.profile, self.environment, self.folder)

    @property
    def reason(self) -> str:
        """Why the profile was selected, as text."""
        reason = self.selection.reason
        return "the command line" if reason == "argument" else printable(reason)

    @cached_property
    def profile(self) -> AnyProfile:
        from dbconfig.config.loader import load_selected

        return load_selected(self.folder, self.environment, self.selection)

    def databases(self) -> dict[str, DatabaseSettings]:
        """Return the databases of the command: all, or that of `--database`."""
        return self.databases_of(self.profile)

    def databases_of(self, profile: AnyProfile) -> dict[str, DatabaseSettings]:
        """Return the same for a profile that was loaded in another way."""
        wanted = getattr(self.arguments, "database", None)
        found = profile.databases
        if wanted is None:
            return dict(found)
        if wanted in profile.divided:
            return {name: found[name] for name in (profile.shard(wanted, each) for each in profile.shards(wanted))}
        if wanted not in found:
            help = did_you_mean(suggest(wanted, found)) or "name it under `databases:`"
            message = f"profile {quoted(profile.name)} has no database {quoted(wanted)}"
            notes = (f"databases: {', '.join(found)}",)
            raise ConfigError([Problem("unknown-database", message, help=help, notes=notes)])
        return {wanted: found[wanted]}

    def headline(self) -> str:
        """Return which profile was selected and why."""
        file = self.folder.shown(self.folder.files()[self.selection.name][0])
        return f"profile {self.selection.name} ({self.reason}), {file}"


@contextmanager
def connected(
    settings: DatabaseSettings, label: str, *, read_only: bool = False, **changes: object
) -> Iterator[Database]:
    """Yield a database, and close its connections at the end; without logs, since stdout is the command's output."""
    from dbconfig.engine import any_driver

    quiet = settings.model_copy(update={"echo": False, "echo_pool": False, **changes})
    with any_driver.connected(quiet, label, read_only=read_only) as database:
        yield database


def as_problem(error: BaseException, settings: DatabaseSettings, database: str) -> Problem:
    """Return why a connection failed, as a problem."""
    from dbconfig.engine.connection_failures import Failure, classify, problem

    cause = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ is not None else error
    if isinstance(cause, TimeoutError):
        return problem(Failure("timed-out", "login", str(cause), permanent=False), settings, database)
    return problem(classify(cause, settings), settings, database)
