"""sqlite3 of the standard library: its implementation of the driver interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.dialects.sqlite import deadline
from dbconfig.engine.dialects.sqlite.connection import Connection, driver_of
from dbconfig.engine.dialects.sqlite.transactions import is_open


class Pysqlite(Driver):
    """The driver sqlite3: a file instead of a server."""

    interrupts = True
    tells_transactions = True

    def interrupt(self, connection: Any) -> None:
        connection.interrupt()

    def was_cancelled(self, error: BaseException) -> bool:
        return deadline.was_interrupted(error)

    def run_until(self, connection: Any, when: float | None) -> None:
        found = driver_of(connection)
        if isinstance(found, Connection) and (when is not None or found.until is not None):
            deadline.run_until(found, when)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    def is_open(self, connection: Any) -> bool:
        return is_open(connection)

    def ask_before_ends(self, connection: Any, ask: Callable[[str], None]) -> None:
        driver_of(connection).ask = ask


DRIVER = Pysqlite()
