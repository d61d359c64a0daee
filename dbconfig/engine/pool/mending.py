"""Make a line whole after an exception out of a signal handler: an interrupted event, a command that was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .place import Caller, Command, Place, Serve, State
from .refusal import NEVER

if TYPE_CHECKING:
    from collections import OrderedDict, deque
    from collections.abc import Callable, Collection

# Seconds between two looks while somebody waits. A signal handler seldom raises in the pool; then a caller waits for
# this long for what was lost.
REVIEW = 0.1


class Torn(Protocol):
    """The line that is mended."""

    commands: list[Command]
    idle: deque[Place]
    callers: OrderedDict[Caller, None]
    places: set[Place]
    connects: set[Place]
    generation: int
    disposed: bool
    trouble: BaseException | None
    retry_at: float

    def close_idle(self, condemned: Callable[[Place], bool], reason: str) -> None: ...

    def _close(self, place: Place, reason: str, *, polite: bool = True) -> None: ...

    def _hand_over(self, place: Place, now: float) -> None: ...

    def _staff(self, now: float) -> None: ...


def mend(line: Torn, waiting: Collection[Caller], is_held: Callable[[Place], bool], now: float) -> None:
    """Take back the places that nobody has, and serve or line up those who wait.

    Every step may itself be interrupted: the next look begins anew, and of what is whole it changes nothing. What the
    line had commanded and nobody has begun follows from the states of its places and callers.

    Args:
        line: in between two events.
        waiting: who waits for a decision of the line, or to be told of it.
        is_held: whether somebody who is alive uses a place that does not rest, or is at work on it.
        now: the time.
    """
    line.commands.clear()
    _take_back(line, is_held)
    _line_up(line, waiting)
    line.close_idle(lambda place: place.condemned or place.generation != line.generation, "invalidated")
    if line.trouble is not None and not line.connects and line.retry_at == NEVER:
        line.trouble = None  # nobody would try again
    while line.callers and line.idle:
        line._hand_over(line.idle.popleft(), now)
    if line.disposed:
        line.close_idle(lambda place: True, "disposed")
    line._staff(now)


def _take_back(line: Torn, is_held: Callable[[Place], bool]) -> None:
    resting = set(line.idle)
    line.connects &= line.places
    for place in list(line.places):
        if place in resting:
            place.state = State.IDLE
        elif not is_held(place):
            line.connects.discard(place)
            if place.connection is None:
                place.state = State.FREE
                line.places.discard(place)
            else:
                # Whoever was interrupted may have asked something, whose answer is nobody else's.
                line._close(place, "invalidated", polite=False)


def _line_up(line: Torn, waiting: Collection[Caller]) -> None:
    known = set(waiting)
    for caller in [each for each in line.callers if each not in known]:
        line.callers.pop(caller, None)
    lost: list[Any] = []
    for caller in waiting:
        if caller.place is not None or caller.error is not None:
            line.commands.append(Serve(caller))
        elif caller not in line.callers:
            lost.append(caller)  # who was about to be served
    for caller in sorted(lost, key=lambda each: each.arrived, reverse=True):
        line.callers[caller] = None
        line.callers.move_to_end(caller, last=False)
