"""Connections for SQLAlchemy Core, with the guarantees of `transaction` and of read-only sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


# A session does the work: it takes SQLite's write lock, detects a COMMIT whose outcome is unknown, is routed to a
# replica, and uses the test's connection in a test.


@contextmanager
def begun(opened: AbstractContextManager[Session]) -> Iterator[Connection]:
    """Yield the connection of a session's transaction, which ends with the block."""
    with opened as session:
        yield session.connection()


@asynccontextmanager
async def async_begun(opened: AbstractAsyncContextManager[AsyncSession]) -> AsyncIterator[AsyncConnection]:
    """Yield the connection of an asynchronous session's transaction, which ends with the block."""
    async with opened as session:
        yield await session.connection()
