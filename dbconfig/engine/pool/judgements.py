"""The decisions of a queue, one function each (pure, but for `spread`), shared by threads and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .chance import chance

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Protocol, TypeVar

    from .shedding import Shedding

    class Arrived(Protocol):
        """A waiter."""

        arrived: float

    class Resting(Protocol):
        """An idle connection. All times come from the pool's clock."""

        @property
        def returned_at(self) -> float: ...

        @property
        def checked_at(self) -> float: ...

        @property
        def expires(self) -> float: ...

    class Care(Protocol):
        """How many idle connections are kept, and for how long."""

        @property
        def min_idle(self) -> int: ...

        @property
        def idle_timeout(self) -> float | None: ...

        @property
        def keepalive(self) -> float | None: ...

    AtRest = TypeVar("AtRest", bound=Resting)

# Connects that run at the same time. A burst is mostly served by what is returned while they run; more of them would be
# a connection storm (50 callers: 45 connects on the stock pool).
CONNECTS_AT_ONCE = 3
# Seconds between two attempts while the server cannot be reached. Only one tries, so that this is less than ten
# connects a second for the whole pool; the longest pause is what callers lose after the server is back.
RETRY_FIRST = 0.1
RETRY_LONGEST = 0.5
# Seconds after a permanent error, such as a wrong password: frequent attempts would lock the account.
RETRY_REFUSED = 5.0
# Minimum and maximum seconds between two maintenance rounds; the maximum bounds how long too few idle connections may
# last.
SHORTEST_ROUND = 0.05
LONGEST_ROUND = 10.0
# Maximum seconds after which missing connections are retried while the server rejects them; the pause doubles up to
# this.
LONGEST_REFILL_PAUSE = 30.0
_MOST_DOUBLINGS = 16


# -- callers


def is_full(waiting: int, most: int | None, limit: float, in_use: int) -> bool:
    """Return whether one more caller is rejected."""
    # Callers that wait for a connect in progress, or for a free place, are not part of a jam.
    return most is not None and waiting - (limit - in_use) >= most


def drops_first(shedding: Shedding, waiting: Collection[Arrived], now: float) -> bool:
    """Return whether the longest waiter is dropped. The last one stays, so no connection is idle without need."""
    return len(waiting) > 1 and shedding.drops(now - next(iter(waiting)).arrived, now)


# -- connects


def tries_again(*, waited_for: bool, warm: bool, patient: bool, transient: bool, others_in_use: bool) -> bool:
    """Return whether a failed connect is retried for the waiters, or its error is raised to one of them.

    They may also be served by a connection that is in use. In a pool that has never connected, the error is raised
    immediately: its settings may be wrong.
    """
    return waited_for and warm and patient and (transient or others_in_use)


def retry_pause(
    failures: int,
    *,
    transient: bool,
    first: float = RETRY_FIRST,
    longest: float = RETRY_LONGEST,
    refused: float = RETRY_REFUSED,
) -> float:
    """Return the seconds until the next attempt, after so many failed ones in a row."""
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest) if transient else refused


def spread() -> float:
    """Return by how much the pauses are stretched, at random: the processes of a fleet ask the server one by one."""
    return chance.uniform(1.0, 1.25)


def refill_pause(failures: int) -> float:
    """Return the seconds until missing idle connections are opened again."""
    return min(LONGEST_REFILL_PAUSE, SHORTEST_ROUND * 2.0 ** min(failures, _MOST_DOUBLINGS))


# -- idle connections


def rested_too_long(idle: Iterable[AtRest], care: Care, now: float) -> list[tuple[AtRest, str]]:
    """Return which idle connections to close, each with the reason."""
    condemned = []
    known = sorted(idle, key=_since)
    spare = len(known) - care.min_idle
    for each in known:
        if now >= each.expires:
            reason = "recycled"
        elif care.idle_timeout is not None and spare > 0 and now - each.returned_at >= care.idle_timeout:
            reason = "idle"
        else:
            continue
        spare -= 1
        condemned.append((each, reason))
    return condemned


def is_quiet(each: Resting, care: Care, now: float) -> bool:
    """Return whether a connection has been silent for the keepalive time."""
    return care.keepalive is not None and now - _heard(each) >= care.keepalive


def missing(idle: int, connecting: int, care: Care) -> int:
    return care.min_idle - idle - connecting


def next_round(idle: Collection[Resting], care: Care, now: float, *others: float) -> float:
    """Return when to check the idle connections again, at one of the ``others`` at the latest."""
    due = [now + LONGEST_ROUND, *others]
    surplus = care.idle_timeout is not None and len(idle) > care.min_idle
    for each in idle:
        due.append(each.expires)
        if surplus and care.idle_timeout is not None:
            due.append(each.returned_at + care.idle_timeout)
        if care.keepalive is not None:
            due.append(_heard(each) + care.keepalive)
    due += [now + rest for rest in (care.idle_timeout, care.keepalive) if rest is not None]
    return max(now + SHORTEST_ROUND, min(due))


def _since(each: Resting) -> float:
    return each.returned_at


def _heard(each: Resting) -> float:
    """Return when a connection was last known to be alive."""
    return max(each.returned_at, each.checked_at)
