"""What the counters of a pool say about its size: no advice without the figures behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from dbconfig.engine.pool.diagnostics.stats import Histogram, PoolStats

ENOUGH: Final = 100  # checkouts; fewer say nothing
SMALL: Final = 5  # connections, as many as without `pool_size`; fewer would spare nothing
WORTH: Final = 0.01  # share of the checkouts that waited for `NOTICED` or longer
NOTICED: Final = 0.01  # seconds; a bound of the histograms
LARGE: Final = 4  # times as many connections as there were ever open
PLACES: Final = 3  # call sites that a line names
MANY: Final = 20  # connections closed for their age, and a tenth of the checkouts


def advice(pools: Iterable[PoolStats]) -> list[str]:
    """Return a line for each thing worth changing."""
    return [f"{pool.name}: {line}" for pool in pools for line in _of_pool(pool)]


def _of_pool(pool: PoolStats) -> list[str]:
    found = [_too_small(pool), _too_large(pool), _recycled(pool), _server_full(pool), _idle(pool), _held(pool)]
    return [line for line in found if line]


def _too_small(pool: PoolStats) -> str:
    # Only callers that came while every connection was in use: others wait for a connect, or for a server that is down.
    late = _longer_than(pool.queued, NOTICED)
    if pool.max is None or pool.wait.count < ENOUGH or not pool.use.sum:
        return ""
    if late / pool.wait.count < WORTH and not pool.unserved:
        return ""
    held = pool.use.sum / pool.use.count
    if not late:
        return (
            f"too small: {pool.unserved} callers were rejected while all {pool.max} connections were in use, which "
            f"are held for {held * 1000:.0f} ms; up to {pool.wanted} were wanted at the same time"
        )
    waited = pool.queued.sum / late
    # Little's law: a caller that waited found, on average, as many before it as become free in that time. Where callers
    # come in bursts, and hold connections for longer than usual, that may be more than were ever wanted.
    enough = math.ceil(round(pool.max * (1 + waited / held), 6))
    enough = min(enough, pool.wanted) if pool.wanted > pool.max else enough
    lost = f"; {pool.unserved} got no connection" if pool.unserved else ""
    return (
        f"too small: {late} of {pool.wait.count} checkouts waited for {NOTICED * 1000:.0f} ms or longer, "
        f"{waited * 1000:.0f} ms on average, for one of {pool.max} connections that are held for {held * 1000:.0f} ms"
        f"{lost}. {enough} connections would have been enough, or connections that are held for a shorter time"
    )


def _too_large(pool: PoolStats) -> str:
    if pool.wait.count < ENOUGH or not pool.created or pool.size <= SMALL or pool.size < LARGE * pool.created:
        return ""
    return (
        f"larger than needed: pool_size is {pool.size}, and no more than {pool.created} "
        f"connection{'s were' if pool.created > 1 else ' was'} ever opened in {pool.wait.count} checkouts"
    )


def _recycled(pool: PoolStats) -> str:
    closed = pool.closed.get("recycled", 0)
    if pool.use.count < ENOUGH or closed < MANY or closed < pool.use.count / 10:
        return ""
    connecting = pool.create.sum / max(pool.create.count, 1)
    return (
        f"pool_recycle is short: {closed} connections were closed because of their age in {pool.use.count} checkouts, "
        f"and each takes {connecting * 1000:.0f} ms to open"
    )


def _server_full(pool: PoolStats) -> str:
    if not pool.server_full:
        return ""
    most = "without a limit" if pool.max is None else f"of up to {pool.max}"
    connects = f"{pool.server_full} connect{'s' if pool.server_full > 1 else ''}"
    return (
        f"the server had no connection left for {connects} of this pool, which is one {most} per process: "
        "`dbconfig check --workers N --replicas M` computes what fits"
    )


def _idle(pool: PoolStats) -> str:
    count = sum(pool.idle_at.values())
    if not count:
        return ""
    return (
        f"{_were(count)} idle in transaction for longer than pool_leak_warning: {_places(pool.idle_at)}. Commit "
        "before waiting for anything other than the database"
    )


def _held(pool: PoolStats) -> str:
    busy = pool.leaks - sum(pool.idle_at.values())
    if busy <= 0:
        return ""
    elsewhere = {place: count - pool.idle_at.get(place, 0) for place, count in pool.held_at.items()}
    places = _places({place: count for place, count in elsewhere.items() if count > 0})
    return f"{_were(busy)} held for longer than pool_leak_warning, or never closed: {places}"


def _were(count: int) -> str:
    return f"{count} connection{'s were' if count > 1 else ' was'}"


def _places(counts: Mapping[str, int]) -> str:
    """Return call sites with their counts, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(count for _, count in ordered[PLACES:])
    shown = [f"{count} taken at {place}" for place, count in ordered[:PLACES]]
    return ", ".join([*shown, f"and {rest} elsewhere"] if rest else shown)


def _longer_than(histogram: Histogram, seconds: float) -> int:
    return sum(histogram.counts[histogram.bounds.index(seconds) + 1 :])
