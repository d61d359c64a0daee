"""Draining of engines: connections are retired, statements cancelled, and sockets finally cut."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from threading import Thread, get_ident
from time import sleep
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import event, exc
from sqlalchemy.pool import NullPool, Pool, QueuePool
from sqlalchemy.pool.base import _ConnectionFairy
from sqlalchemy.util import await_only

from dbconfig.engine.pool import driver, forks, sockets
from dbconfig.engine.pool.cancelling import CANCEL_LIMIT, Canceller, Request, cancel_beside
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.ours import is_ours
from dbconfig.engine.pool.record import REASON, Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from dbconfig.engine.pool.diagnostics.counters import Ledger

logger: logging.Logger = logging.getLogger("dbconfig.pool.ending")

# Seconds that a thread has to notice that its statement has ended, and to return its connection.
GRACE = 1.0
PAUSE = 0.01


class ClosedPool(NullPool):
    """Replaces a pool that is being drained, and rejects every checkout."""

    def __init__(self, name: str, was: Pool) -> None:
        super().__init__(was._creator, dialect=was._dialect, logging_name=was._orig_logging_name)
        self._name, self._was = name, was

    def _do_get(self) -> NoReturn:
        raise exc.InvalidRequestError(f"{self._name}: dispose() has closed this engine: it hands out no connections")

    def recreate(self) -> ClosedPool:
        return self

    def beside(self) -> Pool:
        """Return a pool for a connection that ends what is still executed on the closed one's."""
        return self._was.recreate()


def is_closed(engine: Engine) -> bool:
    """Return whether an engine has been drained, and hands out nothing."""
    return isinstance(engine.pool, ClosedPool)


def retire(engine: Engine, records: Iterable[Any]) -> None:
    """Never hand out connections again: idle ones close now, the others when they are returned."""
    condemned = {id(record) for record in records if record.dbapi_connection is not None}
    pool = engine.pool
    for record in records:
        if record.dbapi_connection is not None:
            record.invalidate(soft=True)
    if is_ours(pool):
        pool._discard_idle(lambda record: id(record) in condemned, "invalidated")


def interrupt(connection: Connection) -> None:
    """End what another thread executes on a connection, which closes when it is returned.

    A request to cancel may reach the server late, and must not end a statement of the next user.
    """
    pooled: Any = connection._dbapi_connection
    record = None if pooled is None else pooled._connection_record
    if record is None or record.dbapi_connection is None:
        return
    record.invalidate(soft=True)
    if pooled._connection_record is not record:  # returned in the meantime, maybe to another user
        return
    engine, under = connection.engine, record.driver_connection
    own = driver.of(engine.dialect)
    if own.interrupts:
        own.interrupt(under)
        return
    try:
        number = own.number(under)
        if number is not None:
            cancel_beside(engine.pool, own, [Request(number)])
    except Exception as error:  # the server is down
        name = engine.logging_name or ""
        logger.info("%s: a statement could not be cancelled on the server: %s", name, error, extra=facts(name))
        fd = own.socket(under)
        if fd is not None:
            sockets.shut(fd)


def close_on_return(engine: Engine) -> None:
    """Close each connection of an engine's pool at the end of its use, and idle ones now.

    Code that holds the engine can still use it; it keeps no connections.
    """
    if is_ours(engine.pool):
        engine.pool.dispose()  # not engine.dispose(), which would give it a new pool that keeps its connections
        return
    old = engine.pool
    close_what_returns(old)
    engine.pool = NullPool(
        old._creator, dialect=old._dialect, logging_name=old._orig_logging_name, _dispatch=old.dispatch
    )
    old.dispose()


def dispose(engine: Engine) -> None:
    """Close idle connections now, and those in use when they are returned; the engine continues with a new pool."""
    old = engine.pool
    engine.dispose()
    if old is not engine.pool and not is_ours(old):  # its queue would keep them
        close_what_returns(old)
        old.dispose()  # what was returned in between


def close_what_returns(target: Engine | Pool) -> None:
    """Make an engine, or a pool of SQLAlchemy, that has ended close what is returned to it; its queue would keep it."""
    if isinstance(target, QueuePool) or not isinstance(target, Pool):
        event.listen(target, "checkin", _close_returned)


def _close_returned(connection: Any, record: Any) -> None:
    if connection is not None:
        _close(record)


def _close(record: Any) -> None:
    if isinstance(record, Record):
        record.part("disposed")
    else:
        record.info[REASON] = "disposed"
        record.close()


class Drain:
    """Drains one engine: waits for connections in use, then cancels their statements, then cuts them."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self.name: str = ledger.name
        self._engine = engine
        self._canceller: Canceller | None = None
        self._ledger = ledger
        self._pool = engine.pool
        self._runs_in_process = engine.dialect.name == "sqlite" and not engine.dialect.is_async
        self._driver = driver.of(engine.dialect)
        engine.pool = ClosedPool(ledger.name, engine.pool)
        if is_ours(self._pool):
            self._pool.dispose()  # callers that already wait are still served
        else:
            close_what_returns(self._pool)

    def busy(self) -> int:
        """Return how many connections are in use or about to be."""
        stats = self._ledger.stats(self._pool)
        return stats.used + stats.connecting + stats.waiting

    def cancel(self) -> None:
        """Ask the server to cancel running statements, within a time limit."""
        forks.notice()
        thread = Thread(target=self.ask_to_cancel, name="dbconfig-cancel", daemon=True)
        thread.start()
        thread.join(CANCEL_LIMIT)

    def ask_to_cancel(self) -> None:
        """Do so without a limit; in a thread, or, for asynchronous drivers, where SQLAlchemy can await."""
        connections = [record.driver_connection for record in self._ledger.records()]
        try:
            if self._driver.interrupts:
                for connection in connections:
                    interrupted = self._driver.interrupt(connection)
                    if interrupted is not None:
                        await_only(interrupted)
                return
            numbers = [self._driver.known_number(connection) for connection in connections]
            requests = [Request(number) for number in numbers if number is not None]
            cancel_beside(self._pool, self._driver, requests)
            self._canceller = Canceller(self._engine)  # the server accepts requests
        except Exception as error:  # the server is down, or accepts no further connection
            logger.info(
                "%s: statements could not be cancelled on the server: %s", self.name, error, extra=facts(self.name)
            )

    def give_up(self) -> None:
        """Before the connections in use are closed, ask once more: the server may have ignored the first request."""
        if self._canceller is not None:
            for record in self._ledger.records():
                self._canceller.abandon(record.driver_connection)

    def cut(self) -> None:
        """Close every remaining connection, including those in use."""
        self.give_up()
        records = self._ledger.live()
        for record in self._ledger.records():
            fd = self._driver.socket(record.driver_connection)
            if fd is not None:
                sockets.shut(fd)  # frees the driver call that a thread may be blocked in
        wait_until_idle([self], GRACE)
        for record in records:
            if record.dbapi_connection is None:
                continue
            if self._runs_in_process and _in_a_call(record.dbapi_connection):
                # Closed under a running statement, SQLite ends the process. It closes when it is returned.
                logger.warning(
                    "%s: a statement still runs in this process; its connection closes when it ends",
                    self.name,
                    extra=facts(self.name),
                )
                continue
            _close(record)
        if not is_ours(self._pool):
            self._pool.dispose()


def _in_a_call(connection: Any) -> bool:
    """Return whether a thread may be executing a statement on this sqlite3 connection.

    Python does not show that a thread is inside a C function, but the arguments of the call are in its last frame.
    """
    from sqlite3 import Cursor

    others = (frame for thread, frame in sys._current_frames().items() if thread != get_ident())
    for frame in others:
        for each in frame.f_locals.values():
            held = each.connection if isinstance(each, Cursor) else each
            if held is connection or (isinstance(held, _ConnectionFairy) and held.dbapi_connection is connection):
                return True
    return False


def wait_until_idle(drains: list[Drain], seconds: float) -> bool:
    """Wait until nothing is in use; return False on a timeout."""
    deadline = monotonic() + seconds
    while any(drain.busy() for drain in drains):
        left = deadline - monotonic()
        if left <= 0:
            return False
        sleep(min(PAUSE, left))
    return True
