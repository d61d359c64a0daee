"""The common part of MySQL's drivers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.pool.driver import Parameters, in_time

# Bits of the status in the server's answers. With autocommit on, the answer to the statement that begins a transaction
# reports it; without autocommit, a SELECT begins one and the status does not show it.
_IN_TRANSACTION: Final = 1
_AUTOCOMMIT: Final = 2
_READ_ONLY: Final = 0x2000
_INTERRUPTED: Final = 1317  # ER_QUERY_INTERRUPTED


class MySQLDriver(Driver):
    """A driver that knows the ID of its session, and keeps the server's last status."""

    tells_transactions = True
    buffers_rows = True
    statement_methods = ("query",)

    def number(self, connection: Any) -> int:
        return int(connection.thread_id())

    def cancel(self, cursor: Any, beside: Any, number: int) -> None:
        cursor.execute(f"KILL QUERY {number:d}")

    def was_cancelled(self, error: BaseException) -> bool:
        return error.args[:1] == (_INTERRUPTED,)

    def in_transaction(self, connection: Any) -> bool:
        if getattr(connection, "clean", False):  # nothing was sent since the last COMMIT or ROLLBACK: see `Tracking`
            return False
        status = connection.server_status
        return bool(status & _IN_TRANSACTION) or not status & _AUTOCOMMIT

    def may_write(self, connection: Any) -> bool:
        return bool(connection.server_status & (_IN_TRANSACTION | _READ_ONLY) == _IN_TRANSACTION)

    def is_open(self, connection: Any) -> bool:
        return self.says_open(connection)

    def says_open(self, answer: Any) -> bool:
        """Return whether a transaction is open, according to the status in an answer."""
        return bool(answer.server_status & _IN_TRANSACTION)

    def password(self, text: str) -> str:
        # It encodes text as Latin-1, the server wants UTF-8, and not every fork of PyMySQL accepts bytes.
        return text.encode().decode("latin-1")


class AsynchronousMySQLDriver(MySQLDriver, ABC):
    """A fork of PyMySQL for asyncio."""

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        connect = parameters.written("async_creator_fn") or self.connect(dialect)
        parameters.set("async_creator_fn", in_time(connect, seconds))

    @abstractmethod
    def connect(self, dialect: Any) -> Callable[..., Awaitable[Any]]:
        """Return the driver's own coroutine function that SQLAlchemy would call."""

    def transport(self, connection: Any) -> asyncio.WriteTransport | None:
        found: asyncio.WriteTransport | None = connection._transport
        return found
