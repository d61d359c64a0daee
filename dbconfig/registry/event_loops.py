"""Asynchronous engines: made in an event loop, kept for it alone, closed when it ends."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import greenlet  # noqa: F401  # missing, SQLAlchemy 2.0 says so at the first await only
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from dbconfig.sessions.sessionmaker import AsyncReaders, AsyncSessionFactory

T = TypeVar("T")
Key = tuple[str | None, str]  # profile and database
Make = Callable[[Key], tuple[Key, Callable[["LoopEngines"], T]]]


class OpenEngine:
    """An engine of an event loop, and every connection that it has opened."""

    def __init__(self, engine: Engine) -> None:
        self.engine = AsyncEngine(engine)
        self._records: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        event.listen(engine, "connect", lambda connection, record: self._records.add(record))

    async def end(self) -> None:
        """Close every connection, also those that somebody still holds: nobody can use them after the loop's end."""
        records = [record for record in list(self._records) if record.dbapi_connection is not None]
        transports = [_transport(record.driver_connection) for record in records]
        await self.engine.dispose()
        for record in records:
            if record.dbapi_connection is not None:
                await greenlet_spawn(record.invalidate)
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


def _close_on_return(connection: Any, record: ConnectionPoolEntry) -> None:
    if connection is not None:
        record.invalidate()


class LoopEngines:
    """The engines of one event loop, which go with it.

    asyncpg, asyncmy and aiomysql cannot use a connection in another loop than the one that opened it.
    """

    def __init__(self) -> None:
        # Read without a lock: only the loop's own thread comes here.
        self.engines: dict[Key, AsyncEngine] = {}
        self.factories: dict[Key, AsyncSessionFactory] = {}
        self.readers: dict[Key, AsyncReaders] = {}
        self.servers: dict[Key, AsyncReaders] = {}  # what `readers` is made of: the engines, each database by itself
        # By tests.
        self.overrides: dict[Key, AsyncSessionFactory] = {}
        self.reading_overrides: dict[Key, AsyncReaders] = {}
        self._opened: list[OpenEngine] = []
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
            self._guard = None  # it refers to its loop, which would never be collected
            for opened in self.take():
                await opened.end()

    def open(self, engine: Engine) -> AsyncEngine:
        """Return the asynchronous engine of an engine, which ends with the loop."""
        self._opened.append(OpenEngine(engine))
        return self._opened[-1].engine

    def engine(self, key: Key, build: Callable[[], Engine]) -> AsyncEngine:
        """Return the engine of a profile and database, making it at first use."""
        if key not in self.engines:
            self.engines[key] = self.open(build())
        return self.engines[key]

    def unbind(self, database: str) -> None:
        """Make the sessions of a database anew, on the same engines: where their tables are has changed."""
        kept: dict[Key, Any]
        for kept in (self.factories, self.readers):
            for key in [key for key in list(kept) if key[1] == database]:
                kept.pop(key, None)

    def take(self) -> list[OpenEngine]:
        """Forget the engines; whoever takes them closes them."""
        for readers in self.servers.values():
            if readers.router is not None:
                readers.router.rest()
        self.engines, self.factories, self.readers, self.servers = {}, {}, {}, {}
        found, self._opened = self._opened, []
        return found

    async def dispose(self) -> None:
        """Close every idle connection and forget the engines; a cancelled caller does not stop it half way."""
        for opened in self.take():
            await asyncio.shield(opened.engine.dispose())

    def renew(self) -> None:
        """Forget the engines; their connections close, those in use when they come back. In the loop's own thread."""
        for opened in self.take():
            event.listen(opened.engine.sync_engine, "checkin", _close_on_return)
            closing = asyncio.ensure_future(opened.engine.dispose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that was closed without its `shutdown_asyncgens`: nothing can be awaited."""
        for opened in self.take():
            opened.engine.sync_engine.dispose(close=False)


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


class Loops:
    """The engines of a registry, by event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopEngines] = weakref.WeakKeyDictionary()

    def current(self) -> LoopEngines | None:
        """Return the engines of the running loop; None if it has none yet.

        Raises:
            RuntimeError: no loop is running.
        """
        try:
            return self._engines.get(asyncio.get_running_loop())
        except RuntimeError:
            raise RuntimeError(_no_loop()) from None

    def renew(self) -> None:
        """Let every loop make its engines anew; from whatever thread."""
        for loop, engines in list(self._engines.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(engines.renew)

    def unbind(self, database: str) -> None:
        """Make the sessions of a database anew in every loop."""
        for engines in list(self._engines.values()):
            engines.unbind(database)

    def factory(self, key: Key, make: Make[AsyncSessionFactory]) -> AsyncSessionFactory:
        """Return the running loop's factory of a profile and database, making it at first use.

        Args:
            key: as it was asked for; a profile of None is the registry's own.
            make: says under which name a factory is kept, and how it is made.
        """
        engines = self.of_this_loop
        return engines.overrides.get(key) or _kept(engines.factories, key, make, engines)

    def readers(self, key: Key, make: Make[AsyncReaders]) -> AsyncReaders:
        """Return the same of what makes its reading sessions."""
        engines = self.of_this_loop
        return engines.reading_overrides.get(key) or _kept(engines.readers, key, make, engines)

    @property
    def of_this_loop(self) -> LoopEngines:
        """The engines of the running loop, which knows them from now on."""
        return self.current() or self._begin()

    def _begin(self) -> LoopEngines:
        loop = asyncio.get_running_loop()
        with self._lock:
            for ended in [other for other in self._engines if other.is_closed()]:
                self._engines.pop(ended).abandon()
            return self._engines.setdefault(loop, LoopEngines())


def _kept(kept: dict[Key, T], key: Key, make: Make[T], engines: LoopEngines) -> T:
    found = kept.get(key)
    if found is None:
        own, build = make(key)
        found = kept.get(own) or build(engines)
        kept[own] = kept[key] = found
    return found
