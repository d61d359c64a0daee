"""What the commands share: the selected profile and why it was selected, its databases, and connections to them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dbconfig.cli.output import Output
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, printable, quoted, suggest
from dbconfig.errors.problem import Problem

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dbconfig.config.active_profile import Selection
    from dbconfig.config.folder import Folder
    from dbconfig.settings.database import DatabaseSettings
    from dbconfig.settings.environment_variables import Environment
    from dbconfig.settings.profile import Profile

T = TypeVar("T")

_FAREWELL: Final = 1.0  # seconds that a server may take to let a connection go; then the process ends without it


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
        return self.databases_of(self.profile)

    def databases_of(self, profile: Profile) -> dict[str, DatabaseSettings]:
        """Return the same of a profile that was loaded in another way."""
        wanted = getattr(self.arguments, "database", None)
        found = profile.databases
        if wanted is None:
            return dict(found)
        if wanted not in found:
            help = did_you_mean(suggest(wanted, found)) or "name it under `databases:`"
            message = f"profile {quoted(profile.name)} has no database {quoted(wanted)}"
            notes = (f"databases: {', '.join(found)}",)
            raise ConfigError([Problem("unknown-database", message, help=help, notes=notes)])
        return {wanted: found[wanted]}

    def headline(self) -> str:
        """Return which profile was taken and why."""
        file = self.folder.shown(self.folder.files()[self.selection.name][0])
        return f"profile {self.selection.name} ({self.reason}), {file}"


class Database:
    """A database as commands reach it: through a synchronous driver, or an asynchronous one where there is no other."""

    def __init__(self, engine: Engine, loop: _Loop | None) -> None:
        self.engine = engine
        self._loop = loop

    def call(self, work: Callable[[Engine], T]) -> T:
        """Return what a function of the engine returns; it must use the engine only within the call."""
        return work(self.engine) if self._loop is None else self._loop.call(work, self.engine)


class _Loop:
    """An event loop in a thread, so that commands are written once, for both kinds of drivers."""

    def __init__(self) -> None:
        import asyncio
        import threading

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dbconfig-loop", daemon=True)
        self._thread.start()

    def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns whose waiting is the loop's; from any thread but the loop's own."""
        import asyncio

        from sqlalchemy.util import greenlet_spawn

        return asyncio.run_coroutine_threadsafe(greenlet_spawn(work, *arguments), self._loop).result()

    def close(self, engine: Engine) -> None:
        """End what still runs, close the connections, and stop."""
        import asyncio

        asyncio.run_coroutine_threadsafe(self._end(engine), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, engine: Engine) -> None:
        import asyncio

        from sqlalchemy.ext.asyncio import AsyncEngine

        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_FAREWELL)
        with suppress(TimeoutError):  # a server that stays silent: the sockets go with the process
            async with asyncio.timeout(_FAREWELL):
                await AsyncEngine(engine).dispose()
        await self._loop.shutdown_asyncgens()


@contextmanager
def connected(
    settings: DatabaseSettings, label: str, *, read_only: bool = False, **changes: object
) -> Iterator[Database]:
    """Return a database whose connections are closed at the end; it writes no log: stdout is the command's answer."""
    from dbconfig.engine import create

    quiet = settings.model_copy(update={"echo": False, "echo_pool": False, **changes})
    asynchronous = quiet.only_asynchronous()
    engine = create.build(quiet, label, asynchronous=asynchronous, read_only=read_only)
    if not asynchronous:
        try:
            yield Database(engine, None)
        finally:
            engine.dispose()
        return
    loop = _Loop()
    try:
        yield Database(engine, loop)
    finally:
        loop.close(engine)


def as_problem(error: BaseException, settings: DatabaseSettings, database: str) -> Problem:
    """Return why a connection failed, as a problem."""
    from dbconfig.engine.connection_failures import Failure, classify, problem

    cause = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ is not None else error
    if isinstance(cause, TimeoutError):
        return problem(Failure("timed-out", "login", str(cause), permanent=False), settings, database)
    return problem(classify(cause, settings), settings, database)
