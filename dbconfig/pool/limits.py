"""A connect ends in time, also for drivers whose own time limit does not cover all of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from .record import Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# Seconds that a connect gets even if its caller's deadline is nearer: less than this no driver understands.
LEAST = 1.0

_HANDSHAKE = "dbconfig.read_timeout"  # in record.info: PyMySQL's own limits, while ours are set


def limit_connect_time(engine: Engine, connect_timeout: float) -> None:
    """Bound each connect by ``connect_timeout`` and by what is left until the deadline of its caller."""
    dialect = engine.dialect
    if dialect.driver in ("psycopg2", "psycopg", "psycopg_async"):
        _limit(engine, connect_timeout, _limit_libpq)
    elif dialect.is_async:
        _limit(engine, connect_timeout, _limit_async)
    elif dialect.driver == "pymysql":
        _limit(engine, connect_timeout, _limit_pymysql)
        event.listen(engine, "connect", _restore_pymysql)


def _limit(engine: Engine, most: float, apply: Callable[[Any, Any, dict[str, Any], float], None]) -> None:
    def do_connect(dialect: Any, record: Any, arguments: Any, parameters: dict[str, Any]) -> None:
        seconds = most
        if isinstance(record, Record):
            seconds = min(seconds, max(LEAST, record.deadline - monotonic()))
        apply(dialect, record, parameters, seconds)

    event.listen(engine, "do_connect", do_connect)


def _limit_libpq(dialect: Any, record: Any, parameters: dict[str, Any], seconds: float) -> None:
    written = float(parameters.get("connect_timeout") or math.inf)
    parameters["connect_timeout"] = math.ceil(min(written, seconds))  # libpq takes whole seconds


def _limit_pymysql(dialect: Any, record: Any, parameters: dict[str, Any], seconds: float) -> None:
    # PyMySQL's connect_timeout ends when TCP is connected; a server that accepts and is mute would hold it for ever.
    parameters["connect_timeout"] = min(float(parameters.get("connect_timeout") or math.inf), seconds)
    record.info[_HANDSHAKE] = parameters.get("read_timeout")
    parameters["read_timeout"] = min(float(parameters.get("read_timeout") or math.inf), seconds)


def _restore_pymysql(connection: Any, record: Any) -> None:
    if _HANDSHAKE in record.info:
        connection._read_timeout = record.info.pop(_HANDSHAKE)


def _limit_async(dialect: Any, record: Any, parameters: dict[str, Any], seconds: float) -> None:
    connect = parameters.get("async_creator_fn") or _driver_connect(dialect)
    if connect is None:
        return

    async def connect_in_time(*arguments: Any, **keywords: Any) -> Any:
        return await asyncio.wait_for(connect(*arguments, **keywords), seconds)

    parameters["async_creator_fn"] = connect_in_time


def _driver_connect(dialect: Any) -> Callable[..., Awaitable[Any]] | None:
    """Return the driver's own coroutine function that SQLAlchemy would call."""
    dbapi = dialect.loaded_dbapi
    for name in ("asyncpg", "aiomysql", "asyncmy"):
        driver = getattr(dbapi, name, None)
        if driver is not None:
            connect: Callable[..., Awaitable[Any]] = driver.connect
            return connect
    return None
