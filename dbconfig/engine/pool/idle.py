"""Maintenance of idle connections: keep some open, close those that are idle for too long, find dead ones."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from dbconfig.engine.pool import judgements
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.maintenance import caretaker
from dbconfig.engine.pool.ping import PING_LIMIT, ping
from dbconfig.engine.pool.sockets import Look, Verdict

if TYPE_CHECKING:
    from dbconfig.engine.pool.owner import Owner

logger: logging.Logger = logging.getLogger("dbconfig.pool.idle")


def begin(pool: Owner) -> None:
    """Maintain a pool from its first connection on."""
    options = pool.options
    if options.min_idle or options.idle_timeout is not None or options.keepalive is not None:
        # A moment later: the first connection has usually been returned by then, and counts as idle.
        caretaker.add(id(pool), _Care(pool), judgements.SHORTEST_ROUND)


def end(pool: Owner) -> None:
    caretaker.remove(id(pool))


class _Care:
    """The maintenance job for one pool, which it does not keep alive."""

    def __init__(self, pool: Owner) -> None:
        self._pool = weakref.ref(pool)

    def __call__(self) -> float | None:
        pool = self._pool()
        if pool is None or pool.disposed:
            return None
        _close_what_rested_too_long(pool)
        _ask_the_quiet(pool)
        return _refill(pool) or _until_next(pool)


def _close_what_rested_too_long(pool: Owner) -> None:
    with pool.lock:
        condemned = judgements.rested_too_long(pool.idle, pool.options, monotonic())
        for record, _ in condemned:
            pool.idle.remove(record)
    for record, reason in condemned:
        pool.discard(record, reason)


def _ask_the_quiet(pool: Owner) -> None:
    """Ping what has been idle for the keepalive time, one at a time, so that a caller still finds the others."""
    for record in list(pool.idle):
        if not judgements.is_quiet(record, pool.options, monotonic()):
            continue
        with pool.lock:
            try:
                pool.idle.remove(record)
            except ValueError:
                continue  # checked out in the meantime
        look = Look.at(pool._dialect, record.driver_connection)
        verdict = Verdict.ASK if look is None else look.verdict()
        if verdict is not Verdict.DEAD:
            verdict = ping(pool._dialect, record.dbapi_connection, record.driver_connection, PING_LIMIT)
        record.checked_at = monotonic()
        if verdict is Verdict.ALIVE:
            pool.hand_over(record, used=False)
            continue
        logger.info("%s: an idle connection died; replacing it", pool.options.name, extra=facts(pool.options.name))
        pool.discard(record, "ping")
        if verdict is Verdict.SILENT:
            pool.invalidate_all()


def _refill(pool: Owner) -> float | None:
    """Connect, in parallel, up to ``pool_min_idle``. Return when to try again if that is not done yet."""
    missing = 0
    slots = []
    with pool.lock:
        missing = judgements.missing(len(pool.idle), pool.connecting, pool.options)
        missing = int(min(missing, pool.limit - pool.open))
        for _ in range(min(missing, pool.connector.free_helpers)):
            slots.append(pool.new_slot())
    for slot in slots:
        pool.connector.employ(slot)
    if missing <= 0:
        return None
    return judgements.refill_pause(pool.connector.failures)


def _until_next(pool: Owner) -> float:
    now = monotonic()
    return judgements.next_round(list(pool.idle), pool.options, now) - now
