"""A QueuePool with a fair queue: direct hand-off in order of arrival, one deadline over wait, connect, and check."""

from __future__ import annotations

import logging
from bisect import bisect_left
from threading import RLock, get_ident
from typing import Any

from sqlalchemy.pool.base import _ConnectionFairy

from dbconfig.engine.pool import deadline as deadlines
from dbconfig.engine.pool import forks, idle, judgements, timeout_errors
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.connecting import Connector
from dbconfig.engine.pool.garbage import garbage
from dbconfig.engine.pool.inspections import connected_again, inspected
from dbconfig.engine.pool.lent import Lent
from dbconfig.engine.pool.record import Record, Slot, Waiter
from dbconfig.engine.pool.refusal import Refusal
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import BOUNDS
from dbconfig.engine.pool.thread_places import Places

logger: logging.Logger = logging.getLogger("dbconfig.pool.line")


class FairPool(Places):
    """SQLAlchemy's QueuePool with another queue; records, fairies, reset, and events are SQLAlchemy's."""

    _sqla_logger_namespace = "sqlalchemy.pool.impl.QueuePool"  # the name that logging is configured for

    def connect(self) -> Lent:
        record = self._do_get()
        connection: Any = record.dbapi_connection
        if connection is None or record._soft_invalidate_time > record.starttime:
            connection = connected_again(record)
        if self.inspections:
            connection = inspected(self, record, connection)
        if self.leaks is not None:
            self.leaks.taken(record)
        lent = Lent(self, connection, record, self.logger.isEnabledFor(logging.DEBUG))
        if lent._echo:
            self.logger.debug("Connection %r checked out from pool", connection)
        if self.dispatch.checkout or self._pre_ping:
            self._tell(lent, record)
        else:
            lent._counter = 1
        return lent

    def _tell(self, lent: Lent, record: Record) -> None:
        """Call the listeners of `checkout` with a connection; SQLAlchemy replaces one that they reject."""
        try:
            _ConnectionFairy._checkout(self, fairy=lent)
        except BaseException:
            self.lent.discard(record)
            raise

    def _do_get(self) -> Record:
        now = monotonic()
        if not self.in_its_process[0]:
            self._start_afresh()
        record: Record | None = None
        sound = False
        with self.lock:
            if self.idle:
                record = self._take()
                sound = now < record.doubtful_at
                if sound:
                    self.counters.at_once += 1
        if record is not None and sound:
            record.lent_at = now
            record.thread = get_ident()
            return record
        return self._get_slowly(record, now)

    def _get_slowly(self, record: Record | None, start: float) -> Record:
        deadline = self.deadline_from(start)
        limit = deadlines.current()
        if limit is None:
            return self._get_until(deadline, record, start)
        with deadlines.waiting(limit):
            return self._get_until(min(deadline, limit.at), record, start, connects=self.connector.inline)

    def _get_until(self, deadline: float, record: Record | None, start: float, *, connects: bool = True) -> Record:
        slot: Slot | None = None
        while record is not None:
            unfit = self._why_unfit(record, start, deadline)
            if unfit is None:
                return self._lend(record, start)
            slot = record.slot  # the place stays ours: no later caller may connect in it before us
            record.part(unfit)
            self.reuse(slot)
            record = self._another_idle()
            if record is not None:
                slot.release()
                slot = None
        waiter = Waiter(deadline, start, connects=connects)
        outcome = self._join(waiter, slot, start)
        if isinstance(outcome, Slot):
            outcome = self.connector.connect(outcome, deadline)
        try:
            return self._lend(outcome, start, queued=waiter.queued)
        except BaseException:
            self.hand_over(outcome)
            raise

    def _why_unfit(self, record: Record, now: float, deadline: float) -> str | None:
        if now >= record.expires:
            return "recycled"
        if self._check is None:
            return None
        try:
            verdict = self._check.of_record(self._dialect, record, now, deadline)
        except BaseException:
            # Interrupted in the middle of a ping: the next user might read its answer.
            self.discard(record, "ping")
            raise
        if verdict is Verdict.ALIVE:
            return "invalidated" if record.generation != self.generation else None
        return self.failed_by(verdict, record)

    def _another_idle(self) -> Record | None:
        with self.lock:
            return self._take() if self.idle else None

    def _join(self, waiter: Waiter, slot: Slot | None, start: float) -> Record | Slot:
        outcome: Record | Slot | BaseException | Refusal | None
        try:
            outcome = self._enter(waiter, slot)
            if outcome is None:
                self._wait(waiter)
                outcome = self._leave(waiter, start)
        except BaseException:
            try:
                self._abandon(waiter)
            except BaseException:
                self._abandon(waiter)  # interrupted once more, for example by a held-down Ctrl-C
                raise
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Refusal):
            raise timeout_errors.shed(self, monotonic() - start)
        return outcome

    def _wait(self, waiter: Waiter) -> None:
        left = max(0.0, waiter.deadline - monotonic())
        if not self._opens(waiter, left / 2):
            # A session that was never closed and is unreferenced may hold the connection.
            garbage.collect(left / 2)
            self._opens(waiter, max(0.0, waiter.deadline - monotonic()))

    def _opens(self, waiter: Waiter, seconds: float) -> bool:
        """Wait for at most this long until this caller's outcome is decided; return whether it is."""
        if self.shedding is None:
            return waiter.gate.acquire(timeout=seconds)
        end = monotonic() + seconds
        while (left := end - (now := monotonic())) > 0:
            if waiter.gate.acquire(timeout=min(left, self.shedding.due(waiter.arrived, now) - now)):
                return True
            self.shed(self.shedding)
        return waiter.gate.acquire(timeout=0)

    def _enter(self, waiter: Waiter, slot: Slot | None) -> Record | Slot | None:
        """Enter the queue, at its head if the caller already holds a place. Return immediately what needs no wait."""
        with self.lock:
            back = self._take() if self.idle else None  # it was returned since the check
            jammed = False
            if back is None:
                if slot is not None and self.connector.on_callers_thread and waiter.connects:
                    return slot
                first = slot is None and not self.waiters and self.open < self.limit
                if first and waiter.connects and self.connector.may_connect_here():
                    return self.new_slot()
                most, in_use = self.options.max_waiting, self.open - self.connecting
                jammed = slot is None and judgements.is_full(len(self.waiters), most, self.limit, in_use)
                waiter.queued = slot is None and self.counters.is_full_for(len(self.waiters), in_use, self.limit)
                if jammed:
                    self.counters.refuse(full=waiter.queued)
                else:
                    if self.shedding is not None and not self.waiters:
                        self.shedding.relax()
                    self.waiters[waiter] = None
                    self.waiters.move_to_end(waiter, last=slot is None)
        if jammed:
            raise timeout_errors.refused(self)
        if back is None and slot is None:
            self.connector.staff()
        elif back is None and slot is not None:
            self.connector.employ(slot)
        elif slot is not None:
            slot.release()
        return back

    def _leave(self, waiter: Waiter, start: float) -> Record | Slot | BaseException | Refusal:
        with self.lock:
            if waiter.outcome is not None:
                return waiter.outcome
            waited = monotonic() - start
            self.counters.expire(waited, queued=waiter.queued)
            self.waiters.pop(waiter, None)
            trouble, full = self.connector.trouble, self.open - self.connecting >= self.limit
        return timeout_errors.late(self, waited, trouble, all_in_use=full)

    def _abandon(self, waiter: Waiter) -> None:
        """Leave the queue without a connection; what was handed over at this moment goes to the next caller."""
        with self.lock:
            self.waiters.pop(waiter, None)
            outcome, waiter.outcome = waiter.outcome, None
        if isinstance(outcome, Record):
            self.hand_over(outcome)
        elif isinstance(outcome, Slot):
            outcome.release()

    def _lend(self, record: Record, start: float, *, queued: bool = False) -> Record:
        record.lent_at = now = monotonic()
        record.thread = get_ident()
        record.waited = now, now - start
        with self.lock:
            self.counters.waited(now - start, queued=queued)
        return record

    def _do_return_conn(self, record: Record) -> None:  # type: ignore[override]  # every record is ours
        now = monotonic()
        held = now - record.lent_at
        if record.hold is not None and self.leaks is not None:
            self.leaks.returned(record)
        if record.dbapi_connection is None or now >= record.expires or record.starttime < record._soft_invalidate_time:
            self._part_on_return(record, held)
            return
        record.returned_at = now
        record.doubtful_at = min(now + self.trust, record.expires)
        with self.lock:
            use = self.counters.use
            use.counts[bisect_left(BOUNDS, held)] += 1  # Tally.observe, without the call
            use.sum += held
            # Read the generation under the lock: an invalidation after an earlier check would not find the connection
            # idle.
            if not (self.waiters or self.disposed) and record.generation == self.generation:
                self._put(record) if self.open <= self.steady else self._put_surplus(record)
                return
        self.hand_over(record)

    def _part_on_return(self, record: Record, held: float) -> None:
        with self.lock:
            self.counters.use.observe(held)
        if record.dbapi_connection is None:
            record.slot.release()
        else:
            self.discard(record, "recycled" if monotonic() >= record.expires else "invalidated")

    def _start_afresh(self) -> None:
        """After a fork that Python did not see: the connections and their waiters belong to the parent."""
        forks.notice()
        self.in_its_process = forks.mark()
        self.lock: RLock = RLock()
        self._cared_for = False
        inherited = self.disown() if self.disown is not None else list(self.idle)
        for record in inherited:
            record.slot.held = False
        forks.pin(inherited)
        self.idle.clear()
        self.lent.clear()
        self.waiters.clear()
        self.open = self.connecting = 0
        self.connector: Connector = Connector(self, inline=self.connector.inline)

    def dispose(self) -> None:
        """Close idle connections now and those in use when they are returned. Waiters are still served."""
        try:
            with self.lock:
                self.disposed = True
            idle.end(self)
            self._discard_idle(lambda record: True, "disposed")
            if self.at_dispose is not None:
                self.at_dispose()
        except BaseException:
            self.disposed: bool = False  # interrupted: the engine keeps using this pool
            raise
        self.logger.info("Pool disposed. %s", self.status())
