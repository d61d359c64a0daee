"""Load shedding by CoDel: while the queue never empties and all in it wait too long, drop the longest waiter."""

from __future__ import annotations

from .refusal import NEVER

# Callers that have waited for this many times the target are dropped while the queue does not drain.
PATIENCE = 2.0
# Times the target for which the queue must persist first: a burst that drains sooner is unaffected. CoDel's ratio.
INTERVAL = 10.0
SHORTEST_INTERVAL = 0.1  # seconds


class Shedding:
    """Decides by how long all callers have had to wait (CoDel, RFC 8289, as Ecto and Facebook's servers use it).

    A burst makes callers wait, but drains. A standing queue only adds the same delay to every answer, and grows until
    callers give up, so the work done for them is wasted. The rule uses time, not the length of the queue.
    """

    def __init__(self, target: float) -> None:
        self._target = target
        self._interval = max(SHORTEST_INTERVAL, INTERVAL * target)
        self._standing_since = NEVER  # since when no caller has been served within the target

    def relax(self) -> None:
        """The queue is empty, or its callers did not wait for a connection in use."""
        self._standing_since = NEVER

    def served(self, waited: float, now: float) -> None:
        """A caller has got a connection after this wait."""
        if waited <= self._target:
            self._standing_since = NEVER
        else:
            self._standing_since = min(self._standing_since, now)

    def stands(self, waiting: float, now: float) -> None:
        """Every connection is in use, and the first caller in the queue has waited for this long."""
        if waiting > self._target:
            self._standing_since = min(self._standing_since, now)

    def drops(self, waiting: float, now: float) -> bool:
        """Return whether a caller that has waited for this long is dropped."""
        return now - self._standing_since >= self._interval and waiting > PATIENCE * self._target

    def due(self, arrived: float, now: float) -> float:
        """Return when to check a queue again whose first caller arrived at this time."""
        if self._standing_since == NEVER:
            due = arrived + self._target
        else:
            due = max(arrived + PATIENCE * self._target, self._standing_since + self._interval)
        # A hair later: a clock's resolution must not make it a moment too early.
        return due + 0.001 if due >= now else now + self._interval

    def standing(self, now: float) -> float:
        """Return for how long no caller has been served within the target, in seconds."""
        return max(0.0, now - self._standing_since)
