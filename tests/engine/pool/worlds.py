"""Threads and tasks, with the same verbs, so that what a pool must survive is tested with both."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dbconfig.engine import create
from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool import sockets
from tests.engine.pool.support import DRIVERS, JUDGE, Settings, callers, engine_of
from tests.support.loop_thread import LoopThread

NAME = "testing/default"


class Threads:
    """An engine that threads use."""

    drivers: ClassVar[dict[str, str]] = DRIVERS

    def __init__(self, url: str, **settings: Any) -> None:
        self.engine: Engine = engine_of(url, **settings)

    def select(self, statement: str = "SELECT 1") -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    def take(self) -> Any:
        connection = self.engine.connect()
        connection.execute(text("SELECT 1"))
        return connection

    def execute(self, connection: Any, statement: str) -> None:
        connection.execute(text(statement))

    def give(self, connection: Any) -> None:
        connection.close()

    def descriptor(self, connection: Any) -> int | None:
        return sockets.descriptor(self.engine.dialect, connection.connection.driver_connection)

    def together(self, count: int, times: int, statement: str = "SELECT 1") -> list[BaseException]:
        """Let many callers each ask so many times, all at once; return their errors."""

        def work() -> None:
            for _ in range(times):
                self.select(statement)

        with callers(count) as run:
            errors = [future.exception(120) for future in [run(work) for _ in range(count)]]
        return [error for error in errors if error is not None]

    def shares(self, count: int, total: int) -> list[int]:
        """Let callers ask until there have been so many checkouts; return how many each got."""
        shares = [0] * count

        def work(number: int) -> None:
            while sum(shares) < total:
                self.select()
                shares[number] += 1

        with callers(count) as run:
            for future in [run(work, number) for number in range(count)]:
                future.result(120)
        return shares

    @contextmanager
    def waiting(self) -> Iterator[Callable[[], Any]]:
        """Let somebody ask; yield what returns the answer."""
        with callers(1) as run:
            future = run(self.select)
            yield lambda: future.result(60)

    def drop(self) -> None:
        """Take a connection and forget it."""
        connection = self.engine.raw_connection()
        del connection
        gc.collect()

    def fail(self, statement: str, error: Exception) -> None:
        """Raise in a transaction."""
        with self.engine.begin() as connection:
            connection.execute(text(statement))
            raise error

    def leave(self, statement: str) -> None:
        """Leave a transaction without its end."""
        with self.engine.connect() as connection:
            connection.execute(text(statement))

    def write(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def dispose(self) -> None:
        self.engine.dispose()

    def close(self) -> None:
        self.dispose()

    def warm(self, count: int) -> list[int]:
        """Open so many connections; return the descriptors of their sockets."""
        connections = [self.take() for _ in range(count)]
        found = [self.descriptor(connection) for connection in connections]
        for connection in connections:
            self.give(connection)
        return [descriptor for descriptor in found if descriptor is not None]

    def burst(self, count: int = 8) -> list[BaseException]:
        """Let many callers ask at once; return their errors."""
        return self.together(count, 1)


class Tasks(Threads):
    """An asynchronous engine, which the tasks of one loop use."""

    drivers: ClassVar = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}

    def __init__(self, url: str, **settings: Any) -> None:
        self.loop = LoopThread()
        self.asynchronous: AsyncEngine = self.loop.run(self._make(url, settings))
        self.engine = self.asynchronous.sync_engine

    @staticmethod
    async def _make(url: str, settings: dict[str, Any]) -> AsyncEngine:
        create.check_version()
        chosen = Settings(**settings)
        arguments = dbconfig_pool.pool_arguments(chosen, name=NAME, patient=True, is_async=True, judge=JUDGE)
        made = create_async_engine(url, **arguments)
        driver = driver_protocol.of(made.dialect)
        dbconfig_pool.attach(made.sync_engine, chosen, name=NAME, judge=JUDGE, driver=driver)
        return made

    async def _select(self, statement: str) -> Any:
        async with self.asynchronous.connect() as connection:
            return (await connection.execute(text(statement))).scalar()

    def select(self, statement: str = "SELECT 1") -> Any:
        return self.loop.run(self._select(statement))

    async def _take(self) -> AsyncConnection:
        connection = await self.asynchronous.connect()
        await connection.execute(text("SELECT 1"))
        return connection

    def take(self) -> Any:
        return self.loop.run(self._take())

    def execute(self, connection: Any, statement: str) -> None:
        self.loop.run(connection.execute(text(statement)))

    def give(self, connection: Any) -> None:
        self.loop.run(connection.close())

    def descriptor(self, connection: Any) -> int | None:
        async def find() -> int | None:
            raw = await connection.get_raw_connection()
            return sockets.descriptor(self.engine.dialect, raw.driver_connection)

        return self.loop.run(find())

    def together(self, count: int, times: int, statement: str = "SELECT 1") -> list[BaseException]:
        async def work() -> None:
            for _ in range(times):
                await self._select(statement)

        async def everybody() -> list[Any]:
            return await asyncio.gather(*(work() for _ in range(count)), return_exceptions=True)

        return [each for each in self.loop.run(everybody()) if each is not None]

    def shares(self, count: int, total: int) -> list[int]:
        shares = [0] * count

        async def work(number: int) -> None:
            while sum(shares) < total:
                await self._select("SELECT 1")
                shares[number] += 1

        async def everybody() -> None:
            await asyncio.gather(*(work(number) for number in range(count)))

        self.loop.run(everybody())
        return shares

    @contextmanager
    def waiting(self) -> Iterator[Callable[[], Any]]:
        future = self.loop.submit(self._select("SELECT 1"))
        yield lambda: future.result(60)

    def drop(self) -> None:
        async def drop() -> None:
            await (await self.asynchronous.connect()).get_raw_connection()

        def dropped() -> None:
            self.loop.run(drop())
            gc.collect()

        with warnings.catch_warnings():
            # SQLAlchemy cannot cut psycopg's connection without an await, and drops it; psycopg says so, too.
            warnings.filterwarnings(
                "ignore", r"<psycopg\.AsyncConnection .* was deleted while still open", ResourceWarning
            )
            with pytest.warns(SAWarning, match="garbage collector is trying to clean up"):
                dropped()

    def fail(self, statement: str, error: Exception) -> None:
        async def fail() -> None:
            async with self.asynchronous.begin() as connection:
                await connection.execute(text(statement))
                raise error

        self.loop.run(fail())

    def leave(self, statement: str) -> None:
        async def leave() -> None:
            async with self.asynchronous.connect() as connection:
                await connection.execute(text(statement))

        self.loop.run(leave())

    def write(self, statement: str) -> None:
        async def write() -> None:
            async with self.asynchronous.begin() as connection:
                await connection.execute(text(statement))

        self.loop.run(write())

    def dispose(self) -> None:
        self.loop.run(self.asynchronous.dispose())

    def close(self) -> None:
        try:
            self.dispose()
        finally:
            self.loop.close()


class OtherTasks(Tasks):
    """The same with the other drivers."""

    drivers: ClassVar = {"postgresql": "postgresql+psycopg", "mysql": "mysql+aiomysql"}


WORLDS: dict[str, type[Threads]] = {"threads": Threads, "tasks": Tasks, "other tasks": OtherTasks}
World = Callable[..., AbstractContextManager[Threads]]


def opener(kind: type[Threads]) -> World:
    """Return what opens an engine on a server, perhaps through a proxy, for the length of a block."""

    @contextmanager
    def opened(server: Any, at: Any = None, **settings: Any) -> Iterator[Threads]:
        made = kind(world_url(kind, server, at), **settings)
        try:
            yield made
        finally:
            made.close()

    return opened


def world_url(kind: type[Threads], server: Any, at: Any = None) -> str:
    if isinstance(server, str):  # the address of none that we have started
        return f"{kind.drivers['postgresql']}://{server}"
    driver = kind.drivers["postgresql" if server.driver.startswith("postgres") else "mysql"]
    pytest.importorskip(driver.partition("+")[2])
    place = {} if at is None else {"host": at.host, "port": at.port}
    return str(server.url(driver, **place))
