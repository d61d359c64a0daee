"""The caretaker's part of the queue: calls it when something is due, and pings what has been idle for long."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.maintenance import caretaker
from dbconfig.engine.pool.ping import PING_LIMIT, ping
from dbconfig.engine.pool.record import is_held_here
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Look, Verdict

if TYPE_CHECKING:
    from dbconfig.engine.pool.owner import Owner
    from dbconfig.engine.pool.place import Place

logger: logging.Logger = logging.getLogger("dbconfig.pool.line")


def wake(pool: Owner, when: float) -> None:
    """Have the caretaker come at this time."""
    if is_held_here(pool.lock):  # the caretaker may have to start, which waits
        pool.line.care.due = NEVER
        return
    caretaker.add(id(pool), Care(pool), max(0.0, when - monotonic()))


def end(pool: Owner) -> None:
    caretaker.remove(id(pool))


class Care:
    """The maintenance job for one pool, which it does not keep alive."""

    def __init__(self, pool: Owner) -> None:
        self._pool = weakref.ref(pool)

    def __call__(self) -> float | None:
        pool = self._pool()
        if pool is None or (pool.line.disposed and not pool.waiters):
            return None
        pool.tell(pool.line.tick, monotonic())
        due = pool.line.care.due
        return None if due == NEVER else max(0.0, due - monotonic())


def ask(pool: Owner, place: Place) -> None:
    """Ping a connection that has been idle for the keepalive time."""
    record = place.connection
    look = Look.at(pool._dialect, record.driver_connection)
    verdict = Verdict.ASK if look is None else look.verdict()
    if verdict is not Verdict.DEAD:
        verdict = ping(pool._dialect, record.dbapi_connection, record.driver_connection, PING_LIMIT)
    if verdict is not Verdict.ALIVE:
        logger.info("%s: an idle connection died; replacing it", pool.options.name, extra=facts(pool.options.name))
    pool.tell(pool.asked, place, verdict)
