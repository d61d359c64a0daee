"""Detects that a database file was deleted or replaced, so that no connection keeps writing to the old one."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

from dbconfig.engine import pool
from dbconfig.engine.dialects.sqlite.connection import driver_of
from dbconfig.engine.dialects.sqlite.write_queue import identity, queue_of

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

# Seconds for which a connection is not compared again: a check of the file costs a tenth of a session. A writer is
# compared before each COMMIT in any case.
TRUST: Final = 0.02


def watch(engine: Engine, path: Path) -> None:
    """Compare a file with the one that a connection has open, at each checkout; a writer compares before COMMIT too."""
    place = str(path)

    @event.listens_for(engine, "connect", insert=True)
    def note(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        found = identity(place)
        ours = driver_of(connection)
        ours.place, ours.file = place, found
        ours.queue = queue_of(found) if found is not None else None

    def compare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        now, ours = monotonic(), driver_of(connection)
        if now < ours.trusted_until:
            return
        ours.trusted_until = now + TRUST
        if ours.file != identity(place):
            raise InvalidatePoolError(f"{place} is another file now, or none")  # the pool reconnects

    pool.inspect_each_loan(engine, compare)
