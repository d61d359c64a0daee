"""aiosqlite: its implementation of the driver interface."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.dialects.sqlite import deadline
from dbconfig.engine.dialects.sqlite.aiosqlite_connection import connect
from dbconfig.engine.dialects.sqlite.connection import Connection, driver_of
from dbconfig.engine.dialects.sqlite.transactions import is_open
from dbconfig.engine.pool.driver import Parameters


class Aiosqlite(Driver):
    """The driver aiosqlite: sqlite3 in a separate thread."""

    package = "aiosqlite"
    interrupts = True
    tells_transactions = True
    buffers_rows = True

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        if parameters.written("async_creator_fn") is None:
            parameters.set("async_creator_fn", connect)

    def interrupt(self, connection: Any) -> Awaitable[None]:
        interrupted: Awaitable[None] = connection.interrupt()
        return interrupted

    def was_cancelled(self, error: BaseException) -> bool:
        return deadline.was_interrupted(error)

    def run_until(self, connection: Any, when: float | None) -> Awaitable[None] | None:
        found = driver_of(connection)
        if not isinstance(found, Connection) or (when is None and found.until is None):
            return None
        done: Awaitable[None] = connection._execute(deadline.run_until, found, when)  # in its thread
        return done

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    def is_open(self, connection: Any) -> bool:
        return is_open(connection)

    def ask_before_ends(self, connection: Any, ask: Callable[[str], None]) -> None:
        driver_of(connection).ask = ask


DRIVER = Aiosqlite()
