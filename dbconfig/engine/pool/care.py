"""Care for connections at rest: when each is closed, pinged, or joined by another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .place import Caller, Command, Ping, Place, Rules, State, WakeAt
from .refusal import NEVER

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection

    from .shedding import Shedding

# Seconds between two rounds: no shorter than makes sense, and no longer than a lowered number of idle ones may last.
SHORTEST_ROUND = 0.05
LONGEST_ROUND = 10.0
# Seconds after which missing connections are asked for again while the server refuses: doubled each time up to this.
LONGEST_REFILL_PAUSE = 30.0


class Tended(Protocol):
    """The line that is cared for: what its care reads, and what it has done to it."""

    rules: Rules
    commands: list[Command]
    idle: deque[Place]
    shedding: Shedding | None
    open: int
    failures: int
    retry_at: float
    disposed: bool

    @property
    def callers(self) -> Collection[Caller]: ...

    @property
    def connects(self) -> Collection[Place]: ...

    @property
    def connecting(self) -> int: ...

    def close_idle(self, condemned: Callable[[Place], bool], reason: str) -> None: ...

    def at_once(self, now: float) -> int: ...

    def connect(self, now: float) -> bool: ...


class Care:
    """The part of a line that acts while nobody asks."""

    def __init__(self, line: Tended) -> None:
        self._line = line
        rules = line.rules
        self.wanted: bool = bool(rules.min_idle) or rules.idle_timeout is not None or rules.keepalive is not None
        self._refill_at = -NEVER
        self._due = NEVER  # when the driver has been told to come again

    def begin(self, now: float) -> None:
        """Take care from the first connection on: a moment later, when that is mostly back already, and counts."""
        if self.wanted:
            self.wake(now + SHORTEST_ROUND)

    def wake(self, when: float) -> None:
        """Have a round at this time, unless there is one earlier."""
        if when < self._due:
            self._due = when
            self._line.commands.append(WakeAt(when))

    def round(self, now: float) -> None:
        """Do what is due, and say when the next round is."""
        line = self._line
        self._due = NEVER
        if line.retry_at > now:  # otherwise it is due, but another connect has still to end
            self.wake(line.retry_at)
        if line.callers:
            if line.shedding is not None:
                self.wake(line.shedding.due(next(iter(line.callers)).arrived, now))
            for place in line.connects:
                stalls = place.started_at + line.rules.connect_stalls
                if stalls > now:
                    self.wake(stalls)
        if self.wanted and not line.disposed:
            self._close_what_rested_too_long(now)
            self._ask_the_quiet(now)
            self._refill(now)
            self.wake(self._next(now))

    def _close_what_rested_too_long(self, now: float) -> None:
        line, timeout = self._line, self._line.rules.idle_timeout
        spare = len(line.idle) - line.rules.min_idle
        for place in sorted(line.idle, key=lambda each: each.returned_at):
            if now >= place.expires:
                reason = "recycled"
            elif timeout is not None and spare > 0 and now - place.returned_at >= timeout:
                reason = "idle"
            else:
                continue
            spare -= 1
            line.close_idle(lambda each, place=place: each is place, reason)  # type: ignore[misc]  # bound early

    def _ask_the_quiet(self, now: float) -> None:
        """Ping one connection that has rested for the keepalive time, so that a caller still finds the others."""
        line, keepalive = self._line, self._line.rules.keepalive
        if keepalive is None:
            return
        for place in line.idle:
            if now - _heard(place) >= keepalive:
                line.idle.remove(place)
                place.state = State.CHECKING
                line.commands.append(Ping(place))
                return

    def _refill(self, now: float) -> None:
        """Open connections, several at once, up to ``pool_min_idle``."""
        line = self._line
        missing = line.rules.min_idle - len(line.idle) - line.connecting
        if missing <= 0:
            return
        if now >= self._refill_at:
            self._refill_at = now + min(LONGEST_REFILL_PAUSE, SHORTEST_ROUND * 2.0 ** min(line.failures, 16))
            free = line.at_once(now) - line.connecting
            for _ in range(int(min(missing, free))):
                if not line.connect(now):
                    return

    def _next(self, now: float) -> float:
        line, rules = self._line, self._line.rules
        due = [now + LONGEST_ROUND]
        if len(line.idle) + line.connecting < rules.min_idle and line.open < rules.limit:
            due.append(self._refill_at)
        for place in line.idle:
            due.append(place.expires)
            if rules.idle_timeout is not None and len(line.idle) > rules.min_idle:
                due.append(place.returned_at + rules.idle_timeout)
            if rules.keepalive is not None:
                due.append(_heard(place) + rules.keepalive)
        due += [now + rest for rest in (rules.idle_timeout, rules.keepalive) if rest is not None]
        return max(now + SHORTEST_ROUND, min(due))


def _heard(place: Place) -> float:
    """Return when this connection was last known to be alive."""
    return max(place.returned_at, place.checked_at)
