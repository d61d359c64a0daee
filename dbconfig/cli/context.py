"""What the commands share: the configuration folder, the environment, the selected profile and why it was taken."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from dbconfig.cli.output import Output
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, printable, quoted, suggest
from dbconfig.errors.problem import Problem

if TYPE_CHECKING:
    from dbconfig.config.active_profile import Selection
    from dbconfig.config.folder import Folder
    from dbconfig.settings.database import DatabaseSettings
    from dbconfig.settings.environment_variables import Environment
    from dbconfig.settings.profile import Profile


class Context:
    """The arguments of a command, and what they select; loaded when it is asked for."""

    def __init__(self, arguments: Namespace, environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ
        self.out = Output(arguments.format, arguments.color, environ)

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
        """Why the profile was taken, in words."""
        reason = self.selection.reason
        return "the command line" if reason == "argument" else printable(reason)

    @cached_property
    def profile(self) -> Profile:
        from dbconfig.config.loader import load_selected

        return load_selected(self.folder, self.environment, self.selection)

    def databases(self) -> dict[str, DatabaseSettings]:
        """Return the databases that the command is about: all, or that of `--database`."""
        wanted = getattr(self.arguments, "database", None)
        found = self.profile.databases
        if wanted is None:
            return dict(found)
        if wanted not in found:
            help = did_you_mean(suggest(wanted, found)) or "name it under `databases:`"
            message = f"profile {quoted(self.profile.name)} has no database {quoted(wanted)}"
            notes = (f"databases: {', '.join(found)}",)
            raise ConfigError([Problem("unknown-database", message, help=help, notes=notes)])
        return {wanted: found[wanted]}

    def headline(self) -> str:
        """Return which profile was taken and why."""
        file = self.folder.shown(self.folder.files()[self.selection.name][0])
        return f"profile {self.selection.name} ({self.reason}), {file}"
