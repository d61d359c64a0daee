"""The contenders, all with the same sizes: stock pools, ours with its defaults, and those of the drivers' projects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

from dbconfig import Profile, Registry
from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from tests.engine.pool.support import JUDGE, Settings, engine_of

SIZES = ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo")


def connect_args_of(url: str) -> dict[str, Any]:
    # PyMySQL makes an SSL context for each connection, 25 ms that would drown everything else.
    return {"connect_args": {"ssl_disabled": True}} if url.startswith("mysql") else {}


def stock(url: str, *, pre_ping: bool = False, **settings: Any) -> Engine:
    sizes = {key: value for key, value in settings.items() if key in SIZES}
    return create_engine(url, poolclass=QueuePool, pool_pre_ping=pre_ping, **sizes, **connect_args_of(url))


def no_pool(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, **connect_args_of(url))


def ours(url: str, **settings: Any) -> Engine:
    return engine_of(url, create=connect_args_of(url), **settings)


def async_stock(url: str, *, pre_ping: bool = False, **settings: Any) -> AsyncEngine:
    sizes = {key: value for key, value in settings.items() if key in SIZES}
    return create_async_engine(url, pool_pre_ping=pre_ping, **sizes)


def async_ours(url: str, **settings: Any) -> AsyncEngine:
    chosen = Settings(**settings)
    arguments = dbconfig_pool.pool_arguments(chosen, name="testing/default", patient=True, is_async=True, judge=JUDGE)
    engine = create_async_engine(url, **arguments)
    driver = driver_protocol.of(engine.dialect)
    dbconfig_pool.attach(engine.sync_engine, chosen, name="testing/default", judge=JUDGE, driver=driver)
    return engine


# The asynchronous drivers, each with the server that it is for.
ASYNC_DRIVERS = {
    "asyncpg": ("postgresql", "postgresql+asyncpg"),
    "psycopg": ("postgresql", "postgresql+psycopg"),
    "asyncmy": ("mariadb", "mysql+asyncmy"),
    "aiomysql": ("mariadb", "mysql+aiomysql"),
}


@asynccontextmanager
async def async_engines(url: str, **settings: Any) -> AsyncIterator[dict[str, AsyncEngine]]:
    """Yield the contenders that are engines, open in this event loop; ours is the one that an application gets."""
    async with Registry.from_profile(Profile(name="benchmark", url=url, **settings)) as db:
        plain = {"stock": async_stock(url, **settings), "stock + pre-ping": async_stock(url, pre_ping=True, **settings)}
        try:
            yield plain | {"ours": db.async_engine()}
        finally:
            for engine in plain.values():
                await engine.dispose()


class NativePool:
    """A pool of a driver's own project, without SQLAlchemy."""

    def __init__(self, name: str, pool: Any, connects: list[int]) -> None:
        self.name = name
        self.connects = connects  # [how many connections have been made]
        self._pool = pool
        self._psycopg = name == "psycopg_pool"

    async def take(self) -> Any:
        return await (self._pool.getconn() if self._psycopg else self._pool.acquire(timeout=self._timeout))

    async def give(self, connection: Any) -> None:
        await (self._pool.putconn(connection) if self._psycopg else self._pool.release(connection))

    async def select(self) -> None:
        connection = await self.take()
        try:
            if self._psycopg:
                await (await connection.execute("SELECT 1")).fetchone()
            else:
                await connection.fetchval("SELECT 1")
        finally:
            await self.give(connection)

    _timeout: float | None = None

    async def open(self) -> None:
        if self._psycopg:
            await self._pool.open(wait=True)
        else:
            await self._pool

    async def close(self) -> None:
        if self._psycopg:
            await self._pool.close(timeout=1.0)
        else:
            self._pool.terminate()


def native_pool(
    driver: str,
    url: str,
    *,
    least: int,
    most: int,
    timeout: float = 30.0,
    connect: float = 0.0,
    check: bool = False,
) -> NativePool | None:
    """Return the pool of a driver's own project, None without one; a connect takes ``connect`` seconds longer."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connects = [0]
    if driver == "asyncpg":
        import asyncpg

        async def connect_slowly(*arguments: Any, **keywords: Any) -> Any:
            connects[0] += 1
            await asyncio.sleep(connect)
            return await asyncpg.connect(*arguments, **keywords)

        made = NativePool(
            "asyncpg.create_pool",
            asyncpg.create_pool(address, min_size=least, max_size=most, connect=connect_slowly),
            connects,
        )
        made._timeout = timeout
        return made
    if driver == "psycopg":
        import psycopg
        from psycopg_pool import AsyncConnectionPool

        class Slow(psycopg.AsyncConnection[Any]):
            @classmethod
            async def connect(cls, *arguments: Any, **keywords: Any) -> Any:
                connects[0] += 1
                await asyncio.sleep(connect)
                return await super().connect(*arguments, **keywords)

        pool = AsyncConnectionPool(
            address,
            min_size=least,
            max_size=most,
            timeout=timeout,
            open=False,
            connection_class=Slow,
            kwargs={"autocommit": True},  # else each return of a connection is a rollback, with a line in the log
            check=AsyncConnectionPool.check_connection if check else None,
        )
        return NativePool("psycopg_pool", pool, connects)
    return None
