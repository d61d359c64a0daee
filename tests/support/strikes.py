"""Exceptions out of nowhere: raised at a chosen one of the points at which CPython delivers a signal."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
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
        self.left = number
        self._files = files
        self._error = error
        self._passed: tuple[FrameType, bool] | None = None

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(self._files):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            self._passed = (frame, True)  # the first instruction, which is not reported by itself
            return self._trace
        if event != "opcode":
            self._passed = None
            return self._trace
        passed, self._passed = self._passed, (frame, _is_point(frame.f_code, frame.f_lasti))
        if passed is not None and passed[0] is frame and passed[1]:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self._passed = passed = None  # a frame keeps its variables alive
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
            self._passed = None
            gc.collect(0)
            sys.unraisablehook = unraisable
        return self.left <= 0


def _ignore_strikes(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, Struck):
        sys.__unraisablehook__(unraisable)


_points: dict[CodeType, frozenset[int]] = {}


def _is_point(code: CodeType, offset: int) -> bool:
    found = _points.get(code)
    if found is None:
        found = frozenset(each.offset for each in dis.get_instructions(code) if each.opname.startswith(_POINTS))
        _points[code] = found
    return offset in found
