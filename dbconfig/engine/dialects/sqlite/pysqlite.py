"""sqlite3 of the standard library: its answers to what the engine half asks of a driver."""

from __future__ import annotations

from typing import Any

from dbconfig.engine.dialects.driver_protocol import Driver


class Pysqlite(Driver):
    """The driver sqlite3: a file, and nobody on the other side."""

    interrupts = True
    tells_transactions = True

    def interrupt(self, connection: Any) -> None:
        connection.interrupt()

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)


DRIVER = Pysqlite()
