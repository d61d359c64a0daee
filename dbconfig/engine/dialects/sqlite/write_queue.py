"""Writers of one process queue in order of arrival, before they compete with other processes for SQLite's lock.

SQLite's own waiting is a poll with growing pauses: whoever comes at the right moment gets the lock, and a thread that
waits already may get it never.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from threading import Lock, RLock, current_thread, get_ident

from dbconfig.engine.pool import forks

# What this context has acquired, by queue. Weak: a connection that is collected gives its turn back.
_acquired: ContextVar[Mapping[int, weakref.ref[Turn]]] = ContextVar("dbconfig.sqlite.turns", default={})  # noqa: B039


class Turn:
    """The right to write. Whoever drops it, by whatever accident, gives it back."""

    __slots__ = ("__weakref__", "_owner", "_queue", "held", "thread")

    def __init__(self, queue: WriteQueue) -> None:
        self.held: bool = True
        self.thread: str = current_thread().name
        self._queue = queue
        self._owner = _here()

    def release(self) -> None:
        if self.held:
            self.held = False
            self._queue.serve()

    def remember(self) -> None:
        """Note that the code that runs here and now holds the turn."""
        self._owner = _here()
        alive = {number: found for number, found in _acquired.get().items() if found() is not None}
        _acquired.set({**alive, id(self._queue): weakref.ref(self)})

    def is_ours(self) -> bool:
        """Return whether the code that asks holds this turn itself, so that to wait for it would never end.

        The thread alone does not say so: a framework may begin a transaction in one thread of a pool, end it in
        another one, and serve the next request in the first.
        """
        found = _acquired.get().get(id(self._queue))
        return found is not None and found() is self and self._owner == _here()

    def __del__(self) -> None:
        self.release()


class Waiter:
    """A connection in the line; `gate` opens when its turn has come, or when it is interrupted."""

    __slots__ = ("gate", "turn")

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.gate = Lock()
        self.gate.acquire()


class WriteQueue:
    """The line before one database.

    The lock is re-entrant: the garbage collector may drop a turn inside of it. Whether the turn is taken is read off
    the turn itself, so that an interrupt between any two instructions cannot leave it taken by nobody.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset: in a forked child nobody holds the turn, and nobody would ever give it back."""
        self._lock = RLock()
        self._waiters: deque[Waiter] = deque()
        self._holder: weakref.ref[Turn] | None = None

    def holder(self) -> Turn | None:
        turn = self._holder() if self._holder is not None else None
        return turn if turn is not None and turn.held else None

    def try_enter(self) -> Turn | None:
        """Return the turn if nobody has it or waits for it."""
        with self._lock:
            return None if self._waiters or self.holder() is not None else self._give()

    def enter(self, waiter: Waiter, seconds: float) -> Turn | None:
        """Return the turn, or None when it did not come within the time, or the waiter was interrupted."""
        try:
            with self._lock:
                self._waiters.append(waiter)
            self.serve()
            waiter.gate.acquire(timeout=max(0.0, seconds))
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                turn, waiter.turn = waiter.turn, None
        return turn  # in an exception it is dropped here, which gives it back

    def serve(self) -> None:
        """Give the turn to the caller that has waited longest, if it is free."""
        with self._lock:
            if self._waiters and self.holder() is None:
                waiter = self._waiters.popleft()
                waiter.turn = self._give()
                if waiter.gate.locked():
                    waiter.gate.release()

    def _give(self) -> Turn:
        turn = Turn(self)
        self._holder = weakref.ref(turn)
        return turn


class _Queues:
    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[Hashable, WriteQueue] = weakref.WeakValueDictionary()
        self._lock = RLock()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        self._lock = RLock()
        for queue in list(self._known.values()):
            queue.forget()

    def of(self, database: Hashable) -> WriteQueue:
        with self._lock:
            found = self._known.get(database)
            if found is None:
                found = self._known[database] = WriteQueue()
            return found


_queues = _Queues()


def queue_of(database: Hashable) -> WriteQueue:
    """Return the line before a database: the same one for all connections of this process."""
    return _queues.of(database)


def _here() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return get_ident(), id(task)


def identity(place: str) -> tuple[int, int] | None:
    """Return device and inode of the file at a place, by which its queue is known; None where there is none."""
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino
