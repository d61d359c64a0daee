"""Exceptions out of nowhere: raised at a chosen one of the points at which CPython delivers a signal."""

from __future__ import annotations

import ctypes
import dis
import gc
import signal
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

import pytest

# CPython looks for signals when a function begins, after a call, and when a loop begins anew (its "eval breaker"); it
# does not after an `await`.
_TOOL = 4  # none of those that the standard library names
_POINTS = ("RESUME", "CALL", "JUMP_BACKWARD")


_SIGNAL = signal.SIGUSR2
_interrupt = ctypes.PYFUNCTYPE(None, ctypes.c_int, ctypes.py_object)(("PyErr_SetInterruptEx", ctypes.pythonapi))
_trip = partial(_interrupt, _SIGNAL)  # a function in C, in which no signal is seen; its other argument is of no use


Place = tuple[tuple[str, str, int, int], ...]  # an instruction, and that of the call that led to it


class _Fuse:
    """Whose end lets a signal arrive."""

    __slots__ = ("__weakref__",)


class Struck(Exception):
    """What a signal handler raises: a soft time limit, for instance."""


class Strike:
    """Raises `Struck` once, at the point with this number in the code of these files.

    The number of a point is how often one was passed since the beginning; ``left`` says what was left of it. With
    ``times`` it strikes at the following points, too, as for somebody who holds Ctrl-C.

    With ``known`` places it strikes at the first point at another place, whatever its number, and adds that place. A
    place is an instruction, and that of the call in these files that led to it: the passes of a loop are at the same
    place, the same function called from elsewhere is at another one.
    """

    def __init__(
        self,
        number: int,
        *files: str,
        error: type[BaseException] = Struck,
        times: int = 1,
        known: set[Place] | None = None,
    ) -> None:
        self.number = number
        self.left = number if known is None else 1
        self._known = known
        self._at = ""
        self._times = self._to_arrive = times
        self._fell = False
        self._files = files
        self._error = error
        self._next: tuple[FrameType, int | None] | None = (
            None  # where a point has been passed, if execution continues here
        )
        self.raised = False  # whether it left the work, with these notes
        self.notes: list[str] = []
        self._early = False  # whether the signal arrived where CPython would not have looked without us

    def __repr__(self) -> str:
        return f"after a strike at point {self.number}{self._at}"

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Trace the instructions of a function that begins, if it is one of ours, until the strike."""
        if self.left <= 0 or not frame.f_code.co_filename.startswith(self._files):
            return None
        self._next = (frame, _after_points(frame.f_code).get(_first_point(frame)))
        return self._of_instructions(frame)

    def _of_instructions(self, frame: FrameType) -> Any:
        """Have the instructions of a frame traced; return by what."""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        points = _after_points(frame.f_code)
        path = () if self._known is None else self._path(frame.f_back)

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            expected, self._next = self._next, None
            if event == "opcode":
                offset = frame.f_lasti
                following = points.get(offset)
                if following is not None:
                    self._next = (frame, following)
                if expected is not None and expected[0] is frame and expected[1] == offset and self.left > 0:
                    self._pass(frame, path)
            return trace

        return trace

    def _trace_again(self, frame: FrameType, event: str, _: Any) -> None:
        """Trace what is left, at the first call or return after a strike: CPython traces no more when a tracer raises.

        But it still calls a profiler, such as this. Before its first event, the only points are the ends of loops.
        """
        sys.setprofile(None)
        sys.settrace(self._trace)
        to = frame.f_back if event == "return" and frame.f_back is not None else frame
        at = _first_point(to) if event == "call" else to.f_lasti
        self._next = (to, _after_points(to.f_code).get(at))
        each: FrameType | None = frame
        while each is not None:
            if each.f_code.co_filename.startswith(self._files):
                each.f_trace = self._of_instructions(each)
            each = each.f_back

    def _path(self, frame: FrameType | None) -> Place:
        """Return where the nearest of our functions is, from this frame outwards."""
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._files):
                return (_instruction_of(frame),)
            frame = frame.f_back
        return ()

    def _is_due(self, frame: FrameType, path: Place | None = None) -> bool:
        """Count a point, unless its place is known; return whether it is the one."""
        if self._known is not None:
            place = (_instruction_of(frame), *(self._path(frame.f_back) if path is None else path))
            if place in self._known:
                return False
            self._known.add(place)
            self._known = None  # of the times that are left, the next is at the next point
            self._at = f", at instruction {frame.f_lasti} of {frame.f_code.co_qualname}"
        self.left -= 1
        return self.left == 0

    def during(self, work: Callable[[], Any]) -> bool:
        """Do some work; return whether the strike fell into it. Any other exception is passed on."""
        unraisable, sys.unraisablehook = sys.unraisablehook, _ignore_strikes
        gc.disable()  # or what the work leaves may have grown old when it is collected here, and stay
        try:
            self._watched(work)
        except self._error as error:
            error.__traceback__ = None
            self.raised = True
            self.notes = getattr(error, "__notes__", [])
        finally:
            self._next = None
            gc.enable()
            gc.collect(0)
            sys.unraisablehook = unraisable
        return self._fell

    def _falls(self) -> None:
        self._fell = True
        self._times -= 1
        if self._times:
            self.left = 1
            if sys.version_info < (3, 12):
                sys.setprofile(self._trace_again)

    def _watched(self, work: Callable[[], Any]) -> None:
        if sys.version_info < (3, 12):
            before = sys.gettrace()
            sys.settrace(self._trace)
            try:
                work()
            finally:
                sys.setprofile(None)
                sys.settrace(before)
            return
        self._signalled(work)

    def _signalled(self, work: Callable[[], Any]) -> None:
        """Let a signal arrive at the point: CPython raises where it looks for signals next, and only there.

        To raise at the next instruction would be wrong, since that may be outside of the block in which
        CPython looks. In Python 3.12 the end of an `except` in a `with` jumps back to the end of the `with`: the signal
        is seen in the jump, which is inside, and the lock is released; an exception at the instruction that is jumped
        to leaves it locked. Two tests of the pool's interrupts prove it.
        """
        monitoring = sys.monitoring
        self._thread = get_ident()
        before = signal.signal(_SIGNAL, self._arrived)
        monitoring.use_tool_id(_TOOL, "strikes")
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, self._instruction)
        monitoring.register_callback(_TOOL, monitoring.events.PY_START, self._begun)
        monitoring.restart_events()
        monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION | monitoring.events.PY_START)
        self._armed = True
        try:
            work()
            get_ident()  # where a signal is seen that has arrived in the last instruction
        finally:
            self._armed = False
            monitoring.set_events(_TOOL, 0)
            monitoring.free_tool_id(_TOOL)
            signal.signal(_SIGNAL, before)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code in _CALLBACKS:
            # A call that fails has no point after it, so that CPython looks next in the callback of an instruction
            # which is none either. Raised there, before PUSH_EXC_INFO, it would leave the thread with the failure as
            # "being handled" for ever: every later error would have it for its context.
            self._early = True
        elif self._armed:
            self._to_arrive -= 1
            self._armed = self._to_arrive > 0
            raise self._error

    # The signal arrives when these functions have ended and let go of `fuse`: in them it would be seen at once.

    def _begun(self, code: CodeType, offset: int) -> Any:
        ours = code.co_filename.startswith(self._files)
        if (fuse := self._count(ours)) is not None:
            self._burning = weakref.ref(fuse, _trip)
        return None if ours else sys.monitoring.DISABLE

    def _instruction(self, code: CodeType, offset: int) -> Any:
        ours = code.co_filename.startswith(self._files)
        if (fuse := self._count(ours and offset in _after_points(code))) is not None:
            self._burning = weakref.ref(fuse, _trip)
        return None if ours else sys.monitoring.DISABLE

    def _count(self, point: bool) -> _Fuse | None:
        """Count a point; return what is to burn if it is the one, or if its signal came too early."""
        if get_ident() != self._thread:
            return None
        if self._early:
            self._early = False
            return _Fuse()
        # 0 is this function, 1 is the callback, and 2 is where the point is.
        if not point or self.left <= 0 or not self._is_due(sys._getframe(2)):
            return None
        self._falls()
        return _Fuse()

    def _pass(self, frame: FrameType, path: Place) -> None:
        if self._is_due(frame, path):
            self._falls()
            self._next = None  # a frame keeps its variables alive
            raise self._error


_CALLBACKS = frozenset(function.__code__ for function in (Strike._begun, Strike._instruction))


def _instruction_of(frame: FrameType) -> tuple[str, str, int, int]:
    code = frame.f_code  # a code object itself takes long to hash
    return code.co_filename, code.co_qualname, code.co_firstlineno, frame.f_lasti


def _ignore_strikes(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, Struck):
        sys.__unraisablehook__(unraisable)


def sweep(attempt: Callable[[Strike], bool], *files: str, misses: int = 1) -> int:
    """Strike at every point of what an attempt does, each time anew; return how many there were.

    Args:
        attempt: does its work `during` the strike, says whether it fell, and looks whether all is well.
        files: whose code is struck.
        misses: after how many attempts in a row that the strike missed all has been struck; more than one where the
            points that are passed differ from one attempt to the next.
    """
    number, left = 0, misses
    while left:
        if attempt(Strike(number + 1, *files)):
            number, left = number + 1, misses
        else:
            left -= 1
    return number


_known: dict[CodeType, dict[int, int]] = {}


def _after_points(code: CodeType) -> dict[int, int]:
    """Return the points of a function, and where execution continues after each."""
    found = _known.get(code)
    if found is None:
        instructions = list(dis.get_instructions(code))
        found = _known[code] = {
            this.offset: this.argval if this.opname.startswith("JUMP_BACKWARD") else following.offset
            for this, following in pairwise(instructions)
            if this.opname.startswith(_POINTS) and not this.opname.endswith("_NO_INTERRUPT") and not _after_await(this)
        }
    return found


def _after_await(instruction: dis.Instruction) -> bool:
    """Return whether it is where a coroutine continues after an `await`, or a generator after a `yield from`."""
    return instruction.opname == "RESUME" and (instruction.arg or 0) & 3 > 1


def _first_point(frame: FrameType) -> int:
    points = _after_points(frame.f_code)
    first = min(points, default=-1)
    return frame.f_lasti if frame.f_lasti in points else first if frame.f_lasti < first else -1


def _a_with_is_whole() -> bool:
    """Return whether a `with` whose `__enter__` has returned calls `__exit__`, even if a signal handler raises.

    Python 3.14 may see the signal when `__enter__` has returned and the block has not begun; a lock stays locked:
    https://github.com/python/cpython/issues/148874.
    """
    left = []

    class Manager:
        __enter__ = staticmethod(partial(_trip, None))

        def __exit__(self, *error: object) -> None:
            left.append(error)

    def strike(number: int, frame: FrameType | None) -> None:
        raise Struck

    before = signal.signal(_SIGNAL, strike)
    try:
        with suppress(Struck), Manager():
            get_ident()
    finally:
        signal.signal(_SIGNAL, before)
    return bool(left)


needs_a_whole_with = pytest.mark.skipif(
    not _a_with_is_whole(), reason="this Python may leave a lock locked: cpython issue 148874"
)
