"""A snapshot of a pool's statistics; imported on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from dbconfig.engine.pool.tally import BOUNDS, Counters, Tally


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
        """Return the same as a dictionary that JSON can represent."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.sum, "count": self.count}


@dataclass(frozen=True)
class PoolStats:
    """A snapshot of a pool. Durations are in seconds; counters start when the engine is created."""

    name: str
    size: int
    max: int | None  # None: unlimited
    idle: int  # live idle connections
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
    # By call site, with pool_leak_warning: connections held for longer, and those of them that were idle in
    # transaction.
    held_at: Mapping[str, int] = field(default_factory=dict, hash=False)
    idle_at: Mapping[str, int] = field(default_factory=dict, hash=False)
    # Callers that came while every connection was in use: their waits, how many got none, and the most connections that
    # were in use and waited for at such a moment.
    queued: Histogram = field(default_factory=Histogram)
    unserved: int = 0
    wanted: int = 0
    server_full: int = 0  # connects that failed because the server had no connection left
    leaks: int = 0  # connections held for longer than pool_leak_warning, or never closed
    failovers: int = 0  # how often the primary was found to be read-only, and all connections were replaced
    retries: Mapping[str, int] = field(default_factory=dict, hash=False)  # of units of work, by reason
    uncertain_commits: int = 0
    role: str = "primary"  # or "reads" of the primary, or "replica"
    reads: int = 0  # connections that read-only sessions were given here; 0 without replicas
    lag: float | None = None  # seconds behind the primary; None if it is not monitored or unknown
    out: str = ""  # why a replica is out of rotation, or ""
    min_idle: int = 0
    number: int = 0  # of the engine, which tells one from another one of the same name

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it picklable, for workers that send it to another process: a read-only mapping is not."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return _made, ({name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()},)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a dictionary that JSON can represent."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        histograms = {name: value.as_dict() for name, value in plain.items() if isinstance(value, Histogram)}
        counted = {name: dict(getattr(self, name)) for name in ("closed", "retries", "held_at", "idle_at")}
        return {**plain, **histograms, **counted}


def _made(values: dict[str, Any]) -> PoolStats:
    frozen: dict[str, Any] = {
        name: MappingProxyType(value) if isinstance(value, dict) else value for name, value in values.items()
    }
    return PoolStats(**frozen)


def histogram(tallies: Iterable[Tally]) -> Histogram:
    """Add up tallies as they are now."""
    tallies = list(tallies)
    counts = tuple(sum(column) for column in zip(*(list(tally.counts) for tally in tallies), strict=True))
    return Histogram(counts=counts, sum=sum(tally.sum for tally in tallies))


def counted(every: Sequence[Counters]) -> dict[str, Any]:
    """Return what the pools of one engine have counted, as arguments of `PoolStats`."""
    create = histogram(each.create for each in every)
    return {
        "created": create.count,
        "closed": total_closed(every),
        "timeouts": sum(each.timeouts for each in every),
        "refused": sum(each.refused for each in every),
        "wait": waits(every),
        "use": histogram(each.use for each in every),
        "create": create,
        "queued": histogram(each.queued for each in every),
        "unserved": sum(each.unserved for each in every),
        "wanted": max(each.wanted for each in every),
    }


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
