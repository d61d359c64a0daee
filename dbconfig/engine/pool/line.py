"""The rules of the queue, as a state machine: it takes events and emits commands."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

from . import judgements
from .care import Care
from .place import Caller, Close, Command, Place, Rules, Serve, State
from .refusal import NEVER, Refusal
from .shedding import Shedding
from .staffing import Staffing
from .tally import BOUNDS, Counters

# Bound once: on Python 3.11 looking up an enum member calls a function, and every checkout uses these.
_LENT, _IDLE = State.LENT, State.IDLE
_FIRST_BOUND = BOUNDS[0]


class Line(Staffing):
    """Decides who gets which connection, when one more is opened, and when one closes.

    No thread, lock, socket, or clock: each event carries its time, and ``commands`` holds what has to be done when the
    method returns. Two invariants hold after every event: no caller waits while a connection is idle, and each open,
    opening, or closing connection has exactly one place, of which there are never more than ``rules.limit``.
    """

    def __init__(self, rules: Rules, counters: Counters) -> None:
        super().__init__()
        self.rules = rules
        self.counters = counters
        self.commands: list[Command] = []
        self.idle: deque[Place] = deque()
        self.callers: OrderedDict[Caller, None] = OrderedDict()
        self.generation: int = 0  # of the connections made from now on; the older ones are invalid
        self.disposed: bool = False
        self.shedding: Shedding | None = None if rules.queue_target is None else Shedding(rules.queue_target)
        self._take: Callable[[], Place] = self.idle.pop if rules.lifo else self.idle.popleft
        # Beyond the steady size the most recently returned connection is handed out first, so that the surplus stays
        # idle and can time out; in strict rotation a trickle of requests would keep all of them in use.
        self._put = self.idle.append
        self._put_surplus = self.idle.append if rules.lifo else self.idle.appendleft
        self._put_last = self.idle.appendleft if rules.lifo else self.idle.append
        self.care: Care = Care(self)

    # -- callers

    def take(self, now: float) -> Place | None:
        """Hand out the next idle connection, if there is one: the fast path."""
        if not self.idle:
            return None
        place = self._take()
        place.state = _LENT
        place.lent_at = now
        return place

    def ask(self, caller: Caller, now: float) -> None:
        """A caller wants a connection: serve it, reject it, or put it into the queue."""
        place = self._fit(now)
        if place is not None:
            self._decide(caller, place=place)
            return
        caller.queued = self.counters.is_full_for(len(self.callers), self.in_use, self.rules.limit)
        most = self.rules.max_waiting
        if most is not None and judgements.is_full(len(self.callers), most, self.rules.limit, self.in_use):
            self.counters.refuse(full=caller.queued)
            self._decide(caller, error=Refusal.FULL)
        else:
            self._line_up(caller, now)

    def ask_again(self, caller: Caller, place: Place, reason: str, now: float) -> None:
        """The connection that was handed to a caller is unusable: close it, and serve the caller before all others."""
        caller.place = None
        self._close(place, reason)
        another = self._fit(now)
        if another is not None:
            self._decide(caller, place=another)
            return
        self._line_up(caller, now, last=False)

    def _line_up(self, caller: Caller, now: float, *, last: bool = True) -> None:
        if self.shedding is not None and not self.callers:
            self.shedding.relax()
            self.care.wake(self.shedding.due(now, now), now)
        self.callers[caller] = None
        if not last:
            self.callers.move_to_end(caller, last=False)
        self._staff(now)

    def _fit(self, now: float) -> Place | None:
        while (place := self.take(now)) is not None:
            unfit = self.why_unfit(place, now)
            if unfit is None:
                return place
            self._close(place, unfit)
        return None

    def leave(self, caller: Caller, now: float) -> None:
        """A caller no longer waits: its time is over, it was cancelled, or it was interrupted.

        What was handed to it at the same moment goes to the next caller.
        """
        self.callers.pop(caller, None)
        place, caller.place = caller.place, None
        if place is None:
            return
        if place.state is State.CONNECTING:
            self.gave_up(place, now)
        else:
            self._hand_over(place, now)

    # -- connections

    def give_back(self, place: Place, now: float) -> None:
        """A caller returns a usable connection."""
        use, held = self.counters.use, now - place.lent_at
        # Tally.observe, why_unfit, without the calls.
        use.counts[0 if held <= _FIRST_BOUND else bisect_left(BOUNDS, held)] += 1
        use.sum += held
        place.returned_at = now
        if (
            self.callers
            or place.generation != self.generation
            or place.condemned
            or now >= place.expires
            or self.disposed
        ):
            self._hand_over(place, now)
            return
        place.state = _IDLE
        self._put(place) if len(self.places) <= self.rules.size else self._put_surplus(place)

    def lost(self, place: Place, now: float) -> None:
        """A caller returns a place without a connection, which was invalidated, detached, or forgotten."""
        self.counters.use.observe(now - place.lent_at)
        self._release(place, now)

    def retire(self, place: Place, reason: str) -> None:
        """A caller returns a connection that must not be handed out again."""
        self._close(place, reason)

    def closed(self, place: Place, now: float) -> None:
        """The connection in this place is closed."""
        self._release(place, now)

    def checked(self, place: Place, *, alive: bool, now: float) -> None:
        """A ping of an idle connection has ended."""
        place.checked_at = now
        if alive:
            # A check does not count as use: at the head of the queue it would be handed out next, and with a ping every
            # two minutes each surplus connection would be used before it has been idle for long enough to time out.
            self._hand_over(place, now, put=self._put_last)
        else:
            self._close(place, "ping")

    def _hand_over(self, place: Place, now: float, put: Callable[[Place], None] | None = None) -> None:
        """Give a connection to the longest waiter, else keep it idle; or close what must not be handed out again."""
        unfit = self.why_unfit(place, now)
        if unfit is not None:
            self._close(place, unfit)
            return
        if self.callers:  # of a disposed queue too: they came before it was disposed of, and get a connection
            if self.shedding is not None:
                self._shed(now)
            caller = self._first()
            if self.shedding is not None:
                self.shedding.served(now - caller.arrived, now)
            place.state = State.LENT
            place.lent_at = now
            self._decide(caller, place=place)
            return
        if self.disposed:
            self._close(place, "disposed")
            return
        place.state = State.IDLE
        (put or (self._put if self.open <= self.rules.size else self._put_surplus))(place)

    def why_unfit(self, place: Place, now: float) -> str | None:
        """Return why this connection may not be handed out again."""
        if now >= place.expires:
            return "recycled"
        return "invalidated" if place.condemned or place.generation != self.generation else None

    def _first(self) -> Caller:
        return self.callers.popitem(last=False)[0]

    def _decide(self, caller: Caller, *, place: Place | None = None, error: Any = None) -> None:
        caller.place, caller.error = place, error
        self.commands.append(Serve(caller))

    def _close(self, place: Place, reason: str, *, polite: bool = True) -> None:
        place.state = State.CLOSING
        self.commands.append(Close(place, reason, polite))

    # -- the whole

    def tick(self, now: float) -> None:
        """Do what is due: retry a connect, close connections idle for too long, ping quiet ones, open missing ones."""
        self.review(now)
        self.care.round(now)

    def review(self, now: float) -> None:
        """Do what is due for the callers that wait."""
        if self.trouble is not None and not self.callers:
            self.trouble, self.retry_at = None, NEVER
        if self.shedding is not None and self.callers and self.in_use >= self.rules.limit:
            self.shedding.stands(now - next(iter(self.callers)).arrived, now)
            self._shed(now)
        self._staff(now)

    def _shed(self, now: float) -> None:
        """Drop callers that have waited too long."""
        while self.shedding is not None and judgements.drops_first(self.shedding, self.callers, now):
            self.counters.refuse(full=True)
            self._decide(self._first(), error=Refusal.SHED)

    def invalidate(self, now: float) -> None:
        """Hand out no existing connection again; those in use close when they are returned."""
        rested = list(self.idle)
        self.idle.clear()  # first: an interrupt leaves none of them available
        self.generation += 1
        for place in rested:
            self._close(place, "invalidated")

    def condemn(self, places: Iterable[Place]) -> None:
        """Never hand out these connections again; idle ones close now."""
        for place in places:
            place.condemned = True
        self.close_idle(lambda place: place.condemned, "invalidated")

    def close_idle(self, condemned: Callable[[Place], bool], reason: str) -> None:
        for place in [each for each in self.idle if condemned(each)]:
            self.idle.remove(place)
            self._close(place, reason)

    def dispose(self, now: float) -> None:
        """Close idle connections now and those in use when they are returned. Waiters are still served."""
        self.disposed = True
        self.close_idle(lambda place: True, "disposed")

    def forget(self) -> list[Place]:
        """Reset, in a forked child or another event loop, and return what was idle.

        The caller must not close it: its sockets belong to the parent or to a closed loop. What is in use now may still
        be returned, and does not count.
        """
        inherited = list(self.idle)
        self.idle.clear()
        self.callers.clear()
        self.commands.clear()
        self.connects.clear()
        self.places.clear()
        self.failures = 0
        self.trouble, self.retry_at, self.warm = None, NEVER, False
        self.care = Care(self)  # no timer runs in a child
        self.generation += 1
        return inherited
