"""SQLAlchemy's connection record with its place in the queue, for pools of asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.pool.base import _ConnectionRecord

from dbconfig.engine.pool import driver
from dbconfig.engine.pool.place import Place, State
from dbconfig.engine.pool.record import Record
from dbconfig.engine.pool.refusal import NEVER

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

    from dbconfig.engine.pool.line import Line
    from dbconfig.engine.pool.tally import Counters


class TaskHome(Protocol):
    """The interface through which a record uses its pool."""

    line: Line
    counters: Counters
    thread: int
    _loop: Any

    @property
    def _dialect(self) -> Dialect: ...

    def cut(self, connection: Any) -> None: ...


class TaskRecord(Record):
    """A record that keeps its times in its place, where the queue reads them."""

    __slots__ = ("transport",)

    _home: TaskHome

    def __init__(self, pool: Any, place: Place) -> None:  # a Pool that is also a TaskHome: not expressible as a type
        self._home = pool
        self.place = place
        place.connection = self  # first: after an interrupt the review closes it
        self.transport: asyncio.WriteTransport | None = None
        self.deadline = NEVER  # no caller's: it has its own task
        self.doubtful_at = NEVER
        self.thread: Any = pool.thread
        self.task = None
        self.reason = None
        self.look = None
        self.waited = None
        self.finalize_callback = deque()
        _ConnectionRecord.__init__(self, pool)

    def renewed(self) -> None:
        self.look = None
        self.transport = driver.of(self._home._dialect).transport(self.driver_connection)
        if self.place.state is not State.CONNECTING:  # again, because a listener of the application asked for it
            self.place.generation = self._home.line.generation
            self.place.condemned = False

    def get_connection(self) -> Any:
        before = self.dbapi_connection
        if before is not None and self._soft_invalidate_time <= self.starttime:
            return before  # the pool invalidates by generation, and recycles by its own clock
        keeper = self.place.keeper  # at whose inspection this connects
        try:
            self.place.keeper = asyncio.current_task()
            return super().get_connection()
        except BaseException as error:
            self._end(before, error)
            raise
        finally:
            self.place.keeper = keeper

    def checkin(self, _fairy_was_created: bool = True) -> None:
        place = self.place
        task = None if self._home._loop is None else asyncio.current_task(self._home._loop)
        # SQLAlchemy lets go of the loan, and then resets its isolation level and calls listeners, all of which may
        # await: a review must not take the connection for a lost one.
        place.keeper = task
        try:
            super().checkin(_fairy_was_created)
        finally:
            if place.keeper is task:
                place.keeper = None

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        before = self.dbapi_connection
        try:
            super().invalidate(e, soft)
        except BaseException as error:
            self._end(before, error)
            raise
        if soft:
            self.place.condemned = True

    def close(self) -> None:
        before = self.dbapi_connection
        try:
            super().close()
        except BaseException as error:
            self._end(before, error)
            raise

    def _end(self, connection: Any, error: BaseException) -> None:
        """Close what SQLAlchemy has let go of, and an exception of a signal handler may have kept from being closed."""
        if connection is None or connection is self.dbapi_connection or isinstance(error, asyncio.CancelledError):
            return  # a close that is cancelled ends all the same
        self._home.cut(connection)

    def count_closed(self) -> None:
        self._home.counters.count_closed(self.reason or "invalidated")
        self.reason = None


def is_held(place: Place) -> bool:
    """Return whether a task is at work on a place, or a loan of its connection is alive."""
    if place.keeper is not None and not place.keeper.done():
        return True
    record: TaskRecord | None = place.connection
    if record is None or place.state is not State.LENT or record.fairy_ref is None:
        return False
    fairy = record.fairy_ref()
    return fairy is not None and fairy._connection_record is record
