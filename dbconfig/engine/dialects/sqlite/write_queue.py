"""Writers of one process queue in order of arrival, before they compete with other processes for SQLite's lock.

SQLite itself polls with growing pauses: the caller that comes at the right moment gets the lock, and a thread that
already waits may never get it.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from threading import Lock, RLock, current_thread, get_ident
from typing import Final

from dbconfig.engine.pool import forks

OWN: Final = (
    "database is locked: this thread or task holds the write lock itself, in a transaction that has not ended: pass "
    "its session on instead of opening a second transaction, or end it first"
)
# Turns acquired by this context, by queue. Weak: a collected connection returns its turn.
_acquired: ContextVar[Mapping[int, weakref.ref[Turn]]] = ContextVar("dbconfig.sqlite.turns", default={})  # noqa: B039


class Turn:
    """The right to write. Dropping the object, for any reason, returns the turn."""

    __slots__ = ("__weakref__", "_owner", "_queue", "held", "kept", "thread")

    def __init__(self, queue: WriteQueue) -> None:
        self.held: bool = True
        self.kept: str = ""  # why others need not wait for it; "": it will be released
        self.thread: str = current_thread().name
        self._queue = queue
        self._owner = _here()

    def release(self) -> None:
        if self.held:
            self.held = False
            self._queue.serve()

    def remember(self) -> None:
        """Record that the current thread or task holds the turn."""
        self._owner = _here()
        alive = {number: found for number, found in _acquired.get().items() if found() is not None}
        _acquired.set({**alive, id(self._queue): weakref.ref(self)})

    def is_ours(self) -> bool:
        """Return whether the caller itself holds this turn, so that waiting for it would deadlock.

        The thread is not enough to tell: a framework may begin a transaction in one thread of a pool, end it in
        another one, and serve the next request in the first.
        """
        found = _acquired.get().get(id(self._queue))
        return found is not None and found() is self and self._owner == _here()

    def refusal(self, known: Turn | None) -> str:
        """Return why waiting for this turn would be in vain; "" if it is not. `known` is one that the caller holds."""
        if self.kept:
            return f"database is locked: {self.kept}"
        return OWN if self is known or self.is_ours() else ""

    def __del__(self) -> None:
        self.release()


class Waiter:
    """A connection in the queue; `gate` opens when its turn has come, or when it is interrupted."""

    __slots__ = ("gate", "turn")

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.gate = Lock()
        self.gate.acquire()


class WriteQueue:
    """The queue of writers of one database.

    The lock is reentrant: the garbage collector may drop a turn while it is held. The turn itself shows whether it is
    taken, so an interrupt between any two instructions cannot leave it taken without a holder.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset: in a forked child, the turn has no holder that could return it."""
        self._lock = RLock()
        self._waiters: deque[Waiter] = deque()
        self._holder: weakref.ref[Turn] | None = None

    def holder(self) -> Turn | None:
        turn = self._holder() if self._holder is not None else None
        return turn if turn is not None and turn.held else None

    def try_enter(self) -> Turn | None:
        """Return the turn if it is free and there are no waiters."""
        with self._lock:
            return None if self._waiters or self.holder() is not None else self._give()

    def enter(self, waiter: Waiter, seconds: float) -> Turn | None:
        """Return the turn, or None on a timeout or if the waiter was interrupted."""
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
        return turn  # on an exception it is dropped here, which returns it

    def serve(self) -> None:
        """Give the turn to the longest waiter, if it is free."""
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
    """Return the queue of a database: the same one for all connections of this process."""
    return _queues.of(database)


def _here() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return get_ident(), id(task)


def identity(place: str) -> tuple[int, int] | None:
    """Return the device and inode of the file at a path, the key of its queue; None if the file does not exist."""
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino
