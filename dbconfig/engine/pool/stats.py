"""What a pool counts: gauges read when asked, counters and histograms kept where a lock is held anyway."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Protocol

# Upper bounds in seconds; OpenTelemetry's advice for db.client.connection.*_time, which it also calls seconds.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


@dataclass(frozen=True)
class Histogram:
    """How many durations fell under each bound; ``counts`` has one entry more than ``bounds``, for the rest."""

    bounds: tuple[float, ...] = BOUNDS
    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as what JSON can carry."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.sum, "count": self.count}


@dataclass(frozen=True)
class PoolStats:
    """A pool at one moment. Durations are in seconds; counters run since the engine was made."""

    name: str
    size: int
    max: int | None  # None: unlimited
    idle: int  # live connections at rest
    used: int
    connecting: int
    waiting: int
    created: int
    closed: Mapping[str, int] = field(hash=False)  # by reason: recycled, ping, invalidated, idle, disposed
    timeouts: int
    refused: int  # turned away by pool_max_waiting or pool_queue_target
    wait: Histogram  # of every checkout, also of those that timed out; without a wait in the first bucket
    use: Histogram
    create: Histogram
    leaks: int = 0  # connections held for longer than pool_leak_warning, or never closed
    failovers: int = 0  # how often the primary was found to be read-only, and all connections were replaced
    retries: Mapping[str, int] = field(default_factory=dict, hash=False)  # of units of work, by reason
    uncertain_commits: int = 0
    role: str = "primary"  # or "reads" of the primary, or "replica"
    reads: int = 0  # connections that read-only sessions were given here; 0 without replicas
    lag: float | None = None  # seconds behind the primary; None where nobody asks, or nothing can be told
    out: str = ""  # why a replica is out of rotation, or ""
    min_idle: int = 0
    number: int = 0  # of the engine, which tells one from another one of the same name

    def as_dict(self) -> dict[str, Any]:
        """Return the same as what JSON can carry."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        histograms = {name: value.as_dict() for name, value in plain.items() if isinstance(value, Histogram)}
        return {**plain, **histograms, "closed": dict(self.closed), "retries": dict(self.retries)}


class Tally:
    """A histogram that is still counting. Whoever observes holds the lock of the owner."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Counters:
    """The counters of one pool, guarded by that pool's lock; read without it, each number for itself."""

    __slots__ = ("at_once", "closed", "create", "refused", "timeouts", "use", "wait")

    def __init__(self) -> None:
        self.at_once = 0  # checkouts of a connection that was idle: `wait` without a look at the clock
        self.wait: Tally = Tally()
        self.use: Tally = Tally()
        self.create: Tally = Tally()
        self.closed: dict[str, int] = {}
        self.timeouts = 0
        self.refused = 0

    def count_closed(self, reason: str) -> None:
        self.closed[reason] = self.closed.get(reason, 0) + 1

    def add(self, other: Counters) -> None:
        """Add what another pool has counted."""
        for mine, its in ((self.wait, other.wait), (self.use, other.use), (self.create, other.create)):
            mine.counts = [sum(pair) for pair in zip(mine.counts, its.counts, strict=True)]
            mine.sum += its.sum
        for reason, count in other.closed.items():
            self.closed[reason] = self.closed.get(reason, 0) + count
        self.at_once += other.at_once
        self.timeouts += other.timeouts
        self.refused += other.refused


class Counting(Protocol):
    """A pool that counts."""

    counters: Counters

    def is_over(self) -> bool: ...  # whether it will never count anything any more


class Past:
    """What the earlier pools of an engine have counted: added up as soon as nothing can change it any more."""

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


def histogram(tallies: Iterable[Tally]) -> Histogram:
    """Add up tallies as they are now."""
    tallies = list(tallies)
    counts = tuple(sum(column) for column in zip(*(list(tally.counts) for tally in tallies), strict=True))
    return Histogram(counts=counts, sum=sum(tally.sum for tally in tallies))


def waits(counters: Iterable[Counters]) -> Histogram:
    """Add up how long callers waited, including those that did not wait."""
    every = list(counters)
    waited, at_once = histogram(each.wait for each in every), sum(each.at_once for each in every)
    return replace(waited, counts=(waited.counts[0] + at_once, *waited.counts[1:]))


def total_closed(counters: Iterable[Counters]) -> Mapping[str, int]:
    total: dict[str, int] = {}
    for each in counters:
        for reason, count in dict(each.closed).items():
            total[reason] = total.get(reason, 0) + count
    return MappingProxyType(total)
