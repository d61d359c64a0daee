"""Leak reports: who holds a connection for too long, and which line of the application took it."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import event

from dbconfig.engine.pool import forks
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.diagnostics.call_sites import (
    Place,
    application_frames,
    describe,
    running,
    task_is_inside,
    thread_is_inside,
)
from dbconfig.engine.pool.driver import Driver
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.maintenance import caretaker
from dbconfig.engine.pool.threads import FairPool

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine import Engine

    from dbconfig.engine.pool.diagnostics.counters import Holder, Ledger
    from dbconfig.engine.pool.record import Record

logger: logging.Logger = logging.getLogger("dbconfig.pool.leaks")

# Rounds per warning time, and the limits of a round in seconds: a report is at most a quarter late.
ROUNDS = 4
SHORTEST_ROUND = 0.05
LONGEST_ROUND = 2.0
# Rounds without any connection in use after which the reports pause, and their thread ends.
QUIET_ROUNDS = 2


class Hold:
    """One connection in use."""

    __slots__ = ("frames", "idle", "reported", "since", "task", "thread")

    def __init__(self, frames: list[Place], since: float, thread: str, task: str | None) -> None:
        self.frames: list[Place] = frames
        self.since: float = since
        self.thread: str = thread
        self.task: str | None = task
        self.reported: bool = False
        self.idle: bool = False  # in its transaction, when it was found to be held for too long

    def place(self) -> str | None:
        return describe(self.frames[0]) if self.frames else None

    def who(self) -> str:
        where = " < ".join(describe(frame) for frame in self.frames) or "an unknown place"
        by = f"thread {self.thread}" if self.task is None else f"task {self.task}, thread {self.thread}"
        return f"{where} ({by})"


def current_task() -> asyncio.Task[Any] | None:
    loops = sys.modules.get("asyncio")
    if loops is None or loops._get_running_loop() is None:
        return None  # no event loop runs in this thread
    task: asyncio.Task[Any] | None = loops.current_task()
    return task


class Count(Protocol):
    """Counts a connection that is held for too long, by the line that took it."""

    def __call__(self, place: str | None, *, idle: bool) -> None: ...


class Leaks(ABC):
    """Reports the connections of one engine that are held for too long."""

    def __init__(self, name: str, seconds: float, count: Count, in_transaction: Callable[[Any], bool]) -> None:
        self.name = name
        self._count = count
        self._in_transaction = in_transaction
        self._seconds = seconds
        self._round = min(max(seconds / ROUNDS, SHORTEST_ROUND), LONGEST_ROUND)
        self._forget()
        forks.after_fork_in_child(self._forget)

    def _forget(self) -> None:
        self._watching = False
        self._quiet = 0

    @abstractmethod
    def _any_held(self) -> bool:
        """Return whether a connection is in use."""

    @abstractmethod
    def _overdue(self, now: float) -> list[Hold]:
        """Return what is held for too long and was not reported, and mark it as reported."""

    @abstractmethod
    def place_of(self, record: Any) -> str | None:
        """Return the line of the application that took a connection, if that is known."""

    def _is_idle(self, record: Any, thread: int, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a transaction is open while its holder is not executing a statement."""
        busy = task_is_inside(task) if task is not None else thread_is_inside(thread)
        return not busy and self._in_transaction(record)

    def _watch(self) -> None:
        self._quiet = 0
        myself = weakref.ref(self)
        caretaker.add(id(self), lambda: known._report() if (known := myself()) is not None else None, self._round)
        self._watching = True  # last: an interrupted checkout leaves it to the next one

    def _facts(self, hold: Hold, seconds: float) -> dict[str, Any]:
        by = {"holder_thread": hold.thread, "holder_task": hold.task}
        return facts(self.name, seconds=seconds, place=hold.place(), idle_in_transaction=hold.idle, **by)

    def _came_back(self, hold: Hold) -> None:
        held = monotonic() - hold.since
        logger.warning(
            "%s: the connection taken at %s was returned after %.1f s",
            self.name,
            hold.who(),
            held,
            extra=self._facts(hold, held),
        )

    def _was_forgotten(self, hold: Hold) -> None:
        if not hold.reported:
            self._count(hold.place(), idle=False)
        held = monotonic() - hold.since
        logger.warning(
            "%s: a connection was never closed; the garbage collector reclaimed it after %.1f s, taken at %s",
            self.name,
            held,
            hold.who(),
            extra=self._facts(hold, held),
        )

    def rest(self) -> None:
        """Pause the reports when their pool is disposed of; the next checkout resumes them."""
        if self._any_held():
            return
        self._watching = False
        caretaker.remove(id(self))

    def _report(self) -> float | None:
        now = monotonic()
        overdue = self._overdue(now)
        self._quiet = 0 if self._any_held() else self._quiet + 1
        done = self._quiet >= QUIET_ROUNDS
        if done:
            self._watching = False
        for hold in overdue:
            self._count(hold.place(), idle=hold.idle)
            held = now - hold.since
            extra = self._facts(hold, held)
            logger.warning("%s: a connection has been held for %.1f s by %s", self.name, held, hold.who(), extra=extra)
        return None if done else self._round


class LeaksOfLine(Leaks):
    """The same for our pool of threads, which calls it directly. What the record knows is not noted a second time."""

    def __init__(
        self,
        name: str,
        seconds: float,
        count: Count,
        in_transaction: Callable[[Any], bool],
        in_use: Callable[[], Iterable[Record]],
    ) -> None:
        super().__init__(name, seconds, count, in_transaction)
        self._in_use = in_use

    def taken(self, record: Record) -> None:
        record.taken_at = application_frames(sys._getframe(2))  # of the caller of `connect`
        record.hold = None
        loops = sys.modules.get("asyncio")
        if loops is None or loops._get_running_loop() is None:  # as `current_task`, without the call
            record.task = None
        else:
            task = loops.current_task()
            record.task = None if task is None else weakref.ref(task)
        if not self._watching:
            self._watch()

    def returned(self, record: Record) -> None:
        """Record that a reported connection was returned."""
        hold: Hold | None = record.hold
        record.hold = None
        if hold is not None:
            self._came_back(hold)

    def forgotten(self, record: Record) -> None:
        """Note that the garbage collector returns a connection: nothing refers to it."""
        hold: Hold = record.hold or self._hold(record)
        record.hold = None
        self._was_forgotten(hold)

    def place_of(self, record: Any) -> str | None:
        return describe(record.taken_at[0]) if record.taken_at else None

    def _any_held(self) -> bool:
        return any(True for _ in self._in_use())

    def _overdue(self, now: float) -> list[Hold]:
        found = []
        for record in self._in_use():
            if record.hold is None and now - record.lent_at >= self._seconds:
                record.hold = hold = self._hold(record)
                hold.reported = True
                hold.idle = self._is_idle(record, record.thread, None if record.task is None else record.task())
                found.append(hold)
        return found

    def _hold(self, record: Record) -> Hold:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        task = None if record.task is None else record.task()
        thread = names.get(record.thread, "that has ended")
        return Hold(record.taken_at, record.lent_at, thread, task.get_name() if task is not None else None)


class LeaksByEvents(Leaks):
    """The same for other pools, sync or async, through their events."""

    def __init__(
        self,
        name: str,
        seconds: float,
        count: Count,
        in_transaction: Callable[[Any], bool],
        holders: Callable[[], Iterable[Holder]],
        *,
        awaits: bool,
    ) -> None:
        self._awaits = awaits  # of an asynchronous engine
        self._holders = holders
        super().__init__(name, seconds, count, in_transaction)

    def _forget(self) -> None:
        super()._forget()
        self._lock = RLock()  # re-entrant: the garbage collector may check a connection in at any time
        self._holds: dict[int, Hold] = {}  # by the identity of the record; a stale entry is overwritten

    def taken(self, connection: Any, record: Any, fairy: Any) -> None:
        task = current_task()
        frames = running() if self._awaits else application_frames(sys._getframe(1))
        hold = Hold(frames, monotonic(), threading.current_thread().name, None if task is None else task.get_name())
        with self._lock:
            self._holds[id(record)] = hold
            if self._watching:
                return
        self._watch()

    def returned(self, connection: Any, record: Any) -> None:
        hold = self._take_out(record)
        if hold is not None and hold.reported:
            self._came_back(hold)

    def reset(self, connection: Any, record: Any, state: Any) -> None:
        if record is None or record.fairy_ref is None or record.fairy_ref() is not None:
            return
        # The connection is unreferenced: the garbage collector is returning it.
        hold = self._take_out(record)
        if hold is not None:
            self._was_forgotten(hold)

    def _take_out(self, record: Any) -> Hold | None:
        with self._lock:
            return self._holds.pop(id(record), None)

    def place_of(self, record: Any) -> str | None:
        with self._lock:
            hold = self._holds.get(id(record))
        return describe(hold.frames[0]) if hold is not None and hold.frames else None

    def _any_held(self) -> bool:
        return bool(self._holds)

    def _overdue(self, now: float) -> list[Hold]:
        with self._lock:
            found = [h for h in self._holds.values() if not h.reported and now - h.since >= self._seconds]
            for hold in found:
                hold.reported = True
            ids = {id(hold): key for key, hold in self._holds.items()}
        by_record = {id(each.record): each for each in self._holders()} if found else {}
        for hold in found:
            holder = by_record.get(ids[id(hold)])
            hold.idle = holder is not None and self._is_idle(holder.record, holder.thread, holder.task)
        return found


def attach(
    engine: Engine,
    name: str,
    seconds: float,
    ledger: Ledger,
    driver: Driver,
) -> Leaks:
    """Report, and count, connections of an engine that are held for longer than this."""
    dialect = engine.dialect

    def in_transaction(record: Any) -> bool:
        connection = record.dbapi_connection
        try:
            return connection is not None and driver.in_transaction(dialect.get_driver_connection(connection))
        except Exception as error:  # its holder closes it at this moment, and the report must not be lost with it
            logger.debug("%s: the state of a connection is unknown: %s", name, error)
            return False

    if isinstance(engine.pool, FairPool):
        engine.pool.leaks = of_line = LeaksOfLine(name, seconds, ledger.count_leak, in_transaction, ledger.records)
        return of_line
    leaks = LeaksByEvents(
        name, seconds, ledger.count_leak, in_transaction, ledger.holders, awaits=engine.dialect.is_async
    )
    event.listen(engine, "checkout", leaks.taken)
    event.listen(engine, "checkin", leaks.returned)
    event.listen(engine, "reset", leaks.reset)
    event.listen(engine, "detach", leaks.returned)
    return leaks
