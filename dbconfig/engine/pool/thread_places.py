"""The places of a pool: how many connections are open, which of them are idle, and who gets the next one."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from threading import RLock
from typing import Any

from dbconfig.engine.pool import forks, idle, judgements
from dbconfig.engine.pool.both import Ours
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.connecting import Connector
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.record import Record, Slot, Waiter
from dbconfig.engine.pool.refusal import Refusal
from dbconfig.engine.pool.shedding import Shedding
from dbconfig.engine.pool.tally import Past


class Places(Ours):
    """The base of `FairPool`, without the checkout itself.

    Two invariants hold whenever the lock is free: no caller waits while a connection is idle, and every open or opening
    connection has exactly one slot. The lock is re-entrant, because the garbage collector may return a forgotten
    connection, or drop a slot, in the middle of our own critical section; each section is therefore correct at every
    point at which a whole other section may run inside it. It may do so in any other thread too, and there it waits for
    the lock. So a section that holds the lock never waits: it starts no thread (a start waits until the new thread has
    begun, and that thread may have to collect), writes no log, and calls no other object that has a lock.

    An exception from a signal handler is raised after a call or at the beginning of a function, and nowhere else.
    Related changes are therefore made without a call in between, or undone by a finalizer.
    """

    def __init__(
        self, creator: Any, line: LineOptions | None = None, past: Past | None = None, **arguments: Any
    ) -> None:
        super().__init__(creator, line, past, **arguments)
        self.in_its_process: forks.Mark = forks.mark()
        self.lock: RLock = RLock()
        self.idle: deque[Record] = deque()
        # Connections in use, kept alive so that the garbage collector, which finalizes a cycle in any order, leaves
        # them intact.
        self.lent: set[Record] = set()
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self.open: int = 0  # slots that are taken: idle, in use or connecting
        self.connecting: int = 0
        self.generation: int = 0  # of the connections made from now on; the older ones are invalid
        self.disposed = False
        self._cared_for = False
        self.connector: Connector = Connector(
            self, inline=getattr(self._dialect, "name", "") == "sqlite" or self._timeout <= 0
        )
        target = self.options.queue_target
        self.shedding: Shedding | None = None if target is None else Shedding(target)
        # Beyond the steady size the most recently returned connection is handed out first, so that the surplus stays
        # idle and can time out; in strict rotation a trickle of requests would keep all of them in use.
        self._take = self.idle.pop if self._pool.use_lifo else self.idle.popleft
        self._put = self.idle.append
        self._put_surplus = self.idle.append if self._pool.use_lifo else self.idle.appendleft
        self._put_last = self.idle.appendleft if self._pool.use_lifo else self.idle.append

    def hand_over(self, record: Record, *, used: bool = True) -> None:
        """Give a usable connection to the longest waiter, else keep it idle.

        Args:
            record: of the connection.
            used: whether a caller has used it. After a mere check it is handed out last. Otherwise, with a ping every
                two minutes, each surplus connection would be used before it has been idle for long enough to time out.
        """
        with self.lock:
            if record.generation != self.generation:
                unfit = "invalidated"  # while it was being connected or checked
            elif self.waiters:  # of a disposed pool too: they came before it was disposed of, and get a connection
                if self.shedding is not None:
                    self._shed_for_next(self.shedding)
                self.serve_first(record)
                return
            elif self.disposed:
                unfit = "disposed"
            else:
                if not used:
                    self._put_last(record)
                elif self.open <= self.steady:
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
        """Give this to the longest waiter. The lock is held, and there is a waiter."""
        waiter = next(iter(self.waiters))
        # An exception from a signal handler is raised after a call: here before or after the whole change.
        del self.waiters[waiter]
        waiter.outcome = outcome
        waiter.gate.release()

    def _shed_for_next(self, shedding: Shedding) -> None:
        """Drop callers that have waited too long, as one gets a connection. The lock is held; there is a waiter."""
        now = monotonic()
        self._shed(shedding, now)
        shedding.served(now - next(iter(self.waiters)).arrived, now)

    def shed(self, shedding: Shedding) -> None:
        """Drop callers that have waited too long while no connection is returned."""
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
        """Give a place to the longest waiter, for a connect on its own thread."""
        with self.lock:
            if self.waiters:
                self.serve_first(slot)
                return
        slot.release()

    def new_slot(self) -> Slot:
        """Take a free place. The lock is held, and ``open`` is below ``limit``."""
        slot, connector = Slot(self), self.connector
        # No call and no allocation from here on: nothing can run, or be raised, in between.
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
                self.shedding.relax()  # they have waited for the server, not for each other
        if not self._cared_for:
            idle.begin(self)
            self._cared_for = True  # afterwards: when that was interrupted, the next connect does it

    def take_back(self, slot: Slot) -> None:
        if not self.in_its_process[0]:
            return  # a forked child drops it, maybe at its exit; the lock may stay locked by a thread of the parent
        try:
            self._take_back(slot)
        except BaseException:
            self._take_back(slot)  # interrupted: the waiters must still be served
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

    def checkedout(self) -> int:
        return self.open - len(self.idle)
