"""Asynchronous engines: made in an event loop, kept for it alone, closed when it ends."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

import greenlet  # noqa: F401  # missing, SQLAlchemy 2.0 says so at the first await only
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig.engine import draining
from dbconfig.engine.pool import forks
from dbconfig.registry.engines import Engines, Plan, ProcessEngines
from dbconfig.replicas import routing
from dbconfig.sessions.sessionmaker import AsyncSessionFactory, Readers, async_readers_over_several

PATIENCE: Final = 1.0  # seconds that others get to close what they hold when a loop ends

LoopEngines = Engines[AsyncEngine, AsyncSessionFactory, Readers[AsyncSession]]


class OpenEngine:
    """An engine of an event loop, and every connection that it has opened."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._records: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        event.listen(engine, "connect", lambda connection, record: self._records.add(record))

    async def dispose(self) -> None:
        """Close the connections at rest; the engine may be used on."""
        await greenlet_spawn(self.engine.dispose)

    async def retire(self) -> None:
        """Close the connections at rest now, the others when they come back."""
        event.listen(self.engine, "checkin", _close_on_return)
        await self.dispose()

    async def end(self) -> None:
        """Close every connection, also those that somebody still holds: nobody can use them after the loop's end."""
        records = [record for record in list(self._records) if record.dbapi_connection is not None]
        transports = [_transport(record.driver_connection) for record in records]
        await self.dispose()
        for record in records:
            if record.dbapi_connection is not None:
                await _within(PATIENCE, greenlet_spawn(record.invalidate))
        # A closed TLS connection waits for the server's farewell, which the loop would not live to see.
        for transport in transports:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)


def _transport(connection: Any) -> asyncio.WriteTransport | None:
    """Return what a driver's connection writes to; None where the driver does not use asyncio's transports."""
    writer = getattr(connection, "_writer", None)  # aiomysql
    found: asyncio.WriteTransport | None = getattr(writer or connection, "_transport", None)  # asyncpg, asyncmy
    return found


async def _within(seconds: float, closing: Coroutine[Any, Any, None]) -> None:
    """Wait for a close, but not for ever, as aiosqlite would after one that was cancelled."""
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


def _close_on_return(connection: Any, record: ConnectionPoolEntry) -> None:
    if connection is not None:
        record.invalidate()


async def _other_generators() -> None:
    """Let the other asynchronous generators of a loop that ends be closed first."""
    current = asyncio.current_task()
    others = [each for each in asyncio.all_tasks() if each is not current and not _shuts_down(each)]
    if others:
        await asyncio.wait(others, timeout=PATIENCE)


def _shuts_down(task: asyncio.Task[Any]) -> bool:
    """Whether a task is the one that waits for us: `loop.shutdown_asyncgens()`, of asyncio or uvloop."""
    return getattr(task.get_coro(), "__name__", "") == "shutdown_asyncgens"


class LoopEnd:
    """What closes when an event loop ends.

    It belongs to the loop, not to a registry: an engine outlives a registry that nobody has kept.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.over = False
        self.owners: weakref.WeakSet[LoopEngines] = weakref.WeakSet()
        self._loop = weakref.ref(loop)
        self._opened: dict[Engine, OpenEngine] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._guard: AsyncGenerator[None, None] | None = self._until_the_end()
        # Run up to its `yield`, without waiting: that makes the loop know it, and close it before it closes itself.
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
            # Also closed now are generators that hold sessions. Two closes of one connection at once, theirs and ours,
            # would wait for each other for ever with aiosqlite.
            await _other_generators()
            for opened in self.take():
                await opened.end()

    def open(self, engine: Engine) -> AsyncEngine:
        """Return the asynchronous engine of an engine, which ends with the loop, or when nobody uses it any more."""
        opened = self._opened[engine] = OpenEngine(engine)
        found = AsyncEngine(engine)
        weakref.finalize(found, self._soon, opened).atexit = False
        return found

    def of(self, engine: AsyncEngine) -> OpenEngine | None:
        return self._opened.get(engine.sync_engine)

    def _soon(self, opened: OpenEngine) -> None:
        """Let go of an engine that was collected, from whatever thread that happened in."""
        loop = self._loop()
        if loop is not None and not loop.is_closed() and opened.engine in self._opened:
            loop.call_soon_threadsafe(self._let_go, opened)

    def _let_go(self, opened: OpenEngine) -> None:
        self.discard(opened)
        self.retire(opened)

    def retire(self, opened: OpenEngine) -> None:
        """Let the connections of an engine close, those in use when they come back. In the loop's own thread."""
        closing = asyncio.ensure_future(opened.retire())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def discard(self, opened: OpenEngine) -> None:
        self._opened.pop(opened.engine, None)

    def take(self) -> list[OpenEngine]:
        """Forget everything; whoever takes the engines ends them."""
        self.over, self._guard = True, None  # the guard refers to the loop, which would never be collected
        for owner in list(self.owners):
            owner.forget()
        found, self._opened = list(self._opened.values()), {}
        return found

    def abandon(self) -> None:
        """Let go of the sockets of a loop that was closed without its `shutdown_asyncgens`: nothing can be awaited."""
        for opened in self.take():
            opened.engine.dispose(close=False)


def _no_loop() -> str:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return (
            "asynchronous engines need asyncio, and this runs under trio: "
            "use db.session() in a thread, or run the application on asyncio"
        )
    return (
        "an asynchronous engine belongs to the event loop that uses it, and none is running here: "
        "call this in a coroutine, not at import"
    )


_ends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopEnd] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
# Of the parent process. Kept, not collected: a driver that is collected says good-bye to the server over the socket
# that the parent goes on using.
_inherited: list[object] = []


def _end_of_this_loop() -> LoopEnd:
    loop = asyncio.get_running_loop()
    with _lock:
        for ended in [other for other in _ends if other.is_closed()]:
            _ends.pop(ended).abandon()
        found = _ends.get(loop)
        if found is None or found.over:
            found = _ends[loop] = LoopEnd(loop)
        return found


def _leave_to_the_parent() -> None:
    global _ends, _lock
    _inherited.append(_ends)
    _ends, _lock = weakref.WeakKeyDictionary(), threading.Lock()


forks.after_fork_in_child(_leave_to_the_parent)


class Tasks:
    """The style of an event loop.

    asyncpg, asyncmy and aiomysql cannot use a connection in another loop than the one that opened it.
    """

    asynchronous = True

    def __init__(self, end: LoopEnd) -> None:
        self.end = end

    def adopt(self, engine: Engine) -> AsyncEngine:
        return self.end.open(engine)

    def bare(self, engine: AsyncEngine) -> Engine:
        return engine.sync_engine

    factory = staticmethod(AsyncSessionFactory.of)
    readers = staticmethod(routing.open_async_readers)
    readers_over_several = staticmethod(async_readers_over_several)


class EventLoops:
    """The engines of a registry, by event loop; only the loop's own thread comes to them."""

    def __init__(self, plan: Plan, memory: ProcessEngines) -> None:
        self._plan = plan
        self._memory = memory
        self._known: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[LoopEngines, LoopEnd]] = (
            weakref.WeakKeyDictionary()
        )

    def here(self) -> LoopEngines:
        """Return the engines of the running loop, which knows them from now on.

        Raises:
            RuntimeError: no loop is running.
        """
        found = self._current()
        return self._begin() if found is None or found[1].over else found[0]

    def _current(self) -> tuple[LoopEngines, LoopEnd] | None:
        try:
            return self._known.get(asyncio.get_running_loop())
        except RuntimeError:
            raise RuntimeError(_no_loop()) from None

    def _begin(self) -> LoopEngines:
        end = _end_of_this_loop()
        made: LoopEngines = Engines(self._plan, Tasks(end), self._memory)
        end.owners.add(made)
        with self._plan.profiles.lock:
            self._known[asyncio.get_running_loop()] = made, end
        return made

    async def dispose(self, timeout: float | None) -> None:
        """Close the engines of the running loop; a cancelled caller does not stop it half way."""
        found = self._current()
        if found is None:
            if timeout is not None:
                draining.check(timeout)
            return
        engines, end = found
        alive = [opened for opened in map(end.of, engines.alive()) if opened is not None]
        if timeout is None:
            engines.forget()
            for opened in alive:
                await asyncio.shield(opened.dispose())
            return
        draining.check(timeout)
        engines.forget()
        await asyncio.shield(draining.async_drain(alive, timeout))
        for opened in alive:
            end.discard(opened)

    def renew(self) -> None:
        """Let every loop make its engines anew; from whatever thread."""

        def renew(engines: LoopEngines, end: LoopEnd) -> None:
            engines.forget()
            for engine in engines.alive():
                opened = end.of(engine)
                engines.retire(engine)
                if opened is not None:
                    end.retire(opened)

        self._everywhere(renew)

    def forget_sessions(self) -> None:
        """Let every loop make its sessions anew."""
        self._everywhere(lambda engines, end: engines.forget_sessions())

    def _everywhere(self, change: Callable[[LoopEngines, LoopEnd], None]) -> None:
        """Change the engines of every loop, each in its own thread: at once in this one, else as soon as it can."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        with self._plan.profiles.lock:
            known = list(self._known.items())
        for loop, (engines, end) in known:
            if loop is here:
                change(engines, end)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(change, engines, end)

    def leave_to_the_parent(self) -> None:
        """In a forked child: the parent's event loop does not run here."""
        _inherited.append(self._known)
        self._known = weakref.WeakKeyDictionary()
