"""Care for idle connections: when each is closed, pinged, or joined by another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from . import judgements
from .place import Caller, Command, Ping, Place, Rules, State, WakeAt
from .refusal import NEVER

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection

    from .shedding import Shedding


class Tended(Protocol):
    """The queue as its maintenance sees it."""

    rules: Rules
    commands: list[Command]
    idle: deque[Place]
    shedding: Shedding | None
    failures: int
    retry_at: float
    warm: bool
    disposed: bool

    @property
    def open(self) -> int: ...

    @property
    def callers(self) -> Collection[Caller]: ...

    @property
    def places(self) -> Collection[Place]: ...

    @property
    def connects(self) -> Collection[Place]: ...

    @property
    def connecting(self) -> int: ...

    def close_idle(self, condemned: Callable[[Place], bool], reason: str) -> None: ...

    def at_once(self, now: float) -> float: ...

    def connect(self, now: float) -> bool: ...


class Care:
    """The part of a queue that works in the background."""

    def __init__(self, line: Tended) -> None:
        self._line = line
        rules = line.rules
        self.wanted: bool = bool(rules.min_idle) or rules.idle_timeout is not None or rules.keepalive is not None
        self._refill_at = -NEVER
        self.due: float = NEVER  # when the next tick is scheduled

    def begin(self, now: float) -> None:
        """Start with the first connection, a moment later, when it has usually been returned and counts as idle."""
        if self.wanted:
            self.wake(now + judgements.SHORTEST_ROUND, now)

    def wake(self, when: float, now: float = -NEVER) -> None:
        """Schedule a round for this time, unless there is an earlier one; immediately, if one is overdue."""
        if self.due < now:
            when, self.due = now, NEVER
        if when < self.due:
            self.due = when
            self._line.commands.append(WakeAt(when))

    def resume(self, now: float) -> None:
        """Schedule a round soon, because the timer may be lost."""
        self.due = NEVER
        if self._line.callers or (self.wanted and self._line.warm and not self._line.disposed):
            self.wake(now + judgements.SHORTEST_ROUND, now)

    def round(self, now: float) -> None:
        """Do what is due, and say when the next round is."""
        line = self._line
        self.due = NEVER
        if line.retry_at > now:  # otherwise it is due, but another connect has not finished yet
            self.wake(line.retry_at, now)
        if line.callers:
            if line.shedding is not None:
                self.wake(line.shedding.due(next(iter(line.callers)).arrived, now), now)
            for place in line.connects:
                stalls = place.started_at + line.rules.connect_stalls
                if stalls > now:
                    self.wake(stalls, now)
        if self.wanted and not line.disposed:
            self._close_what_rested_too_long(now)
            self._ask_the_quiet(now)
            self._refill(now)
            self.wake(self._next(now), now)

    def _close_what_rested_too_long(self, now: float) -> None:
        line = self._line
        for place, reason in judgements.rested_too_long(line.idle, line.rules, now):
            line.close_idle(lambda each, place=place: each is place, reason)  # type: ignore[misc]  # bound early

    def _ask_the_quiet(self, now: float) -> None:
        """Ping one connection that has been idle for the keepalive time, so that a caller still finds the others."""
        line = self._line
        for place in line.idle:
            if judgements.is_quiet(place, line.rules, now):
                line.idle.remove(place)
                place.state = State.CHECKING
                line.commands.append(Ping(place))
                return

    def _refill(self, now: float) -> None:
        """Open connections, several at the same time, up to ``pool_min_idle``."""
        line = self._line
        missing = self._missing()
        if missing <= 0:
            return
        if now >= self._refill_at:
            self._refill_at = now + judgements.refill_pause(line.failures)
            free = min(line.at_once(now), line.rules.connects_at_once) - line.connecting
            for _ in range(int(min(missing, free))):
                if not line.connect(now):
                    return

    def _missing(self) -> int:
        line = self._line
        if not line.rules.min_idle:
            return 0
        asked = sum(place.state is State.CHECKING for place in line.places)  # which are idle again in a moment
        return judgements.missing(len(line.idle) + asked, line.connecting, line.rules)

    def _next(self, now: float) -> float:
        line = self._line
        refills = self._missing() > 0 and line.open < line.rules.limit
        return judgements.next_round(line.idle, line.rules, now, *([self._refill_at] if refills else []))
