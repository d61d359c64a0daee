"""Closes the engines of an event loop when it ends."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import suppress
from types import CoroutineType
from typing import Any, Final, Protocol

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool import forks, retiring, sockets

PATIENCE: Final = 1.0  # seconds that other code has to close its connections when a loop ends


class Owner(Protocol):
    """An owner of engines in a loop."""

    def forget(self) -> None: ...


class OpenEngine:
    """An engine of an event loop, and every connection that it has opened."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._records: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        event.listen(engine, "connect", lambda connection, record: self._records.add(record))

    async def dispose(self) -> None:
        """Close the idle connections; the engine stays usable."""
        await greenlet_spawn(retiring.dispose, self.engine)

    async def retire(self) -> None:
        """Close the idle connections now, the others when they are returned."""
        retiring.close_what_returns(self.engine)
        await self.dispose()

    def abandon(self) -> None:
        """Close the sockets, if nothing can be awaited."""
        driver = driver_protocol.of(self.engine.dialect)
        for record in list(self._records):
            if record.dbapi_connection is None:
                continue
            fd = driver.socket(record.driver_connection)
            if fd is not None:
                sockets.shut(fd)
            driver.forget(record.driver_connection)
        self.engine.dispose(close=False)

    async def end(self) -> None:
        """Close every connection, including those in use, which are unusable after the loop's end."""
        records = [record for record in list(self._records) if record.dbapi_connection is not None]
        connections = [record.driver_connection for record in records]
        driver = driver_protocol.of(self.engine.dialect)
        transports = [driver.transport(connection) for connection in connections]
        await _within(PATIENCE, self.dispose())
        for record in records:
            if record.dbapi_connection is not None:
                await _within(PATIENCE, greenlet_spawn(record.invalidate))
        # A closed TLS connection waits for the server's close_notify, before which the loop would end.
        for transport in transports:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)
        await _last_words(connections)


async def _within(seconds: float, closing: Coroutine[Any, Any, None]) -> None:
    """Wait for a close with a time limit: a driver with its own thread would hang after a cancelled one."""
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(closing)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        task.result()
        return
    begun = asyncio.all_tasks() - before  # SQLAlchemy shields what it waits for
    for each in begun:
        each.cancel()
    await asyncio.wait(begun, timeout=seconds)


async def _last_words(connections: Iterable[Any]) -> None:
    """Wait for aiosqlite's threads: each reports its end to the loop, which must still be there."""
    threads = [thread for thread in (getattr(each, "_thread", None) for each in connections) if thread is not None]
    deadline = time.monotonic() + PATIENCE
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        await asyncio.sleep(0.001)


async def _other_generators() -> None:
    """Let the other asynchronous generators of a loop that ends be closed first."""
    current = asyncio.current_task()
    others = [
        each
        for each in asyncio.all_tasks()
        if each is not current and not _shuts_down(each) and not isinstance(each.get_coro(), CoroutineType)
    ]
    if others:
        await asyncio.wait(others, timeout=PATIENCE)


def _shuts_down(task: asyncio.Task[Any]) -> bool:
    """Whether a task is the one waiting for us: `loop.shutdown_asyncgens()`, of asyncio or uvloop."""
    return getattr(task.get_coro(), "__name__", "") == "shutdown_asyncgens"


_numbers = itertools.count(1)


class LoopEnd:
    """The engines to close when an event loop ends.

    It belongs to the loop, not to a registry: an engine may outlive its registry.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.over = False
        self.number: int = next(_numbers)  # in names
        self.owners: weakref.WeakSet[Owner] = weakref.WeakSet()
        self._loop = weakref.ref(loop)
        self._opened: dict[Engine, OpenEngine] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._guard: AsyncGenerator[None, None] | None = self._until_the_end()
        # Run up to its `yield` without waiting: the loop then knows it, and closes it before it closes itself.
        step = self._guard.__anext__()
        try:
            step.send(None)
        except StopIteration:
            return

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        """Wait for `loop.shutdown_asyncgens()`, with which asyncio.run, uvicorn and every runner end a loop."""
        try:
            yield
        finally:
            # Generators that hold sessions are closed at the same time. With aiosqlite, two concurrent closes of one
            # connection, theirs and ours, would deadlock.
            await _other_generators()
            for opened in self.take():
                await opened.end()

    def open(self, engine: Engine) -> AsyncEngine:
        """Return the asynchronous engine of an engine, which ends with the loop, or when it is unreferenced."""
        opened = self._opened[engine] = OpenEngine(engine)
        found = AsyncEngine(engine)
        weakref.finalize(found, self._soon, opened).atexit = False
        return found

    def of(self, engine: AsyncEngine) -> OpenEngine | None:
        return self._opened.get(engine.sync_engine)

    def _soon(self, opened: OpenEngine) -> None:
        """Release an engine that was garbage-collected, in any thread."""
        loop = self._loop()
        if loop is not None and not loop.is_closed() and opened.engine in self._opened:
            loop.call_soon_threadsafe(self._let_go, opened)

    def _let_go(self, opened: OpenEngine) -> None:
        def closed(closing: asyncio.Future[None]) -> None:
            if not closing.cancelled() and closing.exception() is None:
                self.discard(opened)  # else it ends with the loop, which may be ending already

        self.retire(opened).add_done_callback(closed)

    def rest(self, engine: Engine) -> None:
        """Close the idle connections of an engine that stays open. In the loop's own thread."""
        opened = self._opened.get(engine)
        if opened is not None:
            self._close(opened.dispose())

    def retire(self, opened: OpenEngine) -> asyncio.Future[None]:
        """Let the connections of an engine close, those in use when they are returned. In the loop's own thread."""
        return self._close(opened.retire())

    def _close(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        closing = asyncio.ensure_future(work)
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    def discard(self, opened: OpenEngine) -> None:
        self._opened.pop(opened.engine, None)

    def take(self) -> list[OpenEngine]:
        """Forget everything; the caller that takes the engines ends them."""
        self.over, self._guard = True, None  # the guard refers to the loop, which would never be collected
        for owner in list(self.owners):
            owner.forget()
        found, self._opened = list(self._opened.values()), {}
        return found

    def finish(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close everything before a loop is closed, if `shutdown_asyncgens` has not been called."""
        if self.over or loop.is_closed() or loop.is_running() or self._guard is None:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop.run_until_complete(self._guard.aclose())
        # Else another loop is running in this thread, and nothing can be awaited in this one.

    def abandon(self) -> None:
        """Release the sockets of a loop that is already closed, in which nothing can be awaited."""
        for opened in self.take():
            opened.abandon()


def _finish_before_closing(loop: asyncio.AbstractEventLoop, end: LoopEnd) -> None:
    """Make a loop close its engines when it is closed without a runner's `shutdown_asyncgens`."""
    close = loop.close

    def finish_and_close() -> None:
        end.finish(loop)
        close()

    with suppress(AttributeError):  # a loop that rejects attributes: its engines are released when the next one begins
        loop.close = finish_and_close  # type: ignore[method-assign]  # no other hook runs when a loop is closed


_ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopEnd] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
# Of the parent process. Kept, not collected: a collected driver connection would end the session over the socket that
# the parent still uses.
_inherited: list[object] = []


def end_of_this_loop() -> LoopEnd:
    loop = asyncio.get_running_loop()
    with _lock:
        for ended in [other for other in _ends if other.is_closed()]:
            _ends.pop(ended).abandon()
        found = _ends.get(loop)
        if found is None or found.over:
            found = _ends[loop] = LoopEnd(loop)
            _finish_before_closing(loop, found)
        return found


def keep_inherited(engines: object) -> None:
    """In a forked child: never release the parent's engines."""
    _inherited.append(engines)


def _leave_to_the_parent() -> None:
    global _ends, _lock
    keep_inherited(_ends)
    for end in _ends.values():
        end.over = True
    _ends, _lock = weakref.WeakKeyDictionary(), threading.Lock()


forks.after_fork_in_child(_leave_to_the_parent)


@atexit.register
def _say_goodbye() -> None:
    for loop, end in list(_ends.items()):
        end.finish(loop)
