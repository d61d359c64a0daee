"""The asynchronous twins of a registry's methods; nothing asynchronous is imported before one of them is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dbconfig import engines
from dbconfig.errors import ConfigError, Problem
from dbconfig.profile import DEFAULT, Profile
from dbconfig.retry import Attempts
from dbconfig.settings import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from dbconfig.loops import AsyncSessionFactory, Key, Loops

T = TypeVar("T")


class AsyncTwins:
    """What a registry does with `await`.

    Engines are kept per event loop: asyncpg, asyncmy and aiomysql break in a second one. They close with their loop.
    """

    _loops: Loops | None = None
    _engine_options: dict[str, Any]

    def async_engine(self, database: str = DEFAULT, *, profile: str | None = None) -> AsyncEngine:
        """Return the asynchronous engine of a database, always the same one in an event loop.

        The same profile serves both kinds of engine: `postgresql://` is asyncpg, or psycopg, here; `mysql://` asyncmy
        or aiomysql; `sqlite://` aiosqlite. An explicit `+driver` is kept.

        Raises:
            ConfigError: as for `engine`; or greenlet or an asynchronous driver is not installed.
            RuntimeError: no event loop is running.
        """
        return self._async_factory(database, profile).engine

    def async_session(self, database: str = DEFAULT, *, profile: str | None = None) -> AsyncSession:
        """Return a new session: SQLModel's `AsyncSession`; an `async with` closes it, and nothing commits by itself.

        Its objects keep their attributes after a commit, unless the profile says `expire_on_commit: true`.
        """
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
        attempts: int = 3,
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
        result: T = await _import_loops().run(factory.unit_of_work, work, tries, (id(self), database))
        return result

    async def async_dispose(self) -> None:
        """Close the asynchronous engines of the running loop; those of another loop close with it."""
        current = self._loops.current() if self._loops is not None else None
        if current is not None:
            await current.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.async_dispose()
        self.dispose()

    def _async_factory(self, database: str, profile: str | None) -> AsyncSessionFactory:
        if self._loops is None:
            self._loops = _import_loops().Loops()
        return self._loops.factory((profile, database), self._recipe)

    def _recipe(self, key: Key) -> Any:
        profile, database = key
        own, settings, label = self._resolved(database, profile)

        def build() -> AsyncSessionFactory:
            # Both kinds of engine see one database in memory.
            beside = self.engine(database, profile=profile) if settings.in_memory else None
            engine = engines.build(settings, label, self._engine_options, asynchronous=True, beside=beside)
            factory: AsyncSessionFactory = _import_loops().AsyncSessionFactory.of(engine, settings)
            return factory

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
        from dbconfig import loops
    except ImportError as error:
        if "greenlet" not in str(error):
            raise
        message = "asynchronous engines need greenlet, which is not installed"
        help = "pip install greenlet, or with a driver: pip install 'sqlmodel-dbconfig[asyncpg]'"
        raise ConfigError([Problem("missing-driver", message, help=help)]) from error
    return loops
