"""`statement_timeout` on SQLite."""

from __future__ import annotations

import time
from typing import Any, Final, Self

from dbconfig.engine.dialects.sqlite.connection import Connection, Cursor

_PROGRESS_STEPS: Final = 10_000  # virtual machine instructions between two looks at the clock: about 0.1 ms


class TimedCursor(Cursor):
    """Sets the clock of its connection at each statement."""

    connection: TimedConnection

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        self.connection.deadline = time.monotonic() + self.connection.limit
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Self:
        self.connection.deadline = time.monotonic() + self.connection.limit
        return super().executemany(sql, parameters)


class TimedConnection(Connection):
    """Ends a statement, its fetching included, after `limit` seconds."""

    cursor_class = TimedCursor
    limit = float("inf")
    deadline = float("inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_progress_handler(lambda: time.monotonic() > self.deadline, _PROGRESS_STEPS)

    def commit(self) -> None:
        self.deadline = float("inf")
        super().commit()

    def rollback(self) -> None:
        self.deadline = float("inf")
        super().rollback()


def timed(base: type[Connection], limit: float) -> type[Connection]:
    """Return a class of connections whose statements end after so many seconds."""
    bases = (TimedConnection,) if base is Connection else (TimedConnection, base)
    return type(TimedConnection.__name__, bases, {"limit": limit})
