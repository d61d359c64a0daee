"""Idle-aware ping: check the socket each time, and ask the server only after idle time or when in doubt."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import event, exc

from dbconfig.engine.pool.call_watchdog import watch
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.record import REASON, Record
from dbconfig.engine.pool.sockets import Look, Verdict, descriptor

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool.base import _ConnDialect

logger: logging.Logger = logging.getLogger("dbconfig.pool.ping")

# Seconds for which a returned connection is trusted without a check. A poll costs about 2 µs and releases the GIL,
# which under contention doubles the cost of a checkout; a server rarely dies within the few ms since it last answered,
# and if it does, a check just before the statement would usually have come too early as well.
TRUST = 0.005
# Seconds after which a ping has failed. A half-open connection never answers; a server that needs longer for a SELECT 1
# is replaced by a new connection, which waits until the caller's own deadline.
PING_LIMIT = 2.0
# The last moment before a deadline is still worth a try.
PING_LEAST = 0.05

_RESTED = "dbconfig.rested"  # in record.info: since when, and how to look
_LOOK = "dbconfig.look"
_NEW = float("inf")  # a connection that has never been returned has not been idle


class Check(NamedTuple):
    """Whether an idle connection is alive. ``rest``: idle seconds after which a check of the socket is not enough."""

    rest: float

    @property
    def trust(self) -> float:
        """Seconds for which a returned connection needs no check at all."""
        return min(TRUST, self.rest)

    def of_record(self, dialect: _ConnDialect | Dialect, record: Record, now: float, deadline: float) -> Verdict:
        """Check a connection of our own pool."""
        look = record.look
        if look is None:
            look = record.look = Look.at(dialect, record.driver_connection)
        verdict = Verdict.ASK if look is None else look.verdict()
        if verdict is Verdict.ALIVE and now - max(record.returned_at, record.checked_at) >= self.rest:
            verdict = Verdict.ASK
        if verdict is Verdict.ASK:
            verdict = ping(dialect, record.dbapi_connection, record.driver_connection, deadline - monotonic())
            record.checked_at = monotonic()
        return verdict


def ping(dialect: _ConnDialect | Dialect, connection: Any, driver_connection: Any, limit: float) -> Verdict:
    """Ask the server. It has ``limit`` seconds, and never more than PING_LIMIT, to answer."""
    in_time = True
    limit = min(PING_LIMIT, max(limit, PING_LEAST))
    try:
        answered, in_time = watch.call(
            descriptor(dialect, driver_connection), limit, dialect._do_ping_w_event, connection
        )
    except Exception as error:
        if not _is_of_the_driver(error, dialect):
            raise  # of a signal handler: a time limit, which must propagate
        # Also an error that SQLAlchemy does not classify as a disconnect: the caller gets another connection.
        logger.debug("ping failed: %s", error)
        answered = False
    return Verdict.ALIVE if answered and in_time else Verdict.SILENT


def _is_of_the_driver(error: Exception, dialect: Any) -> bool:
    # Drivers for asyncio pass the errors of their transports through, and no signal handler is involved.
    of_the_driver: tuple[type[Exception], ...] = (dialect.loaded_dbapi.Error, EOFError, OSError)
    return bool(dialect.is_async) or isinstance(error, of_the_driver)


def attach(engine: Engine, check: Check, pool_timeout: float) -> None:
    """Check connections of SQLAlchemy's own pools, sync or async, through their events."""
    dialect = engine.dialect

    def returned(connection: Any, record: Any) -> None:
        record.info[_RESTED] = monotonic()

    def checkout(connection: Any, record: Any, fairy: Any) -> None:
        info = record.info
        rested = monotonic() - info.get(_RESTED, _NEW)
        if rested < check.trust:
            return
        driver_connection = record.driver_connection
        if _LOOK not in info:
            info[_LOOK] = Look.at(dialect, driver_connection)
        look = info[_LOOK]
        verdict = Verdict.ASK if look is None else look.verdict()
        if verdict is Verdict.ALIVE and rested >= check.rest:
            verdict = Verdict.ASK
        if verdict is Verdict.ASK:
            verdict = ping(dialect, connection, driver_connection, pool_timeout)
        if verdict is Verdict.ALIVE:
            return
        info[REASON] = "ping"
        if verdict is Verdict.DEAD:
            raise exc.DisconnectionError("closed by the server while idle in the pool")
        raise exc.InvalidatePoolError("no answer to the ping")

    event.listen(engine, "checkin", returned)
    event.listen(engine, "checkout", checkout)
