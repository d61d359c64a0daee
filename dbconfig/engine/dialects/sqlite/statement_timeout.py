"""`statement_timeout` on SQLite."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final, Self

from dbconfig.engine.dialects.sqlite.connection import Connection, Cursor

_PROGRESS_STEPS: Final = 10_000  # virtual machine instructions between two checks of the clock: about 0.1 ms


class TimedCursor(Cursor):
    """Sets the time limit of its connection at each statement."""

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
    limit: float = float("inf")
    deadline: float = float("inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch_clock()

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def watch_clock(self) -> None:
        self.set_progress_handler(self.is_late, _PROGRESS_STEPS)

    def commit(self) -> None:
        self.deadline = float("inf")
        super().commit()

    def rollback(self) -> None:
        self.deadline = float("inf")
        super().rollback()


def connection_class(given: type[sqlite3.Connection] | None, statement_timeout: float | None) -> type[Connection]:
    """Return the class of an engine's connections.

    Args:
        given: the application's own class (`connect_args: factory`), from which ours is derived.
        statement_timeout: seconds after which a statement ends, its fetching included.
    """
    base = Connection if given is None else type(f"Watched{given.__name__}", (Connection, given), {})
    if statement_timeout is None:
        return base
    bases = (TimedConnection,) if base is Connection else (TimedConnection, base)
    return type(TimedConnection.__name__, bases, {"limit": statement_timeout})
