"""The queue, driven by threads: callers block at gates; one deadline over wait, connect, and check."""

from __future__ import annotations

import logging
from bisect import bisect_left
from threading import Lock, RLock, get_ident
from typing import Any

from sqlalchemy.pool.base import _ConnectionFairy

from dbconfig.engine.pool import connecting, forks, idle, timeout_errors
from dbconfig.engine.pool import deadline as deadlines
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.inspections import connected_again, inspected
from dbconfig.engine.pool.lent import Lent
from dbconfig.engine.pool.place import Caller, Place, Serve, State
from dbconfig.engine.pool.record import Record, is_held_here
from dbconfig.engine.pool.refusal import Refusal
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import BOUNDS
from dbconfig.engine.pool.thread_places import Places

logger: logging.Logger = logging.getLogger("dbconfig.pool.line")

# Bound once, as in `line`.
_LENT, _IDLE = State.LENT, State.IDLE


class FairPool(Places):
    """SQLAlchemy's QueuePool with another queue; records, fairies, reset, and events are SQLAlchemy's.

    It carries out the decisions of `Line`. The usual checkout and checkin, of an idle connection while no caller waits,
    are written out here, for their speed.
    """

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
            self._tell_listeners(lent, record)
        else:
            lent._counter = 1
        return lent

    def _tell_listeners(self, lent: Lent, record: Record) -> None:
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
        try:
            with self.lock:
                if self.idle and not self.inside:
                    place = self._take()
                    record = place.connection
                    place.connection, place.state = None, _LENT  # no call since the connection was taken
                    place.lent_at = now
                    sound = now < record.doubtful_at
                    if sound:
                        self.counters.at_once += 1
        except BaseException:
            self.torn = True  # perhaps the connection has no holder
            try:
                self.repair()
            except BaseException:
                self.repair()
                raise
            raise
        if record is not None and sound:
            record.thread = get_ident()
            return record
        return self._get_slowly(record, now)

    def _get_slowly(self, record: Record | None, start: float) -> Record:
        deadline = self.deadline_from(start)
        limit = deadlines.current()
        if limit is None:
            return self._get_until(Caller(deadline, start), record)
        with deadlines.waiting(limit):
            connects = self.line.rules.callers_connect
            return self._get_until(Caller(min(deadline, limit.at), start, connects=connects), record)

    def _get_until(self, caller: Caller, record: Record | None) -> Record:
        try:
            self.asking.add(caller)
            return self._lend(caller, self._find(caller, record))
        except BaseException:
            try:
                self._abandon(caller)
            except BaseException:
                caller.key = caller.place = None  # interrupted once more: the place has no holder
                self.torn = True
                self.repair()
                raise
            raise
        finally:
            self.asking.discard(caller)

    def _find(self, caller: Caller, record: Record | None) -> Place:
        if record is not None:
            caller.place = place = record.place
            place.connection, record = record, None
            rested = True
        else:
            place, rested = self._ask(caller, self._enter, caller)
        while (unfit := self._why_unfit(caller, place, rested=rested)) is not None:
            place, rested = self._ask(caller, self._enter_again, caller, place, unfit)
        return place

    def _ask(self, caller: Caller, event: Any, *arguments: Any) -> tuple[Place, bool]:
        """Return the place that the queue decides on, and whether its connection was idle."""
        gate = Lock()
        gate.acquire()
        self.tell(event, gate, *arguments)
        waits = caller.place is None and caller.error is None
        if waits:
            self._wait(caller, gate)
            if caller.place is None and caller.error is None:
                self.tell(self._leave, caller)
        caller.key = None
        place = caller.place
        if place is None:
            raise self._error_for(caller)
        if place.state is State.CONNECTING:
            self._connect_here(caller, place)
            unfit = self.line.why_unfit(place, monotonic())
            if unfit is not None:  # all were invalidated while it was being made
                return self._ask(caller, self._enter_again, caller, place, unfit)
            return place, False
        return place, not waits

    def _enter(self, gate: Any, caller: Caller) -> None:
        self.line.ask(caller, caller.arrived)
        caller.key = gate  # from now on it counts as waiting

    def _enter_again(self, gate: Any, caller: Caller, place: Place, unfit: str) -> None:
        self.line.ask_again(caller, place, unfit, monotonic())
        caller.key = gate

    def _wait(self, caller: Caller, gate: Any) -> None:
        if is_held_here(self.lock):
            return  # in an object's end, where the garbage collector ran in one of our sections: all would wait
        left = max(0.0, caller.deadline - monotonic())
        if not self._opens(caller, gate, left / 2):
            self.reclaim(left / 2)
            self._opens(caller, gate, max(0.0, caller.deadline - monotonic()))

    def _opens(self, caller: Caller, gate: Any, seconds: float) -> bool:
        """Wait for at most this long until this caller's outcome is decided; return whether it is."""
        shedding = self.shedding
        if shedding is None:
            opened: bool = gate.acquire(timeout=seconds)
        else:
            end = monotonic() + seconds
            opened = False
            while not opened and (left := end - (now := monotonic())) > 0:
                opened = gate.acquire(timeout=min(left, shedding.due(caller.arrived, now) - now))
                if not opened:
                    self.tell(self.line.review, monotonic())
        return opened

    def _leave(self, caller: Caller) -> None:
        """An event: a caller no longer waits."""
        caller.key = None
        if caller.place is None and caller.error is None:
            now = monotonic()
            self.counters.expire(now - caller.arrived, queued=caller.queued)
            self.line.leave(caller, now)

    def _error_for(self, caller: Caller) -> BaseException:
        waited, line = monotonic() - caller.arrived, self.line
        if isinstance(caller.error, BaseException):
            return caller.error
        if caller.error is Refusal.SHED:
            return timeout_errors.shed(self, waited)
        if caller.error is Refusal.FULL:
            return timeout_errors.refused(self)
        return timeout_errors.late(self, waited, line.trouble, all_in_use=line.in_use >= line.rules.limit)

    def _connect_here(self, caller: Caller, place: Place) -> None:
        try:
            record = connecting.connect(self, place, caller.deadline)
        except BaseException:
            self.tell(self._left, caller)
            raise
        try:
            self.tell(self.connected, place, record)
        except BaseException:
            record.part("interrupted")
            raise

    def _abandon(self, caller: Caller) -> None:
        """Leave the queue without a connection; what was handed over at this moment goes to the next caller."""
        self.tell(self._left, caller)

    def _left(self, caller: Caller) -> None:
        caller.key = None
        self.line.leave(caller, monotonic())

    def _why_unfit(self, caller: Caller, place: Place, *, rested: bool) -> str | None:
        now = monotonic()
        unfit = self.line.why_unfit(place, now)
        record: Record = place.connection
        if unfit is not None or not rested or now < record.doubtful_at or self._check is None:
            return unfit
        try:
            verdict = self._check.of_record(self._dialect, record, now, caller.deadline)
        except BaseException:
            self.tell(self._retire, caller, place)
            raise
        if verdict is Verdict.ALIVE:
            return self.line.why_unfit(place, monotonic())
        return self.failed_by(verdict, record)

    def _retire(self, caller: Caller, place: Place) -> None:
        """An event: a caller was interrupted in the middle of a ping. The next user might read its answer."""
        caller.place = None
        self.line.retire(place, "ping")

    def _lend(self, caller: Caller, place: Place) -> Record:
        now = monotonic()
        record: Record = place.connection
        record.thread = get_ident()
        record.waited = now, now - caller.arrived
        with self.lock:
            self.counters.waited(now - caller.arrived, queued=caller.queued)
        place.lent_at = now
        place.connection = caller.place = None  # from now on the record has its place
        return record

    def _do_return_conn(self, record: Record) -> None:  # type: ignore[override]  # every record is ours
        now = monotonic()
        place = record.place
        if record.hold is not None and self.leaks is not None:
            self.leaks.returned(record)
        if record.dbapi_connection is None:
            self.tell(self.line.lost, place, now)
            return
        doubtful_at, expires = now + self.trust, place.expires
        record.doubtful_at = doubtful_at if doubtful_at < expires else expires  # min() is a call
        line = self.line
        if self.waiters or place.condemned or now >= expires:
            self._give_back(record, now)
            return
        with self.lock:
            # Read under the lock: an invalidation after an earlier check would not find the connection idle.
            if not (self.waiters or place.generation != line.generation or line.disposed or self.inside):
                held = now - place.lent_at
                use = self.counters.use
                use.counts[bisect_left(BOUNDS, held)] += 1  # Tally.observe, without the call
                use.sum += held
                put = self._put if len(line.places) <= self.steady else self._put_surplus
                place.returned_at = now
                place.state = _IDLE
                place.connection = record  # no call until it is idle
                put(place)
                return
        self._give_back(record, now)

    def _give_back(self, record: Record, now: float) -> None:
        """Let the line decide. As `tell` does, in fewer calls: usually there is only a caller to wake.

        What follows an interrupt stands here, too, because a call of a common function may be interrupted as it begins.
        """
        line = self.line
        try:
            with self.lock:
                usual = not (self.inside or self.torn)
                if usual:
                    self.inside = True
                    try:
                        record.place.connection = record
                        line.give_back(record.place, now)
                        commands = line.commands
                        if len(commands) == 1 and commands[0].__class__ is Serve:
                            line.commands = []
                            gate = commands[0].caller.key
                            if gate is not None and gate.locked():
                                gate.release()
                    finally:
                        self.inside = False
            if not usual:
                self.tell(self._returned, record, now)
            elif line.commands or self._later:
                self._repair()
        except BaseException:
            self.torn = True
            try:
                self.repair()
            except BaseException:
                self.repair()  # it may not have begun
                raise
            raise

    def _returned(self, record: Record, now: float) -> None:
        record.place.connection = record
        self.line.give_back(record.place, now)

    def _start_afresh(self) -> None:
        """After a fork that Python did not see: the connections and their waiters belong to the parent."""
        forks.notice()
        self.in_its_process = forks.mark()
        self.lock: RLock = RLock()
        self.inside = self.torn = False
        self._later.clear()
        self.asking.clear()
        self.lent.clear()
        rested = [place.connection for place in self.line.forget()]
        forks.pin(self.disown() if self.disown is not None else rested)

    def _dispose(self) -> None:
        try:
            self.line.dispose(monotonic())
        except BaseException:
            self.line.disposed = False  # or else all would be closed
            raise

    def dispose(self) -> None:
        """Close idle connections now and those in use when they are returned. Waiters are still served."""
        try:
            self.tell(self._dispose)
            idle.end(self)
            if self.at_dispose is not None:
                self.at_dispose()
        except BaseException:
            self.line.disposed = False  # interrupted: the engine keeps using this pool
            raise
        self.logger.info("Pool disposed. %s", self.status())
