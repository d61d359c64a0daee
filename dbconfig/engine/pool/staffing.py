"""New connections of the queue: who opens them, how many at a time, and what a failure means for the waiters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from . import judgements
from .place import Caller, Command, Connect, Place, Rules, State
from .refusal import NEVER

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Callable

    from .care import Care
    from .shedding import Shedding
    from .tally import Counters


class Staffing(ABC):
    """The part of `Line` that decides on connects."""

    rules: Rules
    counters: Counters
    commands: list[Command]
    callers: OrderedDict[Caller, None]
    generation: int
    shedding: Shedding | None
    care: Care

    def __init__(self) -> None:
        self.places: set[Place] = set()  # that count: connecting, idle, checked out, being checked, closing
        self.connects: set[Place] = set()
        self.warm: bool = False  # a connect has succeeded
        self.trouble: BaseException | None = None  # the error of the last connect, while it is being retried
        self.failures: int = 0  # in a row
        self.retry_at: float = NEVER

    @abstractmethod
    def _hand_over(self, place: Place, now: float, put: Callable[[Place], None] | None = None) -> None: ...

    @abstractmethod
    def _first(self) -> Caller: ...

    @abstractmethod
    def _decide(self, caller: Caller, *, place: Place | None = None, error: Any = None) -> None: ...

    @property
    def open(self) -> int:
        return len(self.places)

    @property
    def connecting(self) -> int:
        return len(self.connects)

    @property
    def in_use(self) -> int:
        return len(self.places) - len(self.connects)

    def connected(self, place: Place, now: float, expires: float = NEVER) -> None:
        """The connect in this place has succeeded."""
        self.connects.discard(place)
        if not self.warm:
            self.care.begin(now)
        self.warm, self.trouble, self.failures, self.retry_at = True, None, 0, NEVER
        self.counters.create.observe(now - place.started_at)
        if self.shedding is not None and self.in_use <= 1:
            self.shedding.relax()  # they have waited for the server, not for each other
        place.returned_at = place.checked_at = place.lent_at = now
        place.expires = expires
        if place.by_caller:  # who asks again, if it is unfit
            place.by_caller, place.state = False, State.LENT
        else:
            self._hand_over(place, now)
        self._staff(now)

    def entrust(self, place: Place, now: float) -> None:
        """The driver cannot connect in this place: the longest waiter does, on its own thread."""
        if self.callers:
            place.by_caller = True
            self._decide(self._first(), place=place)
        else:
            self.gave_up(place, now)

    def gave_up(self, place: Place, now: float) -> None:
        """The connect in this place was given up: a caller has failed to, and knows why."""
        self.connects.discard(place)
        if self.retry_at == NEVER and not self.connects:
            self.trouble = None  # there would be no further attempt
        self._release(place, now)

    def connect_failed(self, place: Place, error: BaseException, *, transient: bool, now: float) -> None:
        """The connect in this place has failed: decide who gets the error, and whether to try again."""
        self.failures += 1
        again = judgements.tries_again(
            waited_for=bool(self.callers),
            warm=self.warm,
            patient=self.rules.patient,
            transient=transient,
            others_in_use=self.in_use > 0,
        )
        place.state = State.FREE
        self.connects.discard(place)
        self.places.discard(place)
        if again:
            # One tries, the others wait: for this attempt, for a connection that is still in use, or their deadline.
            self.trouble = error
            if not now < self.retry_at < NEVER:
                self.retry_at = now + self.rules.retry_pause(self.failures, transient=transient)
                self.care.wake(self.retry_at, now)
            return
        self.trouble, self.retry_at = None, NEVER
        if self.callers:
            self._decide(self._first(), error=error)
        self._staff(now)

    def _release(self, place: Place, now: float) -> None:
        place.state = State.FREE
        if place in self.places:
            self.places.discard(place)
            self._staff(now)

    # -- how many

    def _staff(self, now: float) -> None:
        """Open connections for the waiters, as many at the same time as is useful."""
        if len(self.places) >= self.rules.limit:  # the usual case under load
            return
        # A connect that takes so long that it may never end must not block connects for later callers.
        stalls = self.rules.connect_stalls
        hopeful = sum(not place.by_caller and now - place.started_at < stalls for place in self.connects)
        wanted = min(self.at_once(now) - self.connecting, len(self.callers) - hopeful)
        while wanted > 0 and self.connect(now):
            wanted -= 1

    def at_once(self, now: float) -> float:
        """Return how many connects may be in progress.

        The first connect of all is alone, so that a wrong password is tried once and not three times; and while the
        server cannot be reached one tries for all. Returned connections serve most of a burst: more connects at the
        same time would be a connection storm.
        """
        if self.rules.callers_connect:
            return NEVER
        if self.trouble is not None:
            return 1 if now >= self.retry_at else 0
        return self.rules.connects_at_once if self.warm else 1

    def connect(self, now: float) -> bool:
        """Take a free place to connect in; False if there is none."""
        if self.open >= self.rules.limit:
            return False
        self.retry_at = NEVER
        place = Place(now, self.generation)
        self.places.add(place)
        self.connects.add(place)
        if self.callers and self._first_connects():
            self.entrust(place, now)
        else:
            self.commands.append(Connect(place))
        if self.callers:
            self.care.wake(now + self.rules.connect_stalls, now)
        return True

    def _first_connects(self) -> bool:
        """Return whether the longest waiter connects on its own thread."""
        here = self.rules.callers_connect or (self.rules.first_by_caller and not self.warm)
        return here and next(iter(self.callers)).connects
