"""`statement_timeout` on SQLite."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final, Self

_PROGRESS_STEPS: Final = 10_000  # virtual machine instructions between two looks at the clock: about 0.1 ms


def _timed_connection(limit: float) -> type[sqlite3.Connection]:
    """Return a connection class that ends a statement, its fetching included, after so many seconds."""

    class TimedCursor(sqlite3.Cursor):
        connection: TimedConnection

        def execute(self, sql: str, parameters: Any = (), /) -> Self:
            self.connection.deadline = time.monotonic() + limit
            return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Any, /) -> Self:
            self.connection.deadline = time.monotonic() + limit
            return super().executemany(sql, parameters)

    class TimedConnection(sqlite3.Connection):
        deadline = float("inf")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.set_progress_handler(lambda: time.monotonic() > self.deadline, _PROGRESS_STEPS)

        def cursor(self, factory: Any = TimedCursor) -> Any:
            return super().cursor(factory)

        def commit(self) -> None:
            self.deadline = float("inf")
            super().commit()

        def rollback(self) -> None:
            self.deadline = float("inf")
            super().rollback()

    return TimedConnection
