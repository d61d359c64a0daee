"""New connections of a pool of threads: on the thread of a caller, or on a helper thread."""

from __future__ import annotations

import contextvars
import logging
import time
import weakref
from threading import Thread, get_ident
from typing import TYPE_CHECKING, Any

from dbconfig.engine.pool import deadline, forks
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.record import Record, Slot
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.work import Order

if TYPE_CHECKING:
    from dbconfig.engine.pool.owner import Owner
    from dbconfig.engine.pool.place import Place

logger: logging.Logger = logging.getLogger("dbconfig.pool.connecting")


def connect_on_a_thread(pool: Owner, place: Place) -> bool:
    """Connect in this place on a helper thread, for the caller that is first in the queue when it is done.

    Return False if the interpreter is shutting down and starts no threads: let a caller connect on its own thread.
    """
    before, order = place.keeper, Order(place, pool.lock)
    place.keeper = order
    try:
        # A password provider may use the caller's context variables.
        context = contextvars.copy_context()
        Thread(target=context.run, args=(_help, pool, order), name="dbconfig-connect", daemon=True).start()
    except BaseException as error:
        try:
            withdrawn = order.withdraw()
        except BaseException:
            order.withdraw()
            raise
        if withdrawn and type(error).__module__ == "builtins" and isinstance(error, RuntimeError):
            place.keeper = before
            return False
        raise  # or else the helper has begun
    return True


def connect(pool: Any, place: Place, until: float = NEVER) -> Record:
    """Connect in this place, on this thread."""
    token = (get_ident(), object())
    try:
        forks.connects.begin(token)
        record = Record(pool, place, until)
    finally:
        try:
            forks.connects.end(token)
        except BaseException:
            forks.connects.end(token)  # interrupted once more: a fork would wait for it
            raise
    try:
        record.slot = slot = Slot(pool, place)
        record.kept = weakref.ref(slot)
    except BaseException:
        record.part("interrupted")
        raise
    return record


def _help(pool: Owner, order: Order) -> None:
    deadline.lift()  # the caller may give up, and the connection goes to the next one
    try:
        while (place := order.begin()) is not None:
            _connect(pool, place, order)
            if order.place is None:
                _wait_for_the_server(pool, order)
    except BaseException:
        pool.torn = True
        order.lasts = False
        pool.repair()
        raise
    finally:
        order.lasts = False


def _connect(pool: Owner, place: Place, order: Order) -> None:
    try:
        record = connect(pool, place)
    except BaseException as error:
        transient = pool.options.judge.connects_again(error)  # without the lock: it may have to ask the server
        if not pool.waiters:
            logger.debug("%s: a connect that no caller waits for has failed: %s", pool.options.name, error)
        pool.tell(pool.connect_failed, place, error, transient, helper=order)
    else:
        pool.tell(pool.connected, place, record, helper=order)


def _wait_for_the_server(pool: Owner, order: Order) -> None:
    """Wait until the next attempt is due. One tries for all, who also wait for a connection in use."""
    line = pool.line
    while line.trouble is not None and line.callers and line.retry_at != NEVER:
        left = line.retry_at - monotonic()
        if left <= 0:
            pool.tell(line.review, monotonic(), helper=order)  # it may be for this helper to try
            return
        time.sleep(left)
