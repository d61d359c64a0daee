"""Whether another thread still works with a session whose request has been cancelled: threads cannot be cancelled."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from threading import get_ident
from types import FrameType
from typing import Any, Final, TypeVar

from sqlalchemy.exc import IllegalStateChangeError

T = TypeVar("T")

_FIRST, _LONGEST = 0.005, 0.1  # seconds between two looks
_CLOSING: Final = 60.0  # seconds; then the conflict is an error of the application
# Seconds that a thread has to end, and between two attempts to interrupt it: it may begin another statement.
_PATIENCE: Final = 1.0


def is_used(session: Any) -> bool:
    """Whether the stack of another thread refers to a session, or to an object that has it as an attribute."""
    own = get_ident()
    return any(
        value is session or _has(value, session)
        for thread, frame in sys._current_frames().items()
        if thread != own
        for each in _stack(frame)
        for value in list(each.f_locals.values())
    )


def when_unused(
    session: Any, interrupt: Callable[[], object], end: Callable[..., T], *details: Any, interrupted: bool
) -> T:
    """End a session once no other thread uses it: at the same time, a driver would mix up the answers of the two.

    Args:
        session: of a request.
        interrupt: ends the statement that a thread executes with it.
        end: ends it.
        details: its arguments.
        interrupted: the request was cancelled, so that a thread may have been left behind.
    """
    if interrupted:
        _wait(lambda: not is_used(session), interrupt)
    latest = time.monotonic() + _CLOSING
    while True:
        try:
            return end(*details)
        except IllegalStateChangeError:  # it is waiting for a connection, in a thread that the request does not await
            if time.monotonic() > latest:
                raise
        _wait(lambda: not is_used(session))
        time.sleep(_FIRST)


def _wait(done: Callable[[], bool], interrupt: Callable[[], object] = lambda: None) -> None:
    pause, due = _FIRST, time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() >= due:
            interrupt()
            due = time.monotonic() + _PATIENCE
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _has(value: Any, session: Any) -> bool:
    try:
        attributes = vars(value)
    except TypeError:
        return False
    return any(each is session for each in list(attributes.values()))
