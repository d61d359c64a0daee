"""The contenders, all with the same sizes: stock pools, and ours with its defaults."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from tests.engine.pool.support import JUDGE, Settings, engine_of

SIZES = ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo")


def _connect_args(url: str) -> dict[str, Any]:
    # PyMySQL makes an SSL context for each connection, 25 ms that would drown everything else.
    return {"connect_args": {"ssl_disabled": True}} if url.startswith("mysql") else {}


def stock(url: str, *, pre_ping: bool = False, **settings: Any) -> Engine:
    sizes = {key: value for key, value in settings.items() if key in SIZES}
    return create_engine(url, poolclass=QueuePool, pool_pre_ping=pre_ping, **sizes, **_connect_args(url))


def no_pool(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, **_connect_args(url))


def ours(url: str, **settings: Any) -> Engine:
    return engine_of(url, create=_connect_args(url), **settings)


def async_stock(url: str, *, pre_ping: bool = False, **settings: Any) -> AsyncEngine:
    sizes = {key: value for key, value in settings.items() if key in SIZES}
    return create_async_engine(url, pool_pre_ping=pre_ping, **sizes)


def async_ours(url: str, **settings: Any) -> AsyncEngine:
    chosen = Settings(**settings)
    arguments = dbconfig_pool.pool_arguments(chosen, name="testing/default", is_async=True, judge=JUDGE)
    engine = create_async_engine(url, **arguments)
    driver = driver_protocol.of(engine.dialect)
    dbconfig_pool.attach(engine.sync_engine, chosen, name="testing/default", judge=JUDGE, driver=driver)
    return engine
