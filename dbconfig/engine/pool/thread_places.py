"""The places of a pool of threads: tells the queue what happens, under a lock, and carries out what it commands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

from dbconfig.engine.pool import forks, idle
from dbconfig.engine.pool.both import Ours
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.connecting import connect_on_a_thread
from dbconfig.engine.pool.garbage import garbage
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.mending import mend
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.place import Caller, Close, Command, Connect, Ping, Place, Serve, State, WakeAt
from dbconfig.engine.pool.record import Record, is_held_here
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import Past
from dbconfig.engine.pool.work import Order, Work, is_held

if TYPE_CHECKING:
    from collections import OrderedDict

    from dbconfig.engine.pool.shedding import Shedding

_PAUSE = 1.0  # seconds between two looks for what has no holder

Event = tuple[Callable[..., None], tuple[Any, ...]]


class Places(Ours):
    """The base of `FairPool`, without the checkout itself.

    Events of the queue run under the lock, one at a time; its commands are carried out when the lock is free again. The
    lock is re-entrant, because the garbage collector may return a forgotten connection, or drop a record, anywhere. In
    the middle of an event, it leaves its own event to the one that runs, in the same thread. It may do so in any other
    thread too, and there it waits for the lock. So a section that holds the lock never waits: it starts no thread (a
    start waits until the new thread has begun, and that thread may have to collect), writes no log, and calls no other
    object that has a lock.

    An exception from a signal handler is raised after a call or at the beginning of a function, and nowhere else. It
    may leave an event half done, or a command undone: ``torn``, set by plain assignment, says so. Then the places
    without a holder are reclaimed, and the waiters are served, as for asyncio. What SQLAlchemy holds at that moment
    returns its place by a finalizer.
    """

    def __init__(
        self, creator: Any, line: LineOptions | None = None, past: Past | None = None, **arguments: Any
    ) -> None:
        super().__init__(creator, line, past, **arguments)
        here = getattr(self._dialect, "name", "") == "sqlite" or self._timeout <= 0
        self.line: Line = Line(self.rules(callers_connect=here, first_by_caller=True), self.counters)
        self.idle: deque[Place] = self.line.idle
        self.waiters: OrderedDict[Caller, None] = self.line.callers
        self._take, self._put, self._put_surplus = self.line._take, self.line._put, self.line._put_surplus
        self.in_its_process: forks.Mark = forks.mark()
        self.lock: RLock = RLock()
        # Connections in use, kept alive so that the garbage collector, which finalizes a cycle in any order, leaves
        # them intact.
        self.lent: set[Record] = set()
        self.asking: set[Caller] = set()  # in the course of a checkout
        self.inside = False  # an event runs
        self.torn = False  # an interrupt has left something undone
        self._later: deque[Event] = deque()  # events inside of that event
        self._reclaims_at = -NEVER

    # -- events and commands

    # What a `with` or a `try` guards here contains no loop: in CPython 3.13, an exception that a signal handler raises
    # where a loop starts its next round may pass both by.

    def tell(self, event: Callable[..., None], *arguments: Any, helper: Order | None = None) -> None:
        """Let an event of the queue happen, and carry out what it commands."""
        work: list[Work] = []
        try:
            commands = self._inside(event, arguments, work)
            if commands or (self._later and commands is not None):
                self._work(commands, helper, work)
        except BaseException:
            self.torn = True
            if work:
                work[0].lasts = False
            try:
                self.repair()
            except BaseException:
                self.repair()  # it may not have begun
                raise
            raise
        if work:
            work[0].lasts = False

    def repair(self) -> None:
        """Make the queue whole after an interrupt."""
        try:
            self._repair()
        except BaseException:  # interrupted once more, for example by a held-down Ctrl-C
            try:
                self._repair()
            except BaseException:
                idle.wake(self, monotonic())  # the caretaker's thread gets no signals
                raise
            raise

    def reclaim(self, left: float) -> None:
        """For a caller that has so many seconds left, look for connections that are in use without a holder.

        A session that was never closed may be garbage. And CPython looks for signals as a function begins: the second
        of two interrupts in a row, as by a held-down Ctrl-C, may end the finalizer of what the first one let go of
        before its `try`.
        """
        garbage.collect(left)
        now = monotonic()
        if now >= self._reclaims_at:  # all who came in a burst come here together, too
            self._reclaims_at = now + _PAUSE
            self._drop_what_is_not_held()
            self.torn = True
            self.repair()

    def _drop_what_is_not_held(self) -> None:
        for record in list(self.lent):
            loan = record.fairy_ref
            if loan is not None and loan() is None:
                # No more than that: its finalizer may just run in another thread, which holds the record and returns
                # it. Without one the record dies, and its slot with it.
                self.lent.discard(record)

    def _repair(self) -> None:
        work: list[Work] = []
        try:
            commands = self._inside(None, (), work)
            if commands is not None:
                self._work(commands, None, work)
        except BaseException:
            self.torn = True
            raise
        finally:
            if work:
                work[0].lasts = False

    def _work(self, commands: list[Command], helper: Order | None, work: list[Work]) -> None:
        """Carry out commands, and let happen what comes of them."""
        follow: list[Event] = []
        while True:
            for command in commands:
                self._obey(command, helper, follow)
            if not follow and not self._later:
                return
            # Without one: for an event of the garbage collector, after the last look inside.
            event, arguments = follow.pop(0) if follow else (None, ())
            more = self._inside(event, arguments, work)
            if more is None:
                return
            commands = more

    def _inside(
        self, event: Callable[..., None] | None, arguments: tuple[Any, ...], work: list[Work]
    ) -> list[Command] | None:
        """Let an event happen, and return the commands for which the lock must be free; None inside another event."""
        with self.lock:
            if self.inside:  # of this thread: the lock is ours
                if event is not None:
                    self._later.append((event, arguments))
                return None
            self.inside = True
            try:
                if self.torn:
                    self._mend()
                if event is not None:
                    event(*arguments)
                if self._later or self.line.commands:
                    return self._decide(work)
                return []
            finally:
                self.inside = False

    def _decide(self, work: list[Work]) -> list[Command]:
        while self._later:
            event, arguments = self._later.popleft()
            event(*arguments)
        line = self.line
        commands, line.commands = line.commands, []
        others: list[Command] = []
        for command in commands:
            if isinstance(command, Serve):  # here, where no other thread can do so
                gate = command.caller.key
                if gate is not None and gate.locked():
                    gate.release()
                continue
            others.append(command)
            if not isinstance(command, WakeAt):
                if not work:
                    work.append(Work())
                command.place.keeper = work[0]
        return others

    def _obey(self, command: Command, helper: Order | None, follow: list[Event]) -> None:
        """Carry out a command without the lock, and append the event that follows."""
        if isinstance(command, Connect):
            if not self._connect(command.place, helper):
                follow.append((self._entrust, (command.place,)))
        elif isinstance(command, Close):
            self._close(command.place, command.reason)
            follow.append((self._closed, (command.place,)))
        elif isinstance(command, Ping):
            idle.ask(self, command.place)
        elif isinstance(command, WakeAt):
            idle.wake(self, command.when)

    def _connect(self, place: Place, helper: Order | None) -> bool:
        """Have a helper connect in this place, if that is possible."""
        if helper is not None and helper.place is None:
            helper.place, place.keeper = place, helper
            return True
        # Inside one of our sections, by the garbage collector: a thread started now may wait for us.
        return not is_held_here(self.lock) and connect_on_a_thread(self, place)

    def _close(self, place: Place, reason: str) -> None:
        record: Record | None = place.connection
        if record is not None:
            try:
                record.part(reason)
            except BaseException:
                self._later.append((self._closed, (place,)))  # whatever becomes of it
                raise

    def _entrust(self, place: Place) -> None:
        self.line.entrust(place, monotonic())

    def _closed(self, place: Place) -> None:
        place.connection = None
        self.line.closed(place, monotonic())

    def connected(self, place: Place, record: Record) -> None:
        """An event: the connect in this place has succeeded."""
        now = monotonic()
        place.connection, place.keeper = record, record.kept
        record.doubtful_at = min(now + self.trust, place.expires)
        self.line.connected(place, now, place.expires)

    def connect_failed(self, place: Place, error: BaseException, transient: bool) -> None:
        """An event: the connect in this place has failed."""
        self.line.connect_failed(place, error, transient=transient, now=monotonic())

    def asked(self, place: Place, verdict: Verdict) -> None:
        """An event: the ping of an idle connection has ended."""
        now = monotonic()
        place.keeper = place.connection.kept
        self.line.checked(place, alive=verdict is Verdict.ALIVE, now=now)
        if verdict is Verdict.SILENT:
            self.line.invalidate(now)

    def take_back(self, place: Place) -> None:
        """The record in this place was dropped: the place has no holder."""
        if self.in_its_process[0]:  # else a forked child drops it, maybe at its exit
            self.tell(self._dropped, place)

    def _dropped(self, place: Place) -> None:
        if place.state is State.LENT and place.connection is None:
            self.line.closed(place, monotonic())

    def _mend(self) -> None:
        now, asking = monotonic(), list(self.asking)
        handed = {caller.place for caller in asking}
        mend(
            self.line,
            [caller for caller in asking if caller.key is not None],
            lambda place: is_held(place, handed),
            now,
        )
        self.line.care.resume(now)
        self.torn = False

    # -- the whole

    def invalidate_all(self) -> None:
        """Hand out no existing connection again; those in use close when they are returned."""
        self.tell(self.line.invalidate, monotonic())

    def _discard_idle(self, condemned: Callable[[Any], bool], reason: str) -> None:
        self.tell(self.line.close_idle, lambda place: condemned(place.connection), reason)

    def is_over(self) -> bool:
        return self.line.disposed and not self.open and not self.waiters

    @property
    def generation(self) -> int:  # type: ignore[override]
        return self.line.generation

    @property
    def open(self) -> int:  # type: ignore[override]
        return len(self.line.places)

    @property
    def connecting(self) -> int:
        return len(self.line.connects)

    @property
    def disposed(self) -> bool:
        return self.line.disposed

    @property
    def shedding(self) -> Shedding | None:
        return self.line.shedding

    def checkedout(self) -> int:
        return self.line.in_use - len(self.idle)
