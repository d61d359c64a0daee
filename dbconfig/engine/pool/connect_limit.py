"""A connect ends in time, also for drivers whose own time limit does not cover all of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.record import Record

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


Apply = Callable[[Any, Any, "_Parameters", float], None]


class _Parameters:
    """The arguments of one connect, and what was written for them.

    SQLAlchemy 2.0 passes the same dictionary to every connect, so that a limit set for one caller's deadline would
    limit all who come later: each time we begin with what was there the first time.
    """

    def __init__(self, now: dict[str, Any], written: dict[str, Any]) -> None:
        self._now = now
        self._written = written

    def written(self, key: str) -> Any:
        return self._written.setdefault(key, self._now.get(key))

    def at_most(self, key: str, seconds: float) -> float:
        limit = min(float(self.written(key) or math.inf), seconds)
        self._now[key] = limit
        return limit

    def set(self, key: str, value: Any) -> None:
        self._now[key] = value


def _limit(engine: Engine, most: float, apply: Apply) -> None:
    written: dict[str, Any] = {}

    def do_connect(dialect: Any, record: Any, arguments: Any, parameters: dict[str, Any]) -> None:
        seconds = most
        if isinstance(record, Record):
            seconds = min(seconds, max(LEAST, record.deadline - monotonic()))
        apply(dialect, record, _Parameters(parameters, written), seconds)

    event.listen(engine, "do_connect", do_connect)


def _limit_libpq(dialect: Any, record: Any, parameters: _Parameters, seconds: float) -> None:
    parameters.set("connect_timeout", math.ceil(parameters.at_most("connect_timeout", seconds)))  # in whole seconds


def _limit_pymysql(dialect: Any, record: Any, parameters: _Parameters, seconds: float) -> None:
    # PyMySQL's connect_timeout ends when TCP is connected; a server that accepts and is mute would hold it for ever.
    parameters.at_most("connect_timeout", seconds)
    record.info[_HANDSHAKE] = parameters.written("read_timeout")
    parameters.at_most("read_timeout", seconds)


def _restore_pymysql(connection: Any, record: Any) -> None:
    if _HANDSHAKE in record.info:
        connection._read_timeout = record.info.pop(_HANDSHAKE)


def _limit_async(dialect: Any, record: Any, parameters: _Parameters, seconds: float) -> None:
    connect = parameters.written("async_creator_fn") or _driver_connect(dialect)
    if connect is None:
        return

    async def connect_in_time(*arguments: Any, **keywords: Any) -> Any:
        try:
            # Not wait_for, which on Python 3.11 loses a connection that is ready in the moment of a cancellation.
            async with asyncio.timeout(seconds):
                return await connect(*arguments, **keywords)
        finally:
            keywords.clear()  # error reporters print the local variables of a frame, and one is the password

    parameters.set("async_creator_fn", connect_in_time)


def _driver_connect(dialect: Any) -> Callable[..., Awaitable[Any]] | None:
    """Return the driver's own coroutine function that SQLAlchemy would call."""
    dbapi = dialect.loaded_dbapi
    for name in ("asyncpg", "aiomysql", "asyncmy"):
        driver = getattr(dbapi, name, None)
        if driver is not None:
            connect: Callable[..., Awaitable[Any]] = driver.connect
            return connect
    return None
