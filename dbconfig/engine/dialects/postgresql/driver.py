"""The common part of PostgreSQL's drivers."""

from __future__ import annotations

import math
from typing import Any, Final

from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.pool.driver import Parameters

# libpq's transaction status codes, the same in both drivers based on it.
_IDLE: Final = 0
_ACTIVE: Final = 1
_IN_ERROR: Final = 3
_QUERY_CANCELED: Final = "57014"
_IN_FAILED_TRANSACTION: Final = "25P02"


class PostgreSQLDriver(Driver):
    """A driver that knows the process ID of its server process."""

    tells_transactions = True
    buffers_rows = True

    def cancel(self, cursor: Any, beside: Any, number: int) -> None:
        # The same ID on both sides, so no pooler is in between, which would invent its own IDs.
        here = self.number(beside)
        cursor.execute(f"SELECT CASE WHEN pg_backend_pid() = {here:d} THEN pg_cancel_backend({number:d}) END")

    def end(self, cursor: Any, beside: Any, number: int, statement: str) -> bool:
        # Unlike a cancel request, the backend keeps this one. An ID may be used again, but not by one that is older.
        here = self.number(beside)
        cursor.execute(
            "SELECT pg_terminate_backend(abandoned.pid) FROM pg_stat_activity AS abandoned, pg_stat_activity AS own"  # noqa: S608  # numbers
            f" WHERE abandoned.pid = {number:d} AND own.pid = {here:d} AND own.pid = pg_backend_pid()"
            " AND abandoned.usesysid = own.usesysid AND abandoned.backend_start < own.backend_start"
        )
        return True

    def was_cancelled(self, error: BaseException) -> bool:
        return _QUERY_CANCELED in _codes(error)

    def was_in_failed_transaction(self, error: BaseException) -> bool:
        return _IN_FAILED_TRANSACTION in _codes(error)


def _codes(error: BaseException) -> tuple[Any, Any]:
    return getattr(error, "sqlstate", None), getattr(error, "pgcode", None)


class LibpqDriver(PostgreSQLDriver):
    """A driver based on libpq."""

    def plug(self, connection: Any) -> Any:
        return connection

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        # in whole seconds
        parameters.set("connect_timeout", math.ceil(parameters.at_most("connect_timeout", seconds)))

    def number(self, connection: Any) -> int:
        return int(connection.info.backend_pid)

    def awaits_answer(self, connection: Any) -> bool:
        return bool(connection.info.transaction_status == _ACTIVE)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.info.transaction_status != _IDLE)

    def in_failed_transaction(self, connection: Any) -> bool:
        return bool(connection.info.transaction_status == _IN_ERROR)
