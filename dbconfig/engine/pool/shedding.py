"""Load shedding by CoDel: while the queue never empties and all in it wait too long, drop the longest waiter."""

from __future__ import annotations

from .refusal import NEVER

# Callers that have waited for this many times the target are dropped while the line stands.
PATIENCE = 2.0
# Times the target for which the line has to stand first: a burst that drains sooner is left alone. CoDel's ratio.
INTERVAL = 10.0
SHORTEST_INTERVAL = 0.1  # seconds


class Shedding:
    """Decides by how long everybody has had to wait (CoDel, RFC 8289, as Ecto and Facebook's servers use it).

    A burst makes callers wait, but drains. A line that stands only adds the same delay to every answer, and grows
    until callers give up whose work is then done in vain. The rule needs no length of the line: it goes by time.
    """

    def __init__(self, target: float) -> None:
        self._target = target
        self._interval = max(SHORTEST_INTERVAL, INTERVAL * target)
        self._standing_since = NEVER  # since when nobody has been served within the target

    def relax(self) -> None:
        """The line is empty, or what it has waited for was not a connection in use."""
        self._standing_since = NEVER

    def served(self, waited: float, now: float) -> None:
        """Somebody has got a connection after this wait."""
        if waited <= self._target:
            self._standing_since = NEVER
        else:
            self._standing_since = min(self._standing_since, now)

    def stands(self, waiting: float, now: float) -> None:
        """Every connection is in use, and the first of the line has waited for so long."""
        if waiting > self._target:
            self._standing_since = min(self._standing_since, now)

    def drops(self, waiting: float, now: float) -> bool:
        """Return whether a caller that has waited for so long is dropped."""
        return now - self._standing_since >= self._interval and waiting > PATIENCE * self._target

    def due(self, arrived: float, now: float) -> float:
        """Return when to look again at a line whose first caller arrived at this time."""
        if self._standing_since == NEVER:
            due = arrived + self._target
        else:
            due = max(arrived + PATIENCE * self._target, self._standing_since + self._interval)
        # A hair later: a clock's resolution must not make it a moment too early.
        return due + 0.001 if due >= now else now + self._interval

    def standing(self, now: float) -> float:
        """Return for how long nobody has been served within the target, in seconds."""
        return max(0.0, now - self._standing_since)
