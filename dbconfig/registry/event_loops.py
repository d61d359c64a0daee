"""Asynchronous engines: created in an event loop, used only there, and closed when it ends."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import greenlet  # noqa: F401  # if it is missing, SQLAlchemy 2.0 fails only at the first await
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig.engine import draining
from dbconfig.engine.pool import PoolStats
from dbconfig.registry.engines import Engines, ProcessEngines
from dbconfig.registry.loop_end import LoopEnd, end_of_this_loop, keep_inherited
from dbconfig.registry.styles import Plan
from dbconfig.replicas import readers
from dbconfig.sessions.sessionmaker import AsyncSessionFactory, Readers, async_readers_over_several

LoopEngines = Engines[AsyncEngine, AsyncSessionFactory, Readers[AsyncSession]]


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


class Tasks:
    """The style of an event loop.

    Most drivers can use a connection only in the loop that opened it.
    """

    asynchronous = True

    def __init__(self, end: LoopEnd) -> None:
        self.end = end

    def later(self, key: object, job: Callable[[], float | None], seconds: float) -> None:
        """Call a function in this loop after some seconds, and again after the seconds that it returns."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            again = job()
            if again is not None:
                loop.call_later(again, run)

        loop.call_later(seconds, run)

    def close(self, engines: Sequence[Engine]) -> None:
        """Close idle connections; the engines stay usable, and are released when they are unreferenced."""
        for engine in engines:
            self.end.rest(engine)

    def adopt(self, engine: Engine) -> AsyncEngine:
        return self.end.open(engine)

    def bare(self, engine: AsyncEngine) -> Engine:
        return engine.sync_engine

    factory = staticmethod(AsyncSessionFactory.of)
    readers = staticmethod(readers.open_async_readers)
    readers_over_several = staticmethod(async_readers_over_several)


class EventLoops:
    """The engines of a registry, by event loop; only the loop's own thread uses them."""

    def __init__(self, plan: Plan, memory: ProcessEngines) -> None:
        self._plan = plan
        self._memory = memory
        self._known: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[LoopEngines, LoopEnd]] = (
            weakref.WeakKeyDictionary()
        )

    def here(self) -> LoopEngines:
        """Return the engines of the running loop, which are registered with it from now on.

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

    def of_the_running_one(self) -> LoopEngines | None:
        """Return the engines of the running loop, if it has any."""
        try:
            found = self._known.get(asyncio.get_running_loop())
        except RuntimeError:
            return None
        return found[0] if found is not None and not found[1].over else None

    def stats(self) -> list[PoolStats]:
        """Return the statistics of the pools of every loop; their names say which one it is."""
        with self._plan.profiles.lock:
            known = list(self._known.values())
        return [
            replace(each, name=f"{each.name}, event loop {end.number}")
            for engines, end in known
            for each in engines.stats()
        ]

    def alive(self) -> list[Engine]:
        """Return the synchronous side of every engine in use, in any loop."""
        with self._plan.profiles.lock:
            known = list(self._known.values())
        return [engine.sync_engine for engines, _ in known for engine in engines.alive()]

    def _begin(self) -> LoopEngines:
        end = end_of_this_loop()
        made: LoopEngines = Engines(self._plan, Tasks(end), self._memory)
        end.owners.add(made)
        with self._plan.profiles.lock:
            self._known[asyncio.get_running_loop()] = made, end
        return made

    async def dispose(self, timeout: float | None) -> None:
        """Close the engines of the running loop; cancelling the caller does not interrupt this."""
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
        """Make every loop recreate its engines; callable from any thread."""

        def renew(engines: LoopEngines, end: LoopEnd) -> None:
            engines.forget()
            for engine in engines.alive():
                opened = end.of(engine)
                engines.retire(engine)
                if opened is not None:
                    end.retire(opened)

        self._everywhere(renew)

    def forget_sessions(self) -> None:
        """Make every loop recreate its session factories."""
        self._everywhere(lambda engines, end: engines.forget_sessions())

    def _everywhere(self, change: Callable[[LoopEngines, LoopEnd], None]) -> None:
        """Change the engines of every loop, each in its own thread: now in this one, in others as soon as possible."""
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
        keep_inherited(self._known)
        self._known = weakref.WeakKeyDictionary()
