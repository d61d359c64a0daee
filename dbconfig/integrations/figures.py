"""The metrics of a registry's pools, under OpenTelemetry's names, for both exporters."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, Literal

from dbconfig.engine.pool import Histogram, PoolStats, forks
from dbconfig.registry.registry import Registry

# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/, version 1.44. A test compares them with the
# constants of opentelemetry-semantic-conventions, which need not be installed.
POOL_NAME: Final = "db.client.connection.pool.name"
STATE: Final = "db.client.connection.state"

Kind = Literal["gauge", "updown", "counter", "histogram"]
Points = Iterator[tuple[Mapping[str, str], float]]


@dataclass(frozen=True)
class Figure:
    """One metric: its name, and what it reads from the statistics of a pool."""

    name: str
    kind: Kind
    unit: str
    text: str
    read: Callable[[PoolStats], Any]  # a number; a histogram; or numbers by an attribute
    attribute: str = ""  # by which the numbers are distinguished
    values: tuple[str, ...] = ()  # of that attribute, which exist from the start
    roles: tuple[str, ...] = ("primary", "reads", "replica")
    unknown: bool = False  # while the value is unknown, the series exists without one

    def points(self, pool: PoolStats) -> Points:
        """Yield each number with its own attributes."""
        if pool.role not in self.roles:
            return
        found = self.read(pool)
        if found is None:
            if self.unknown:
                yield {}, math.nan
            return
        if not self.attribute:
            yield {}, found
            return
        for value in dict.fromkeys((*self.values, *found)):
            yield {self.attribute: value}, found.get(value, 0)


REASONS_TO_CLOSE: Final = ("recycled", "ping", "invalidated", "idle", "disposed")
REASONS_TO_RETRY: Final = ("conflict", "lost", "absent", "read_only")

FIGURES: Final = (
    Figure(
        "db.client.connection.count",
        "updown",
        "{connection}",
        "The number of connections that are currently in state described by the `state` attribute.",
        lambda pool: {"idle": pool.idle, "used": pool.used},
        STATE,
        ("idle", "used"),
    ),
    Figure(
        "db.client.connection.idle.max",
        "updown",
        "{connection}",
        "The maximum number of idle open connections allowed.",
        attrgetter("max"),
    ),
    Figure(
        "db.client.connection.idle.min",
        "updown",
        "{connection}",
        "The minimum number of idle open connections allowed.",
        attrgetter("min_idle"),
    ),
    Figure(
        "db.client.connection.max",
        "updown",
        "{connection}",
        "The maximum number of open connections allowed.",
        attrgetter("max"),
    ),
    Figure(
        "db.client.connection.pending_requests",
        "updown",
        "{request}",
        "The number of current pending requests for an open connection.",
        attrgetter("waiting"),
    ),
    Figure(
        "db.client.connection.timeouts",
        "counter",
        "{timeout}",
        "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
        attrgetter("timeouts"),
    ),
    Figure(
        "db.client.connection.create_time",
        "histogram",
        "s",
        "The time it took to create a new connection.",
        attrgetter("create"),
    ),
    Figure(
        "db.client.connection.wait_time",
        "histogram",
        "s",
        "The time it took to obtain an open connection from the pool.",
        attrgetter("wait"),
    ),
    Figure(
        "db.client.connection.use_time",
        "histogram",
        "s",
        "The time between borrowing a connection and returning it to the pool.",
        attrgetter("use"),
    ),
    Figure(
        "dbconfig.connection.connecting",
        "updown",
        "{connection}",
        "The number of connections that are being opened.",
        attrgetter("connecting"),
    ),
    Figure(
        "dbconfig.connection.closed",
        "counter",
        "{connection}",
        "The number of connections that were closed, by reason.",
        attrgetter("closed"),
        "dbconfig.reason",
        REASONS_TO_CLOSE,
    ),
    Figure(
        "dbconfig.connection.refused",
        "counter",
        "{request}",
        "The number of callers that were turned away because too many were waiting.",
        attrgetter("refused"),
    ),
    Figure(
        "dbconfig.connection.leaks",
        "counter",
        "{connection}",
        "The number of connections that were held for longer than pool_leak_warning, or never closed.",
        attrgetter("leaks"),
    ),
    Figure(
        "dbconfig.failovers",
        "counter",
        "{failover}",
        "How often the primary was found to be read-only, and all connections were replaced.",
        attrgetter("failovers"),
        roles=("primary",),
    ),
    Figure(
        "dbconfig.transaction.retries",
        "counter",
        "{retry}",
        "The number of further attempts of run_in_transaction, by reason.",
        attrgetter("retries"),
        "dbconfig.reason",
        REASONS_TO_RETRY,
        roles=("primary",),
    ),
    Figure(
        "dbconfig.transaction.uncertain_commits",
        "counter",
        "{commit}",
        "The number of commits whose outcome is unknown.",
        attrgetter("uncertain_commits"),
        roles=("primary",),
    ),
    Figure(
        "dbconfig.replica.reads",
        "counter",
        "{connection}",
        "The number of connections given to read-only sessions, of the primary and of each replica.",
        attrgetter("reads"),
        roles=("reads", "replica"),
    ),
    Figure(
        "dbconfig.replica.lag",
        "gauge",
        "s",
        "How far the replica lags behind the primary.",
        attrgetter("lag"),
        roles=("replica",),
        unknown=True,
    ),
    Figure(
        "dbconfig.replica.out_of_rotation",
        "updown",
        "{replica}",
        "1 while the replica is out of rotation.",
        lambda pool: int(bool(pool.out)),
        roles=("replica",),
    ),
)

_LOOP: Final = re.compile(r", event loop \d+$")


class Reader:
    """Reads the pools of a registry: those of all event loops as one, and with counters that never decrease.

    The counters of an engine that ends, with its event loop or at `dispose()`, are kept here.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._unlock()
        forks.after_fork_in_child(self._unlock)
        self._last: dict[int, PoolStats] = {}
        self._ended: dict[str, PoolStats] = {}

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def read(self) -> dict[str, PoolStats]:
        """Return the pools by name; an unused database has one in which everything is 0."""
        found = {each.number: each for each in self._registry.all_stats()}
        with self._lock:
            for number in self._last.keys() - found.keys():
                ended = counters_only(self._last[number])
                name = name_of(ended)
                self._ended[name] = total(self._ended[name], ended) if name in self._ended else ended
            self._last = found
            pools = dict(self._ended)
        for each in found.values():
            name = name_of(each)
            pools[name] = total(pools[name], each) if name in pools else each
        return {**self._unused(pools), **{name: replace(each, name=name) for name, each in pools.items()}}

    def _unused(self, used: Mapping[str, PoolStats]) -> dict[str, PoolStats]:
        profile, found = self._registry.profile, {}
        for database, settings in profile.databases.items():
            name = profile.name if database == "default" else f"{profile.name}/{database}"
            if not {name, f"{name} (asyncio)"} & used.keys():
                size, overflow = settings.pool_size, settings.max_overflow
                most = None if overflow < 0 or not size else size + overflow
                empty = nothing(name if not settings.only_asynchronous() else f"{name} (asyncio)")
                found[empty.name] = replace(empty, size=size, max=most, min_idle=settings.pool_min_idle)
        return found


def name_of(pool: PoolStats) -> str:
    """Return the name of a pool without its event loop's number, which would be a new series for each loop."""
    return _LOOP.sub(" (asyncio)", pool.name)


def nothing(name: str) -> PoolStats:
    """Return the statistics of a pool in which nothing has happened."""
    empty = Histogram()
    return PoolStats(name, 0, None, 0, 0, 0, 0, 0, {}, 0, 0, empty, empty, empty)


def counters_only(pool: PoolStats) -> PoolStats:
    """Return the remaining counters of an engine that has ended."""
    return replace(pool, size=0, max=0, idle=0, used=0, connecting=0, waiting=0, wanted=0, min_idle=0, lag=None, out="")


def total(one: PoolStats, other: PoolStats) -> PoolStats:
    """Merge two pools of the same name."""
    added = ("size", "idle", "used", "connecting", "waiting", "created", "timeouts", "refused", "leaks", "failovers")
    more = ("uncertain_commits", "reads", "unserved", "wanted")
    sums = {name: getattr(one, name) + getattr(other, name) for name in (*added, *more)}
    lags = [each.lag for each in (one, other) if each.lag is not None]
    return replace(
        one,
        **sums,
        max=None if one.max is None or other.max is None else one.max + other.max,
        min_idle=one.min_idle + other.min_idle,
        held_at=_added(one.held_at, other.held_at),
        idle_at=_added(one.idle_at, other.idle_at),
        queued=_histograms(one.queued, other.queued),
        server_full=one.server_full + other.server_full,
        closed=_added(one.closed, other.closed),
        retries=_added(one.retries, other.retries),
        wait=_histograms(one.wait, other.wait),
        use=_histograms(one.use, other.use),
        create=_histograms(one.create, other.create),
        role=other.role,
        lag=max(lags) if lags else None,
        out=other.out or one.out,
        number=0,
    )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *other)}


def _histograms(one: Histogram, other: Histogram) -> Histogram:
    counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
    return Histogram(one.bounds, counts, one.sum + other.sum)
