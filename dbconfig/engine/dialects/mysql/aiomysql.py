"""aiomysql: its implementation of the driver interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from aiomysql import connection
from pymysql.constants import CLIENT

from dbconfig.engine.dialects.mysql.driver import AsynchronousMySQLDriver

if TYPE_CHECKING:
    from sqlalchemy import Engine

_CONNECT: Final = connection.connect


class _Connection(connection.Connection):  # type: ignore[misc]  # it has no types
    """A connection that requests TLS only if the server offers it: otherwise MySQL aborts the handshake."""

    async def _request_authentication(self) -> None:
        if not self.server_capabilities & CLIENT.SSL:
            self.client_flag &= ~CLIENT.SSL
        await super()._request_authentication()


async def _connect(*arguments: Any, **keywords: Any) -> Any:
    try:
        made = _Connection(*arguments, **keywords)
    finally:
        keywords.clear()  # no traceback frame may hold the password
    await made._connect()
    return made


def take_tls_as_offered(engine: Engine) -> None:
    """Make an engine use our connections, also if its connects have no time limit."""
    dialect: Any = engine.dialect
    connect = dialect.connect

    def connect_ours(*arguments: Any, **keywords: Any) -> Any:
        keywords.setdefault("async_creator_fn", DRIVER.connect(dialect))
        try:
            return connect(*arguments, **keywords)
        finally:
            keywords.clear()

    dialect.connect = connect_ours


class Aiomysql(AsynchronousMySQLDriver):
    """The driver aiomysql, which writes through a stream."""

    package = "aiomysql"

    def connect(self, dialect: Any) -> Callable[..., Awaitable[Any]]:
        connect: Callable[..., Awaitable[Any]] = dialect.loaded_dbapi.aiomysql.connect
        return _connect if connect is _CONNECT else connect  # a tracer's function that replaces it is called

    def transport(self, connection: Any) -> asyncio.WriteTransport | None:
        writer = connection._writer
        found: asyncio.WriteTransport | None = None if writer is None else writer.transport
        return found

    def forget(self, connection: Any) -> None:
        connection._writer = None  # its `__del__` would have the closed loop close it


DRIVER = Aiomysql()
