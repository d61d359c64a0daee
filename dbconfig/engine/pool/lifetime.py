"""Each connection's own time to live, drawn once, so that connections made together do not die together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, exc

from dbconfig.engine.pool.chance import chance
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.record import REASON, Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# Share of the lifetime by which a connection may end early. Small jitter does not spread a reconnect storm: HikariCP
# went from 2.5 % to 25 % for this reason.
JITTER = 0.25

_EXPIRES = "dbconfig.expires"  # in record.info


def expiry(seconds: float) -> float:
    """Draw the end of a new connection, on the monotonic clock: a corrected wall clock must not end connections."""
    return monotonic() + seconds * (1.0 - JITTER * chance.random())


def attach_to_line(engine: Engine, seconds: float) -> None:
    """Set the end of each connection of our own pool; the queue checks it on checkout, on checkin, and while idle."""

    def connect(connection: Any, record: Any) -> None:
        if isinstance(record, Record):
            record.expires = expiry(seconds)

    event.listen(engine, "connect", connect)


def attach(engine: Engine, seconds: float) -> None:
    """The same for SQLAlchemy's pools, sync or async, through their events."""

    def connect(connection: Any, record: Any) -> None:
        # Not by moving record.starttime: after one invalidation of the pool each checkout would then reconnect.
        record.info[_EXPIRES] = expiry(seconds)

    def checkout(connection: Any, record: Any, fairy: Any) -> None:
        if monotonic() >= record.info.get(_EXPIRES, float("inf")):
            record.info[REASON] = "recycled"
            raise exc.DisconnectionError("older than pool_recycle")

    def checkin(connection: Any, record: Any) -> None:
        if connection is not None and monotonic() >= record.info.get(_EXPIRES, float("inf")):
            record.info[REASON] = "recycled"
            record.invalidate()  # here, where no caller waits for the new connection

    event.listen(engine, "connect", connect)
    event.listen(engine, "checkout", checkout)
    event.listen(engine, "checkin", checkin)
