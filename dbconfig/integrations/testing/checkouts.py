"""Which statements run, and which line took the connections that are out: for tests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.pool import Pool

_LIBRARIES: Final = ("sqlalchemy", "sqlmodel", "dbconfig", "contextlib", "asyncio", "greenlet", "_pytest", "pluggy")


class Checkouts:
    """Who holds a connection of any pool."""

    def __init__(self) -> None:
        self._holders: dict[int, tuple[Any, str]] = {}
        self.refusal = ""  # why nobody may take one now
        self.noted = True  # what is taken belongs to the test that runs
        event.listen(Pool, "checkout", self._taken)
        event.listen(Pool, "checkin", self._given_back)

    def stop(self) -> None:
        event.remove(Pool, "checkout", self._taken)
        event.remove(Pool, "checkin", self._given_back)

    def _taken(self, connection: Any, record: Any, proxy: Any) -> None:
        if self.refusal:
            raise RuntimeError(self.refusal)
        if self.noted:
            self._holders[id(record)] = (record, _line())

    def _given_back(self, connection: Any, record: Any) -> None:
        self._holders.pop(id(record), None)

    def left(self) -> list[str]:
        """Return the lines that took what is still out, and forget them."""
        gc.collect()  # a session that nobody refers to any more gives its connection back
        found = [line for _, line in self._holders.values()]
        self._holders.clear()
        return found


def _line() -> str:
    """Return the application's line that is running: across the switch into an asynchronous driver's greenlet, too."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not str(frame.f_globals.get("__name__", "")).startswith(_LIBRARIES):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
        frame = frame.f_back or _caller_of_greenlet(frame)
    return "a line that is not known"


def _caller_of_greenlet(frame: FrameType) -> FrameType | None:
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    parent = greenlet.getcurrent().parent
    found: FrameType | None = parent.gr_frame if parent is not None else None
    return found if found is not frame else None


Counter = Callable[..., Any]
