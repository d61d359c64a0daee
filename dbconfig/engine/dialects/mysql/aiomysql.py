"""aiomysql: its answers to what the engine half asks of a driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dbconfig.engine.dialects.mysql.driver import AsynchronousMySQLDriver


class Aiomysql(AsynchronousMySQLDriver):
    """The driver aiomysql, which writes by a stream."""

    package = "aiomysql"

    def connect(self, dialect: Any) -> Callable[..., Awaitable[Any]]:
        connect: Callable[..., Awaitable[Any]] = dialect.loaded_dbapi.aiomysql.connect
        return connect

    def transport(self, connection: Any) -> asyncio.WriteTransport | None:
        writer = connection._writer
        found: asyncio.WriteTransport | None = None if writer is None else writer.transport
        return found

    def forget(self, connection: Any) -> None:
        connection._writer = None  # its `__del__` would have the closed loop close it


DRIVER = Aiomysql()
