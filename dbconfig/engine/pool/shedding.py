"""Load shedding by CoDel: when even the luckiest caller of an interval waited too long, drop those who wait longest."""

from __future__ import annotations

from .place import NEVER

# A standing queue only adds delay. Callers that have waited this many times the target are dropped while it stands.
PATIENCE = 2.0


class Shedding:
    """Decides by the shortest wait of each interval (CoDel, RFC 8289, as database pools with short queues use it).

    A burst makes some callers wait, but drains: somebody is soon served at once. Only a standing queue makes everybody
    wait, and only then is anybody dropped.
    """

    def __init__(self, target: float, interval: float) -> None:
        self._target = target
        self._interval = interval
        self._ends = -NEVER
        self._shortest = NEVER
        self.shedding = False

    def waited(self, seconds: float, now: float) -> None:
        """Take note that a caller has been served after this wait."""
        self._turn(now)
        self._shortest = min(self._shortest, seconds)
        if seconds <= self._target:
            self.shedding = False

    def drops(self, arrived: float, now: float) -> bool:
        """Return whether a caller that is still waiting is dropped now."""
        self._turn(now)
        return self.shedding and now - arrived > PATIENCE * self._target

    def _turn(self, now: float) -> None:
        if now < self._ends:
            return
        # After a pause of more than an interval nothing is known of the queue.
        stale = now >= self._ends + self._interval
        self.shedding = not stale and self._target < self._shortest < NEVER
        self._ends = now + self._interval
        self._shortest = NEVER

    @property
    def ends(self) -> float:
        return self._ends
