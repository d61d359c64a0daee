"""The places of a pool: how many connections are open, which of them rest, and who gets the next one."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from threading import RLock
from typing import Any

from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool import forks, idle, judgements
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.connecting import Connector
from dbconfig.engine.pool.options import LineOptions, Ours
from dbconfig.engine.pool.record import NEVER, Leaks, Record, Slot, Waiter
from dbconfig.engine.pool.refusal import Refusal
from dbconfig.engine.pool.shedding import Shedding
from dbconfig.engine.pool.tally import Counters, Past
from dbconfig.engine.pool.timeout_errors import Explain


class Places(QueuePool, Ours):
    """What `FairPool` is made of, without the ways of its callers.

    Two rules hold whenever the lock is free: nobody waits while a connection is idle, and every open or opening
    connection has exactly one slot. The lock is re-entrant, because the garbage collector may return a forgotten
    connection, or drop a slot, in the middle of our own critical section; each section is therefore correct at every
    point at which a whole other section may run inside it. It may do so in any other thread too, and there it waits for
    the lock. So nobody who holds the lock waits for anything: starts no thread (a start waits until the new thread has
    begun, and that thread may have to collect), writes no log, and asks no other object that has a lock.

    An exception out of a signal handler strikes after a call, or at the beginning of a function, and nowhere else.
    What belongs together is therefore done without a call in between, or undone by the end of an object.
    """

    def __init__(
        self, creator: Any, line: LineOptions | None = None, past: Past | None = None, **arguments: Any
    ) -> None:
        super().__init__(creator, **arguments)
        self.options: LineOptions = line or LineOptions()
        self.counters: Counters = Counters()
        self.explain: Explain | None = None  # writes the notes of a timeout
        self.at_dispose: Callable[[], None] | None = None
        self.leaks: Leaks | None = None
        self.inspections: tuple[Callable[[Any, Record], None], ...] = ()  # of each connection that is handed out
        self.server = "the server"  # as errors call it
        self.disown: Callable[[], list[Record]] | None = None  # forgets and returns the connections of the parent
        self.past: Past = past or Past()
        self.in_its_process: forks.Mark = forks.mark()
        self.lock: RLock = RLock()
        self.idle: deque[Record] = deque()
        # What is in use, so that the garbage collector, which ends all of a circle in any order, finds it whole.
        self.lent: set[Record] = set()
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self.open: int = 0  # slots that are taken: idle, in use or connecting
        self.connecting: int = 0
        self.generation: int = 0  # of the connections made from now on; the older ones are invalid
        self.disposed = False
        self._cared_for = False
        self.limit: float | int = float("inf") if self._max_overflow == -1 else self._pool.maxsize + self._max_overflow
        self.connector: Connector = Connector(
            self, inline=getattr(self._dialect, "name", "") == "sqlite" or self._timeout <= 0
        )
        target = self.options.queue_target
        self.shedding: Shedding | None = None if target is None else Shedding(target)
        self._check = self.options.check
        self.trust: float = NEVER if self._check is None else self._check.trust
        # Beyond the steady size a returned connection is the next to go, so that the surplus rests and can time out
        # as idle; in strict rotation a trickle of requests would keep all of them in use for ever.
        self._steady = self._pool.maxsize or float("inf")
        self._take = self.idle.pop if self._pool.use_lifo else self.idle.popleft
        self._put = self.idle.append
        self._put_surplus = self.idle.append if self._pool.use_lifo else self.idle.appendleft
        self._put_last = self.idle.appendleft if self._pool.use_lifo else self.idle.append

    def hand_over(self, record: Record, *, used: bool = True) -> None:
        """Give a sound connection to the caller that has waited longest, else let it rest.

        Args:
            record: of the connection.
            used: somebody has used it. After a mere check it is the last to be lent. As the next one, with a ping
                every two minutes, each surplus connection would have its turn before it has rested long enough to end.
        """
        with self.lock:
            if record.generation != self.generation:
                unfit = "invalidated"  # while it was being connected, or looked at
            elif self.waiters:  # of a disposed pool as well: they came before its end, and were promised a connection
                if self.shedding is not None:
                    self._shed_for_next(self.shedding)
                self.serve_first(record)
                return
            elif self.disposed:
                unfit = "disposed"
            else:
                if not used:
                    self._put_last(record)
                elif self.open <= self._steady:
                    self._put(record)
                else:
                    self._put_surplus(record)
                return
        self.discard(record, unfit)

    def discard(self, record: Record, reason: str) -> None:
        try:
            record.part(reason)
        finally:
            record.slot.release()

    def serve_first(self, outcome: Record | Slot | BaseException | Refusal) -> None:
        """Give this to the caller that has waited longest. The lock is held, and somebody waits."""
        waiter = next(iter(self.waiters))
        # An exception out of a signal handler strikes after a call: here after nothing, or after everything.
        del self.waiters[waiter]
        waiter.outcome = outcome
        waiter.gate.release()

    def _shed_for_next(self, shedding: Shedding) -> None:
        """Somebody gets a connection: drop callers that have waited too long. The lock is held, and somebody waits."""
        now = monotonic()
        self._shed(shedding, now)
        shedding.served(now - next(iter(self.waiters)).arrived, now)

    def shed(self, shedding: Shedding) -> None:
        """Drop callers that have waited too long while no connection comes back."""
        now = monotonic()
        with self.lock:
            if self.waiters and self.open - self.connecting >= self.limit:
                shedding.stands(now - next(iter(self.waiters)).arrived, now)
                self._shed(shedding, now)

    def _shed(self, shedding: Shedding, now: float) -> None:
        while judgements.drops_first(shedding, self.waiters, now):
            self.counters.refuse(full=True)
            self.serve_first(Refusal.SHED)

    def give_first(self, slot: Slot) -> None:
        """Give a place to the caller that has waited longest, for a connect on its own thread."""
        with self.lock:
            if self.waiters:
                self.serve_first(slot)
                return
        slot.release()

    def new_slot(self) -> Slot:
        """Take a free place. The lock is held, and ``open`` is below ``limit``."""
        slot, connector = Slot(self), self.connector
        # No call and no allocation from here on: nothing can run in between, and nothing strike.
        slot.held = slot.connecting = True
        self.open += 1
        self.connecting += 1
        if not (connector.inline or connector.warm):
            slot.cold = connector.first_under_way = True
        return slot

    def reuse(self, slot: Slot) -> None:
        with self.lock:
            slot.connecting = True
            self.connecting += 1

    def new_record(self, slot: Slot, deadline: float, now: float) -> Record:
        return Record(self, slot, deadline, now)

    def settle(self, slot: Slot) -> None:
        """The connect in this place has succeeded."""
        with self.lock:
            slot.connecting = False
            self.connecting -= 1
            if slot.cold:
                slot.cold = self.connector.first_under_way = False
            self.connector.succeeded()
            if self.shedding is not None and self.open - self.connecting <= 1:
                self.shedding.relax()  # they have waited for the server, and not for each other
        if not self._cared_for:
            idle.begin(self)
            self._cared_for = True  # afterwards: when that was interrupted, the next connect does it

    def take_back(self, slot: Slot) -> None:
        if not self.in_its_process[0]:
            return  # a forked child drops it, maybe at its exit; a thread of the parent may hold the lock for ever
        try:
            self._take_back(slot)
        except BaseException:
            self._take_back(slot)  # interrupted: whoever waits must not wait in vain
            raise

    def _take_back(self, slot: Slot) -> None:
        with self.lock:
            if slot.held:
                slot.held = False
                self.open -= 1
                if slot.connecting:
                    slot.connecting = False
                    self.connecting -= 1
                if slot.cold:
                    slot.cold = self.connector.first_under_way = False
        self.connector.staff()

    def invalidate_all(self) -> None:
        """Hand out no existing connection again; those in use close when they are returned."""
        with self.lock:
            self.generation += 1
        self._discard_idle(lambda record: record.generation != self.generation, "invalidated")

    def _discard_idle(self, condemned: Callable[[Record], bool], reason: str) -> None:
        with self.lock:
            records = [record for record in self.idle if condemned(record)]
            for record in records:
                self.idle.remove(record)
        for record in records:
            self.discard(record, reason)

    def is_over(self) -> bool:
        return self.disposed and not self.open and not self.waiters

    def checkedin(self) -> int:
        return len(self.idle)

    def checkedout(self) -> int:
        return self.open - len(self.idle)

    def overflow(self) -> int:
        return self.open - self._pool.maxsize if self._pool.maxsize else 0
