"""The asynchronous twins of a registry's methods; nothing asynchronous is imported before one of them is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dbconfig.engine import create, read_only
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.replicas import read_your_writes
from dbconfig.sessions import retry
from dbconfig.sessions.model_databases import (
    BoundReading,
    BoundSession,
    BoundSnapshot,
    BoundUnitOfWork,
    BoundWriting,
    Homes,
)
from dbconfig.sessions.retry import Attempts
from dbconfig.sessions.sessionmaker import async_session_arguments
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.profile import DEFAULT, Profile

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from dbconfig.registry.event_loops import Key, LoopEngines, Loops
    from dbconfig.replicas.health import ReaderStats
    from dbconfig.sessions.sessionmaker import AsyncReaders, AsyncSessionFactory

T = TypeVar("T")


class AsyncTwins:
    """What a registry does with `await`.

    Engines are kept per event loop: asyncpg, asyncmy and aiomysql break in a second one. They close with their loop.
    """

    _loops: Loops | None = None
    _engine_options: dict[str, Any]
    _homes: Homes

    def async_engine(self, database: str = DEFAULT, *, profile: str | None = None) -> AsyncEngine:
        """Return the asynchronous engine of a database, always the same one in an event loop.

        The same profile serves both kinds of engine: `postgresql://` is asyncpg, or psycopg, here; `mysql://` asyncmy
        or aiomysql; `sqlite://` aiosqlite. An explicit `+driver` is kept.

        Raises:
            ConfigError: as for `engine`; or greenlet or an asynchronous driver is not installed.
            RuntimeError: no event loop is running.
        """
        return self._async_factory(database, profile).engine

    def async_session(
        self,
        database: str = DEFAULT,
        *,
        profile: str | None = None,
        read_only: bool = False,
        snapshot: bool = False,
    ) -> AsyncSession:
        """Return a new session: SQLModel's `AsyncSession`; an `async with` closes it, and nothing commits by itself.

        Its objects keep their attributes after a commit, unless the profile says `expire_on_commit: true`.
        `read_only` and `snapshot` are those of `session`.
        """
        if read_only or snapshot:
            readers = self._async_readers_of(database, profile)
            return readers.snapshot() if snapshot else readers.plain()
        return self._async_factory(database, profile).session()

    def async_transaction(
        self, database: str = DEFAULT, *, profile: str | None = None
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a context manager of a session that commits at the end, or rolls back.

        A cancellation rolls back like an exception. On SQLite it takes the write lock when it begins.
        """
        return self._async_factory(database, profile).transaction()

    async def async_run_in_transaction(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        database: str = DEFAULT,
        *,
        attempts: int | None = None,
        timeout: float = 30.0,
    ) -> T:
        """Await a function in a transaction, again as a whole after an error that passes by itself.

        All that `run_in_transaction` says holds. A call within the function joins its transaction; one in a task that
        the function starts has a transaction of its own, since two tasks cannot share a session.

        Raises:
            CommitUncertain: the connection was lost while COMMIT was under way; this is never repeated.
        """
        factory = self._async_factory(database, None)
        tries = Attempts(attempts, timeout, f"{self.profile.name}/{database}")
        result: T = await retry.async_run(factory.unit_of_work, work, tries, (id(self), database, True))
        return result

    async def async_write_token(self, database: str = DEFAULT) -> str:
        """Return what the present task has committed, as `write_token` does; `read_after` takes it."""
        router = self._async_readers_of(database, None).router
        if router is None:
            return ""
        from sqlalchemy.util import greenlet_spawn

        mark = await greenlet_spawn(router.mark)
        return read_your_writes.to_token({router.key: mark}) if mark is not None else ""

    def async_readers(self, database: str = DEFAULT) -> list[ReaderStats]:
        """Return how each server has served the reading sessions of the running loop; [] without replicas."""
        router = self._async_readers_of(database, None).router
        return router.stats() if router is not None else []

    async def async_dispose(self, *, timeout: float | None = None) -> None:
        """Close the asynchronous engines of the running loop; those of another loop close with it.

        Args:
            timeout: seconds to wait for connections in use, while nobody gets a new one. What is then still in use is
                cancelled on the server and closed, as by `dispose`.
        """
        current = self._loops.current() if self._loops is not None else None
        if current is None:
            return
        if timeout is None:
            await current.dispose()
            return
        import asyncio

        from dbconfig.engine import draining

        # A cancelled caller does not stop it half way.
        await asyncio.shield(draining.async_drain(current.take, timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.async_dispose()
        self.dispose()

    @property
    def _known_loops(self) -> Loops:
        if self._loops is None:
            self._loops = _import_loops().Loops()
        return self._loops

    def _async_factory(self, database: str, profile: str | None) -> AsyncSessionFactory:
        return self._known_loops.factory((profile, database), self._recipe)

    def _async_readers_of(self, database: str, profile: str | None) -> AsyncReaders:
        return self._known_loops.readers((profile, database), self._reading_recipe)

    def _recipe(self, key: Key) -> tuple[Key, Callable[[LoopEngines], AsyncSessionFactory]]:
        profile, database = key
        own, settings, label = self._resolved(database, profile)

        def build_engine() -> Engine:
            # Both kinds of engine see one database in memory.
            beside = self.engine(database, profile=profile) if settings.in_memory else None
            engine = create.build(settings, label, self._engine_options, asynchronous=True, beside=beside)
            read_your_writes.attach(engine, settings, label)
            return engine

        def build(loop: LoopEngines) -> AsyncSessionFactory:
            kind: type[AsyncSessionFactory] = _import_loops().AsyncSessionFactory
            engine = loop.engine(own, build_engine)
            if not (self._homes and database == DEFAULT):
                return kind.of(engine, settings)

            def open_(name: str) -> Engine:
                return self._async_factory(name, own[0]).engine.sync_engine

            arguments = {**async_session_arguments(settings), "homes": self._homes, "open_": open_}
            return kind.made_of(engine, (BoundSession, BoundWriting, BoundUnitOfWork), arguments)

        return own, build

    def _reading_recipe(self, key: Key) -> tuple[Key, Callable[[LoopEngines], AsyncReaders]]:
        profile, database = key
        own, settings, label = self._resolved(database, profile)

        def build(loop: LoopEngines) -> AsyncReaders:
            from dbconfig.replicas import routing

            def open_engine(settings: DatabaseSettings, name: str, **how: Any) -> Engine:
                made = read_only.open_engine(settings, name, self._engine_options, asynchronous=True, **how)
                return loop.open(made).sync_engine

            if own not in loop.servers:
                beside = self.engine(database, profile=profile) if settings.in_memory else None
                loop.servers[own] = routing.open_async_readers(settings, label, open_engine, beside)
            found = loop.servers[own]
            if not (self._homes and database == DEFAULT):
                return found

            def open_(name: str) -> Engine:
                return (found if name == DEFAULT else self._async_readers_of(name, own[0])).pick()

            arguments = {**async_session_arguments(settings), "homes": self._homes, "open_": open_}
            return found.over_several((BoundReading, BoundSnapshot), arguments)

        return own, build

    # What the registry has.

    if TYPE_CHECKING:

        @property
        def profile(self) -> Profile: ...
        def engine(self, database: str = DEFAULT, *, profile: str | None = None) -> Engine: ...
        def dispose(self) -> None: ...
        def _resolved(self, database: str, name: str | None) -> tuple[Key, DatabaseSettings, str]: ...


def _import_loops() -> Any:
    try:
        from dbconfig.registry import event_loops
    except ImportError as error:
        if "greenlet" not in str(error):
            raise
        message = "asynchronous engines need greenlet, which is not installed"
        help = "pip install greenlet, or with a driver: pip install 'sqlmodel-dbconfig[asyncpg]'"
        raise ConfigError([Problem("missing-driver", message, help=help)]) from error
    return event_loops
