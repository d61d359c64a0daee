"""A pool's counters, updated where a lock is held anyway; `stats` turns them into a readable snapshot."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from typing import Protocol

# Upper bounds in seconds; OpenTelemetry's advice for db.client.connection.*_time, which it also calls seconds.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class Tally:
    """A histogram that is still counting. A caller that observes holds the lock of the owner."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS) + 1)
        self.sum: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Counters:
    """The counters of one pool, guarded by that pool's lock; read without it, each number for itself."""

    __slots__ = ("at_once", "closed", "create", "queued", "refused", "timeouts", "unserved", "use", "wait", "wanted")

    def __init__(self) -> None:
        self.at_once: int = 0  # checkouts of an idle connection: `wait` without reading the clock
        self.wait: Tally = Tally()
        self.queued: Tally = Tally()  # those of `wait` that came while every connection was in use
        self.wanted: int = 0  # the most at the same time: in use, and waited for by them
        self.use: Tally = Tally()
        self.create: Tally = Tally()
        self.closed: dict[str, int] = {}
        self.timeouts: int = 0
        self.refused: int = 0
        self.unserved: int = 0  # of these two, those that came while every connection was in use

    def is_full_for(self, waiting: int, in_use: int, limit: float) -> bool:
        """Return whether every connection is in use, at the moment when a further caller wants one."""
        if in_use < limit:
            return False
        self.wanted = max(self.wanted, in_use + waiting + 1)
        return True

    def refuse(self, *, full: bool) -> None:
        self.refused += 1
        self.unserved += full

    def expire(self, seconds: float, *, queued: bool) -> None:
        self.timeouts += 1
        self.unserved += queued
        self.waited(seconds, queued=queued)

    def waited(self, seconds: float, *, queued: bool) -> None:
        self.wait.observe(seconds)
        if queued:
            self.queued.observe(seconds)

    def count_closed(self, reason: str) -> None:
        self.closed[reason] = self.closed.get(reason, 0) + 1

    def add(self, other: Counters) -> None:
        """Add what another pool has counted."""
        for name in ("wait", "queued", "use", "create"):
            mine, its = getattr(self, name), getattr(other, name)
            mine.counts = [sum(pair) for pair in zip(mine.counts, its.counts, strict=True)]
            mine.sum += its.sum
        for reason, count in other.closed.items():
            self.closed[reason] = self.closed.get(reason, 0) + count
        self.at_once += other.at_once
        self.wanted = max(self.wanted, other.wanted)
        self.timeouts += other.timeouts
        self.refused += other.refused
        self.unserved += other.unserved


class Counting(Protocol):
    """A pool that counts."""

    counters: Counters

    def is_over(self) -> bool: ...  # whether its counters are final


class Past:
    """What the earlier pools of an engine have counted: added up as soon as nothing can still change it."""

    def __init__(self) -> None:
        self._over = Counters()
        self._busy: list[tuple[weakref.ref[Counting], Counters]] = []

    def counters(self) -> list[Counters]:
        return [self._over, *(counters for _, counters in self._busy)]

    def and_of(self, pool: Counting) -> Past:
        """Return the past of the pool that comes after this one."""
        past = Past()
        past._over.add(self._over)
        for reference, counters in [*self._busy, (weakref.ref(pool), pool.counters)]:
            earlier = reference()
            if earlier is None or earlier.is_over():
                past._over.add(counters)
            else:
                past._busy.append((reference, counters))
        return past
