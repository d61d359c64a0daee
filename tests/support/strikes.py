"""Exceptions out of nowhere: raised at a chosen one of the points at which CPython delivers a signal."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

# CPython looks for signals when a function begins, after a call, and when a loop begins anew (its "eval breaker").
_POINTS = ("RESUME", "CALL", "JUMP_BACKWARD")


class Struck(Exception):
    """What a signal handler raises: a soft time limit, for instance."""


class Strike:
    """Raises `Struck` once, at the point with this number in the code of these files.

    The number of a point is how often one was passed since the beginning; ``left`` says what was left of it.
    """

    def __init__(self, number: int, *files: str, error: type[BaseException] = Struck) -> None:
        self.number = self.left = number
        self._files = files
        self._error = error
        self._next: tuple[FrameType, int | None] | None = None  # where a point has been passed, if it goes on here

    def __repr__(self) -> str:
        return f"after a strike at point {self.number}"

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(self._files):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            self._next = (frame, _after_points(frame.f_code).get(_first_point(frame)))
            return self._trace
        if event != "opcode":
            self._next = None
            return self._trace
        expected, self._next = self._next, (frame, _after_points(frame.f_code).get(frame.f_lasti))
        # An instruction may have gone unreported: Python 3.13 begins in the middle of a function that it sees first.
        if expected is not None and expected[0] is frame and expected[1] == frame.f_lasti:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self._next = expected = None  # a frame keeps its variables alive
                raise self._error
        return self._trace

    def during(self, work: Callable[[], Any]) -> bool:
        """Do some work; return whether the strike fell into it. Any other exception is passed on."""
        unraisable, sys.unraisablehook = sys.unraisablehook, _ignore_strikes
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            work()
        except self._error as error:
            error.__traceback__ = None
        finally:
            sys.settrace(before)
            self._next = None
            gc.collect(0)
            sys.unraisablehook = unraisable
        return self.left <= 0


def _ignore_strikes(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, Struck):
        sys.__unraisablehook__(unraisable)


def sweep(attempt: Callable[[Strike], bool], *files: str) -> int:
    """Strike at every point of what an attempt does, each time anew; return how many there were.

    Args:
        attempt: does its work `during` the strike, says whether it fell, and looks whether all is well.
        files: whose code is struck.
    """
    for _ in range(3):  # Python 3.13 reports the instructions of a function from the second time on
        attempt(Strike(sys.maxsize, *files))
    number = missed = struck = 0
    while missed < 3:
        number += 1
        fell = attempt(Strike(number, *files))
        struck += fell
        missed = 0 if fell else missed + 1
    return struck


_known: dict[CodeType, dict[int, int]] = {}


def _after_points(code: CodeType) -> dict[int, int]:
    """Return the points of a function, and where it goes on after each."""
    found = _known.get(code)
    if found is None:
        instructions = list(dis.get_instructions(code))
        found = _known[code] = {
            this.offset: this.argval if this.opname.startswith("JUMP_BACKWARD") else following.offset
            for this, following in pairwise(instructions)
            if this.opname.startswith(_POINTS) and not this.opname.endswith("_NO_INTERRUPT")
        }
    return found


def _first_point(frame: FrameType) -> int:
    points = _after_points(frame.f_code)
    return frame.f_lasti if frame.f_lasti in points else min(points, default=-1)
