"""aiosqlite's connection with a reliable close: it never waits for a dead thread, and leaves nothing open."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import aiosqlite

Call = tuple["asyncio.Future[Any] | None", Callable[[], Any]]


class Calls:
    """The calls for a connection's thread, in order; replaces aiosqlite's queue.

    The thread refers to this object, not to the connection, so that a forgotten connection is collected and warns.
    """

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None  # as soon as it exists: its opener may be cancelled before
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._lock = Lock()
        self._over = False

    def put_nowait(self, call: Call) -> None:
        with self._lock:
            if not self._over:
                self._queue.put(call)
                return
        # aiosqlite itself would wait indefinitely for a thread that has ended.
        if call[0] is not None:
            _deliver(call[0], error=ValueError("Connection closed"))

    def end(self) -> None:
        """Accept no further calls; when the pending ones are done, close, and end the thread."""
        with self._lock:
            if not self._over:
                self._over = True
                self._queue.put(None)

    def run(self) -> None:
        try:
            while (call := self._queue.get()) is not None:
                self._do(*call)
        finally:
            if self.connection is not None:
                self.connection.close()

    @staticmethod
    def _do(future: asyncio.Future[Any] | None, function: Callable[[], Any]) -> None:
        try:
            result = function()
        except BaseException as error:
            if future is not None:
                _deliver(future, error=error)
        else:
            if future is not None:
                _deliver(future, result)


class Connection(aiosqlite.Connection):
    """Opens, closes, and stops at any time, any number of times, even if the calling tasks are cancelled.

    aiosqlite hangs in the second of two closes, and in a close after `stop()`; it drops a connection whose
    opener was cancelled; and its thread fails in an event loop that was closed before a call had ended.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection], iter_chunk_size: int) -> None:
        super().__init__(connector, iter_chunk_size)
        self._tx: Any = Calls()
        self._thread = Thread(target=self._tx.run, name="dbconfig-aiosqlite", daemon=True)
        calls = self._tx

        def open_it() -> sqlite3.Connection:
            calls.connection = connector()
            opened: sqlite3.Connection = calls.connection
            return opened

        self._connector = open_it

    def stop(self) -> None:
        """Close, and end the thread. A running call is interrupted: its caller no longer waits."""
        self._running = False
        self._connection = None
        running: sqlite3.Connection | None = self._tx.connection
        self._tx.end()
        if running is not None:
            try:
                running.interrupt()
            except sqlite3.ProgrammingError:
                return  # it is closed


def connect(database: Any, *, iter_chunk_size: int = 64, **keywords: Any) -> Connection:
    """Return what opens a connection when it is awaited, as `aiosqlite.connect` does."""
    return Connection(lambda: sqlite3.connect(database, **keywords), iter_chunk_size)


def _deliver(future: asyncio.Future[Any], result: Any = None, error: BaseException | None = None) -> None:
    loop = future.get_loop()
    try:
        loop.call_soon_threadsafe(_settle, future, result, error)
    except RuntimeError:
        if not loop.is_closed():
            raise
        # Its caller no longer waits.


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return  # cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
