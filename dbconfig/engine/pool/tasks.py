"""The queue, driven by asyncio: callers wait for futures, and nothing is locked."""

from __future__ import annotations

import asyncio
import logging
from asyncio import current_task
from threading import get_ident
from typing import Any
from weakref import ref

from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only

from dbconfig.engine.pool import deadline as deadlines
from dbconfig.engine.pool import farewell, timeout_errors
from dbconfig.engine.pool.both import LONGEST_WAIT
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.garbage import garbage
from dbconfig.engine.pool.inspections import connected_again, inspected
from dbconfig.engine.pool.place import Caller, Place
from dbconfig.engine.pool.refusal import NEVER, Refusal
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.task_lent import HAS_SHORT_WAY, TaskLent
from dbconfig.engine.pool.task_places import TaskPlaces
from dbconfig.engine.pool.task_record import TaskRecord


class TaskPool(TaskPlaces):
    """SQLAlchemy's pool for asyncio with another queue: it carries out the decisions of `Line`.

    Everything runs in the thread of one event loop, so that nothing else happens between two awaits, unless a
    signal handler raises there.
    """

    if HAS_SHORT_WAY:

        def connect(self) -> PoolProxiedConnection:
            if self.dispatch.checkout or self._pre_ping or self.logger.isEnabledFor(logging.DEBUG):
                return super().connect()
            record = self._do_get()
            connection = record.dbapi_connection
            if connection is None or record._soft_invalidate_time > record.starttime:
                connection = connected_again(record)
            return TaskLent(self, connection, record)

    def _do_get(self) -> TaskRecord:
        now = monotonic()
        task = current_task(self._loop)  # None: another loop runs, for example after ours has ended
        place = self.line.take(now)
        if place is None or task is None or now >= place.connection.doubtful_at:
            place = self._get_slowly(place, now)
            task = current_task(self._loop)
        else:
            self.counters.at_once += 1
        record: TaskRecord = place.connection
        record.task = None if task is None else ref(task)
        if self.inspections:
            self._inspect(record, task)
        return record

    def _inspect(self, record: TaskRecord, task: asyncio.Task[Any] | None) -> None:
        connection: Any = record.dbapi_connection
        record.place.keeper = task  # an inspection may await, and a review must not take the connection for a lost one
        try:
            if connection is None or record._soft_invalidate_time > record.starttime:
                connection = connected_again(record)
            inspected(self, record, connection)
        finally:
            record.place.keeper = None

    def _get_slowly(self, place: Place | None, now: float) -> Place:
        place = self._bind(place)
        deadline = self.deadline_from(now)
        limit = deadlines.current()
        if limit is None:
            return self._get_until(deadline, place, now)
        with deadlines.waiting(limit):
            return self._get_until(min(deadline, limit.at), place, now)

    def _get_until(self, deadline: float, place: Place | None, now: float) -> Place:
        caller = Caller(deadline, now)
        caller.place = place
        rested = place is not None
        try:
            self._asking.add(caller)
            if place is None:
                self.line.ask(caller, now)
                place, rested = self._wait(caller)
            while (unfit := self._why_unfit(place, deadline, rested=rested)) is not None:
                self.line.ask_again(caller, place, unfit, monotonic())
                place, rested = self._wait(caller)
            waited = monotonic() - now
            self.counters.waited(waited, queued=caller.queued)
            place.connection.waited = place.lent_at, waited
            return place
        finally:
            self._asking.discard(caller)

    def _bind(self, place: Place | None) -> Place | None:
        """Bind to the running loop; return what was taken, unless that belongs to a loop that has ended."""
        try:
            loop = asyncio.get_running_loop()
            if self._loop is None or (self._loop is not loop and self._loop.is_closed()):
                self.line.forget()  # the connections of a loop that has ended are unusable
                self._asking.clear()
                self._loop, self.thread, self._timers = loop, get_ident(), ()
                return None
            if self._loop is not loop:
                raise RuntimeError("an asynchronous engine belongs to one event loop, and a different one is running")
        except BaseException:
            if place is not None:
                self.line.give_back(place, monotonic())
            raise
        return place

    def _wait(self, caller: Caller) -> tuple[Place, bool]:
        """Return the connection that the queue decides on, and whether it was idle."""
        caller.key = future = self._loop.create_future()
        try:
            self._run()
        except BaseException:
            self.line.leave(caller, monotonic())
            raise
        decided = caller.place is not None or caller.error is not None
        if not decided:
            now = monotonic()
            left = max(0.0, caller.deadline - now)
            if self._timeout <= 0 and self.line.in_use < self.line.rules.limit:
                limit = deadlines.current()  # for its own connect, which has its own limits
                left = LONGEST_WAIT if limit is None else limit.remaining()
            # No timer of its own, which every hand-off would have to cancel: the reviews look for all who wait.
            caller.until = now + left
            caller.half = now + left / 2 if left > 1.0 else NEVER
            self._see_to_a_review(caller.until)
            try:
                await_only(future)
            except BaseException:  # cancelled; or not where SQLAlchemy can await
                self.line.leave(caller, monotonic())
                self._run()
                raise
        if caller.place is None:
            raise self._error_for(caller)
        return caller.place, decided

    def _collect(self, left: float) -> None:
        # A session that was never closed and is unreferenced may hold the connection.
        if self.line.in_use >= self.line.rules.limit:  # else the wait is for the server, not for a connection in use
            garbage.collect(left)

    def _expire(self, caller: Caller) -> None:
        if not caller.key.done():
            self.line.leave(caller, monotonic())
            self.counters.expire(monotonic() - caller.arrived, queued=caller.queued)
            waited, line = monotonic() - caller.arrived, self.line
            caller.error = timeout_errors.late(self, waited, line.trouble, all_in_use=line.in_use >= line.rules.limit)
            caller.key.set_result(None)

    def _error_for(self, caller: Caller) -> BaseException:
        if isinstance(caller.error, BaseException):
            return caller.error
        if caller.error is Refusal.SHED:
            return timeout_errors.shed(self, monotonic() - caller.arrived)
        return timeout_errors.refused(self)

    def _why_unfit(self, place: Place, deadline: float, *, rested: bool) -> str | None:
        record: TaskRecord = place.connection
        now = monotonic()
        unfit = self.line.why_unfit(place, now)
        if unfit is not None or not rested or now < record.doubtful_at or self._check is None:
            return unfit
        try:
            verdict = self._ask_or_look(record, now, deadline)
        except BaseException:
            # Cancelled in the middle of a ping: the next user might read its answer.
            self.line.retire(place, "ping")
            self._run()
            raise
        if verdict is Verdict.ALIVE:
            return self.line.why_unfit(place, monotonic())
        return self.failed_by(verdict, record)

    # -- connections

    def _do_return_conn(self, record: TaskRecord) -> None:  # type: ignore[override]  # every record is ours
        now = monotonic()
        if record.dbapi_connection is None:
            if get_ident() == self.thread or self._loop.is_closed():
                self._lost(record.place)
            else:  # the garbage collector, wherever it ran
                self._loop.call_soon_threadsafe(self._lost, record.place)
            return
        place = record.place
        doubtful_at, expires = now + self.trust, place.expires
        record.doubtful_at = doubtful_at if doubtful_at < expires else expires  # min() is a call
        self.line.give_back(place, now)
        if self.line.commands:
            self._run()

    _return_conn = _do_return_conn  # type: ignore[assignment]  # SQLAlchemy's own only calls it

    def dispose(self) -> None:
        """Close idle connections now and those in use when they are returned. Waiters are still served."""
        now = monotonic()
        if get_ident() == self.thread:
            self._mend(now)
        self.line.dispose(now)
        if not self.line.callers:
            self._stop_timers()
        self._run()
        self._watch_the_rest()
        if self.at_dispose is not None:
            self.at_dispose()
        from sqlalchemy.util.concurrency import in_greenlet  # below 2.0.58, only threads are supported

        if (self._connects or self._closes) and in_greenlet():
            await_only(self._settle())
        self.logger.info("Pool disposed. %s", self.status())

    async def _settle(self) -> None:
        """Wait for connects and closes in progress, within limits; a connect without a waiter is closed."""
        end = self._loop.time() + farewell.CLOSE_LIMIT
        while (tasks := self._under_way()) and (left := end - self._loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not self._under_way():
                self._mend(monotonic())  # what an interrupt has kept from its end
                self._run()
        # Not sooner: psycopg leaves a connect that is cancelled to the garbage collector.
        for task in tasks:
            if task in self._connects:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=farewell.CLOSE_LIMIT)

    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._closes | self._connects if not self.line.callers else set(self._closes)
