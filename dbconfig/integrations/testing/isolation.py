"""Sync and async sessions on one connection whose outer transaction is rolled back: their commits are savepoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection
from sqlmodel import Session

from dbconfig.integrations.testing.turns import HOME, Open, Turns, kinds
from dbconfig.sessions.model_databases import Homes
from dbconfig.sessions.sessionmaker import AsyncSessionFactory, Readers, SessionFactory

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlmodel.ext.asyncio.session import AsyncSession


class Isolation:
    """An isolated connection, for sessions.

    Args:
        connection: whose outer transaction is rolled back.
        usual: the factory of sessions that are not isolated.
        homes: the database of each table; None for sessions of one database.
        open_: returns the isolated connection of another database, by its name.
    """

    def __init__(
        self, connection: Connection, usual: SessionFactory, homes: Homes | None = None, open_: Open | None = None
    ) -> None:
        self.connection = connection
        self._turns = Turns(connection)
        self._usual = usual
        self._homes, self._open = homes, open_

    @property
    def committed(self) -> bool:
        return self._turns.committed

    def factories(self) -> tuple[SessionFactory, Readers[Session]]:
        """Return the registry's session factory during the test: the same arguments, with this connection."""
        session, unit_of_work, reading = self._makers()
        readers = Readers(reading, reading, lambda: self._usual.engine)
        return SessionFactory(self._usual.engine, session, session, unit_of_work, self._usual.classes), readers

    def home(self) -> Session:
        """Return the test's own session."""
        session: Session = self._makers()[0](info={HOME: True})
        return session

    def _makers(self) -> list[Any]:
        found: Any
        found, more = kinds(self._homes, self._open, self._usual.classes)
        return [partial(kind, self.connection, **_arguments(self._usual.session), **more) for kind in found]

    def join(self, usual: AsyncSessionFactory) -> tuple[AsyncSessionFactory, Readers[AsyncSession]]:
        """Return a factory of asynchronous sessions on this connection, for an application in its own loop.

        The synchronous driver runs in the loop's thread, and blocks it.
        """
        made = usual.classes.async_class()
        found, more = kinds(self._homes, self._open, usual.classes)

        def maker(kind: type[Any]) -> Any:
            def make(**given: Any) -> AsyncSession:
                session: AsyncSession = made(sync_session_class=kind, **_arguments(usual.session), **more, **given)
                session.sync_session.bind = self.connection
                return session

            return make

        session, unit_of_work, reading = map(maker, found)
        readers = Readers(reading, reading, lambda: usual.engine.sync_engine)
        return AsyncSessionFactory(usual.engine, session, session, unit_of_work, usual.classes), readers

    def close(self) -> None:
        self._turns.close()


class AsyncIsolation:
    """The same for an asynchronous connection and asynchronous sessions."""

    def __init__(
        self, connection: AsyncConnection, usual: AsyncSessionFactory, homes: Homes | None, open_: Open | None
    ) -> None:
        assert connection.sync_connection is not None
        self.connection: Connection = connection.sync_connection
        self._asynchronous = connection
        self._turns = Turns(self.connection)
        self._usual = usual
        self._homes, self._open = homes, open_
        self._own: list[AsyncSession] = []

    @property
    def committed(self) -> bool:
        return self._turns.committed

    def factories(self) -> tuple[AsyncSessionFactory, Readers[AsyncSession]]:
        session, unit_of_work, reading = self._makers()
        readers = Readers(reading, reading, lambda: self._usual.engine.sync_engine)
        return AsyncSessionFactory(self._usual.engine, session, session, unit_of_work, self._usual.classes), readers

    def home(self) -> AsyncSession:
        """Return the test's own session; it is closed with the isolation."""
        session: AsyncSession = self._makers()[0](info={HOME: True})
        self._own.append(session)
        return session

    def _makers(self) -> list[Any]:
        made = self._usual.classes.async_class()
        found, more = kinds(self._homes, self._open, self._usual.classes)
        how = {**_arguments(self._usual.session), **more}
        return [partial(made, self._asynchronous, sync_session_class=kind, **how) for kind in found]

    async def close(self) -> None:
        for session in self._own:
            await session.close()
        self._turns.close()


def _arguments(maker: Any) -> dict[str, Any]:
    """Return the arguments of a factory's sessions, and the one that makes their commits savepoints."""
    ours = ("sync_session_class", "homes", "open_")
    usual = {name: value for name, value in maker.keywords.items() if name not in ours}
    return {**usual, "join_transaction_mode": "create_savepoint"}


_UNTIL: Final = "holds the write lock until the test ends, and this connection is not the test's, like those of"
_KEPT: Final = (
    f"a test with `db_session` or `db_override` {_UNTIL} db.engine(): use db.session(), or the fixture "
    "`db_session_committed`"
)
_ASYNC_KEPT: Final = (
    f"a test with `async_db_session` or `async_db_override` {_UNTIL} synchronous sessions: use the fixture "
    "`db_session`, whose connection also serves asynchronous sessions, or `async_db_session_committed`"
)


@contextmanager
def _kept(connection: Connection, why: str) -> Iterator[None]:
    """Make other connections to a SQLite database fail immediately, instead of waiting for the end of the test."""
    if connection.dialect.name != "sqlite":
        yield
        return
    from dbconfig.engine.dialects.sqlite.connection import driver_of

    driver = driver_of(connection.connection)
    driver.keeps = why
    try:
        yield
    finally:
        driver.keeps = ""


# The same steps, sync and async.


@contextmanager
def isolated(usual: SessionFactory, homes: Homes | None = None, open_: Open | None = None) -> Iterator[Isolation]:
    """Yield the isolation of a new connection, whose work is rolled back."""
    with usual.engine.connect() as connection, _kept(connection, _KEPT):
        outer = connection.begin()
        isolation = Isolation(connection, usual, homes, open_)
        try:
            yield isolation
        finally:
            isolation.close()
            if outer.is_active and not connection.invalidated:
                outer.rollback()


@asynccontextmanager
async def async_isolated(
    usual: AsyncSessionFactory, homes: Homes | None = None, open_: Open | None = None
) -> AsyncIterator[AsyncIsolation]:
    """Do the same with an asynchronous connection."""
    async with usual.engine.connect() as connection:
        assert connection.sync_connection is not None
        with _kept(connection.sync_connection, _ASYNC_KEPT):
            outer = await connection.begin()
            isolation = AsyncIsolation(connection, usual, homes, open_)
            try:
                yield isolation
            finally:
                await isolation.close()
                if outer.is_active and not connection.invalidated:
                    await outer.rollback()
