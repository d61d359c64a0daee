"""A connection outside the pool: it is opened as the pool opens its own, and closed after use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


@contextmanager
def connected(engine: Engine) -> Iterator[Any]:
    """Yield a new DBAPI connection of an engine, which its pool does not count."""
    beside = engine.pool.recreate()
    # Not detached: one of asyncio would stay open then.
    connection = beside.connect()
    try:
        yield connection
    finally:
        connection.close()
        beside.dispose()
