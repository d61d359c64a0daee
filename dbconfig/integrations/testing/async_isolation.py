"""The asynchronous twin of `isolation`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig.integrations.testing.isolation import HOME, Isolation, Open, arguments, kinds
from dbconfig.sessions.model_databases import Homes
from dbconfig.sessions.sessionmaker import AsyncSessionFactory, Readers


class AsyncIsolation:
    """An isolated connection, for asynchronous sessions."""

    def __init__(self, connection: AsyncConnection, usual: AsyncSessionFactory) -> None:
        assert connection.sync_connection is not None
        self.connection = connection
        self._turns = Isolation(connection.sync_connection, usual)
        self._usual = usual
        self._own: list[AsyncSession] = []

    @property
    def committed(self) -> bool:
        return self._turns.committed

    def factories(
        self, homes: Homes | None = None, open_: Open | None = None
    ) -> tuple[AsyncSessionFactory, Readers[AsyncSession]]:
        session, unit_of_work, reading = self._makers(homes, open_)
        readers = Readers(reading, reading, lambda: self._usual.engine.sync_engine)
        return AsyncSessionFactory(self._usual.engine, session, session, unit_of_work), readers

    def home(self, homes: Homes | None = None, open_: Open | None = None) -> AsyncSession:
        """Return the test's own session; it is closed with the isolation."""
        session: AsyncSession = self._makers(homes, open_)[0](info={HOME: True})
        self._own.append(session)
        return session

    def _makers(self, homes: Homes | None, open_: Open | None) -> list[Any]:
        found, more = kinds(homes, open_)
        how = {**arguments(self._usual.session), **more}
        return [partial(AsyncSession, self.connection, sync_session_class=kind, **how) for kind in found]

    async def close(self) -> None:
        for session in self._own:
            await session.close()
        self._turns.close()


@asynccontextmanager
async def isolated(usual: AsyncSessionFactory) -> AsyncIterator[AsyncIsolation]:
    """Yield the isolation of a new connection; whatever is done on it is rolled back."""
    async with usual.engine.connect() as connection:
        outer = await connection.begin()
        isolation = AsyncIsolation(connection, usual)
        try:
            yield isolation
        finally:
            await isolation.close()
            if outer.is_active and not connection.invalidated:
                await outer.rollback()
