"""Make a line whole after an exception out of a signal handler: an interrupted event, a command that was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .place import Caller, Place, Serve, State
from .refusal import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .line import Line

# Seconds between two reviews while a caller waits: the longest time that an interrupt costs the caller.
REVIEW = 0.1


def mend(line: Line, waiting: Collection[Caller], is_held: Callable[[Place], bool], now: float) -> None:
    """Reclaim the places that are lost, and serve or queue the waiters.

    Each step may itself be interrupted: the next review repeats all of it, and changes nothing in a valid state. The
    commands that were not carried out follow from the states of places and callers.

    Args:
        line: in between two events.
        waiting: the callers that have not been woken up.
        is_held: whether a task, a caller, or a loan that is alive has a place that is not idle.
        now: the time.
    """
    line.commands.clear()
    _take_back(line, is_held)
    _line_up(line, waiting)
    line.close_idle(lambda place: place.condemned or place.generation != line.generation, "invalidated")
    if line.trouble is not None and not line.connects and line.retry_at == NEVER:
        line.trouble = None  # there would be no further attempt
    while line.callers and line.idle:
        line._hand_over(line.idle.popleft(), now)
    if line.disposed:
        line.close_idle(lambda place: True, "disposed")
    line._staff(now)


def _take_back(line: Line, is_held: Callable[[Place], bool]) -> None:
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
                # An answer to the interrupted caller may still be under way.
                line._close(place, "invalidated", polite=False)


def _line_up(line: Line, waiting: Collection[Caller]) -> None:
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
