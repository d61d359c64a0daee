"""The common part of MySQL's drivers."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.pool.driver import Left, Parameters, in_time

# Bits of the status in the server's answers. With autocommit on, the answer to the statement that begins a transaction
# reports it; without autocommit, a SELECT begins one and the status does not show it.
_IN_TRANSACTION: Final = 1
_AUTOCOMMIT: Final = 2
_READ_ONLY: Final = 0x2000
_INTERRUPTED: Final = 1317  # ER_QUERY_INTERRUPTED
_NO_SUCH_THREAD: Final = 1094  # ER_NO_SUCH_THREAD
_COMPARED: Final = 200  # characters
_HIDDEN: Final = re.compile(r"[^\x21-\x7e]")  # what a server may display differently


class MySQLDriver(Driver):
    """A driver that knows the ID of its session, and keeps the server's last status."""

    tells_transactions = True
    buffers_rows = True
    statement_methods = ("query",)

    def number(self, connection: Any) -> int:
        return int(connection.thread_id())

    def cancel(self, cursor: Any, beside: Any, number: int) -> None:
        _kill(cursor, f"KILL QUERY {number:d}")

    def leave(self, connection: Any) -> Left:
        return Left(beginning(getattr(connection, "under_way", None) or ""))

    def end(self, cursor: Any, beside: Any, number: int, left: Left) -> bool:
        if not left.statement:
            return True
        cursor.execute("SHOW FULL PROCESSLIST")
        running = {row[0]: row[7] for row in cursor.fetchall()}
        if number not in running:
            return True
        if running[number] is None:  # the statement has not begun
            return False
        # A load balancer may have led to another server, where the ID is another client's.
        if beginning(running[number]) == left.statement:
            _kill(cursor, f"KILL {number:d}")
        return True

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


def beginning(statement: str | bytes | bytearray) -> str:
    """Return the beginning of a statement, in a form in which two can be compared."""
    text = statement[: 4 * _COMPARED]
    return _HIDDEN.sub("", text if isinstance(text, str) else text.decode("ascii", "replace"))[:_COMPARED]


def _kill(cursor: Any, words: str) -> None:
    try:
        cursor.execute(words)
    except Exception as error:
        if error.args[:1] != (_NO_SUCH_THREAD,):
            raise


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
