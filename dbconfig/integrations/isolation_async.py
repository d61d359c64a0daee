"""The asynchronous twin of `isolation`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig.integrations.isolation import HOME, IsolatedSession, IsolatedUnitOfWork, Isolation, arguments
from dbconfig.loops import AsyncSessionFactory


class AsyncIsolation:
    """An isolated connection, for asynchronous sessions."""

    def __init__(self, connection: AsyncConnection, usual: AsyncSessionFactory) -> None:
        assert connection.sync_connection is not None
        self.connection = connection
        self._turns = Isolation(connection.sync_connection, usual)
        self._usual = usual
        self._homes: list[AsyncSession] = []

    @property
    def committed(self) -> bool:
        return self._turns.committed

    def factory(self) -> AsyncSessionFactory:
        session = self._maker(IsolatedSession)
        unit_of_work = self._maker(IsolatedUnitOfWork)
        return AsyncSessionFactory(self._usual.engine, session, session, unit_of_work)

    def home(self) -> AsyncSession:
        """Return the test's own session; it is closed with the isolation."""
        session: AsyncSession = self._maker(IsolatedSession)(info={HOME: True})
        self._homes.append(session)
        return session

    def _maker(self, kind: type[IsolatedSession]) -> Any:
        return partial(AsyncSession, self.connection, sync_session_class=kind, **arguments(self._usual.session))

    async def close(self) -> None:
        for session in self._homes:
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
