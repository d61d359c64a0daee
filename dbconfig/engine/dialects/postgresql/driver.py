"""The common part of PostgreSQL's drivers."""

from __future__ import annotations

import math
from typing import Any, Final

from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.pool import births
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.driver import Left, Parameters

# libpq's transaction status codes, the same in both drivers based on it.
_IDLE: Final = 0
_ACTIVE: Final = 1
_IN_ERROR: Final = 3
_TOLERANCE: Final = 1.0  # seconds between two measurements of a connection's age
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

    def known_number(self, connection: Any) -> int | None:
        birth = births.of(connection)
        return super().known_number(connection) if birth is None else birth.number

    def leave(self, connection: Any) -> Left:
        birth = births.of(connection)
        return Left() if birth is None else Left(opened=(birth.begun, birth.opened))

    def end(self, cursor: Any, beside: Any, number: int, left: Left) -> bool:
        """Terminate it: unlike a cancel request, the backend keeps this one until it looks.

        The ID may be another connection's: one that began later, or at another server behind the same name. So its age
        must be that of the abandoned one; the clocks of server and client need not agree for that.
        """
        if left.opened is None:
            return True
        here, (begun, opened) = self.number(beside), (monotonic() - each for each in left.opened)
        cursor.execute(
            "SELECT CASE WHEN extract(epoch FROM clock_timestamp() - abandoned.backend_start)"  # noqa: S608  # numbers
            f" BETWEEN {opened - _TOLERANCE:f} AND {begun + _TOLERANCE:f} THEN pg_terminate_backend(abandoned.pid) END"
            " FROM pg_stat_activity AS abandoned, pg_stat_activity AS own"
            f" WHERE abandoned.pid = {number:d} AND own.pid = {here:d} AND own.pid = pg_backend_pid()"
            " AND abandoned.usesysid = own.usesysid AND abandoned.datid = own.datid"
        )
        # Measured once more if the ages differ: this process may have stood still for a moment.
        return all(row[0] is not None for row in cursor.fetchall())

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
