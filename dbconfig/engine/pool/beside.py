"""A connection outside the pool: it is opened as the pool opens its own, and closed after use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool


@contextmanager
def connected(pool: Pool) -> Iterator[Any]:
    """Yield a new DBAPI connection, which the pool does not count; for asyncio where SQLAlchemy can await."""
    beside = getattr(pool, "beside", pool.recreate)()
    try:
        # Not detached: one of asyncio would stay open then.
        connection = beside.connect()
        try:
            yield connection
        finally:
            connection.close()
    finally:
        # Also if the caller is interrupted or times out while it connects: the connect may have just succeeded, or may
        # still do so, and nothing else would close that connection.
        beside.dispose()
