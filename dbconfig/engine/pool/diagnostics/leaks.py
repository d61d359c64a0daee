"""Who holds a connection for too long, and since which line of the application."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool import forks
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.diagnostics.call_sites import Place, application_frames, describe, running
from dbconfig.engine.pool.maintenance import caretaker

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

logger = logging.getLogger("dbconfig.pool.leaks")

# Rounds per warning time, and the limits of a round in seconds: a report is at most a quarter late.
ROUNDS = 4
SHORTEST_ROUND = 0.05
LONGEST_ROUND = 2.0
# Rounds without any connection in use after which the reports rest, and their thread with them.
QUIET_ROUNDS = 2


class Hold:
    """One connection in use."""

    __slots__ = ("frames", "reported", "since", "task", "thread")

    def __init__(self, frames: list[Place]) -> None:
        self.since = monotonic()
        self.frames = frames
        self.thread = threading.current_thread().name
        self.task = current_task_name()
        self.reported = False

    def who(self) -> str:
        where = " < ".join(describe(frame) for frame in self.frames) or "an unknown place"
        by = f"thread {self.thread}" if self.task is None else f"task {self.task}, thread {self.thread}"
        return f"{where} ({by})"


def current_task_name() -> str | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None  # no event loop runs in this thread
    return None if task is None else task.get_name()


class Leaks:
    """Remembers the holds of one engine and reports those that last."""

    def __init__(self, name: str, seconds: float, *, awaits: bool = False, count: Callable[[], None]) -> None:
        self.name = name
        self._count = count
        self._awaits = awaits  # of an asynchronous engine
        self._seconds = seconds
        self._round = min(max(seconds / ROUNDS, SHORTEST_ROUND), LONGEST_ROUND)
        self._forget()
        forks.after_fork_in_child(self._forget)

    def _forget(self) -> None:
        self._lock = RLock()  # re-entrant: the garbage collector may check a connection in at any time
        self._holds: dict[int, Hold] = {}  # by the identity of the record; a stale entry is overwritten
        self._watching = False
        self._quiet = 0

    def taken(self, connection: Any, record: Any, fairy: Any) -> None:
        hold = Hold(running() if self._awaits else application_frames(sys._getframe(1)))
        with self._lock:
            self._holds[id(record)] = hold
            if self._watching:
                return
            self._quiet = 0
        myself = weakref.ref(self)
        caretaker.add(id(self), lambda: known._report() if (known := myself()) is not None else None, self._round)
        self._watching = True  # last: an interrupted checkout leaves it to the next one

    def returned(self, connection: Any, record: Any) -> None:
        with self._lock:
            hold = self._holds.pop(id(record), None)
        if hold is not None and hold.reported:
            held = monotonic() - hold.since
            logger.warning("%s: the connection taken at %s came back after %.1f s", self.name, hold.who(), held)

    def reset(self, connection: Any, record: Any, state: Any) -> None:
        if record is None or record.fairy_ref is None or record.fairy_ref() is not None:
            return
        # Nobody refers to the connection any more: the garbage collector is returning it.
        with self._lock:
            hold = self._holds.pop(id(record), None)
        if hold is not None:
            if not hold.reported:
                self._count()
            held = monotonic() - hold.since
            logger.warning(
                "%s: a connection was never closed; the garbage collector reclaimed it after %.1f s, taken at %s",
                self.name,
                held,
                hold.who(),
            )

    def place_of(self, record: Any) -> str | None:
        with self._lock:
            hold = self._holds.get(id(record))
        return describe(hold.frames[0]) if hold is not None and hold.frames else None

    def rest(self) -> None:
        """Let the reports rest when their pool is disposed of; the next checkout wakes them."""
        with self._lock:
            if self._holds:
                return
            self._watching = False
        caretaker.remove(id(self))

    def _report(self) -> float | None:
        now = monotonic()
        with self._lock:
            overdue = [h for h in self._holds.values() if not h.reported and now - h.since >= self._seconds]
            for hold in overdue:
                hold.reported = True
            self._quiet = 0 if self._holds else self._quiet + 1
            done = self._quiet >= QUIET_ROUNDS
            if done:
                self._watching = False
        for hold in overdue:
            self._count()
            logger.warning("%s: a connection is held for %.1f s by %s", self.name, now - hold.since, hold.who())
        return None if done else self._round


def attach(engine: Engine, name: str, seconds: float, count: Callable[[], None]) -> Leaks:
    """Report, and count, connections of an engine that are held for longer than this."""
    leaks = Leaks(name, seconds, awaits=engine.dialect.is_async, count=count)
    event.listen(engine, "checkout", leaks.taken)
    event.listen(engine, "checkin", leaks.returned)
    event.listen(engine, "reset", leaks.reset)
    event.listen(engine, "detach", leaks.returned)
    return leaks
