"""Time limit for the statements of a connection: SQLite checks the clock, and waits for locks no longer than that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Final

from dbconfig.engine.dialects.sqlite.connection import Connection
from dbconfig.engine.pool.clock import monotonic

_STEPS: Final = 10_000  # virtual machine instructions between two checks of the clock: about 0.1 ms


def run_until(connection: Connection, when: float | None) -> None:
    """Make statements end at a time of the pool's clock, including rows still to be fetched; None removes the limit.

    In the thread that uses the connection.
    """
    patience = connection.patience
    if connection.until is None:
        patience = connection.patience = _pragma(connection, "PRAGMA busy_timeout")
    connection.until = when
    if when is None:
        connection.watch_clock()
    else:
        own = connection.is_late  # its statement_timeout
        connection.set_progress_handler(lambda: monotonic() >= when or own(), _STEPS)
        patience = min(patience, max(1, int((when - monotonic()) * 1000) + 1))
    _pragma(connection, f"PRAGMA busy_timeout = {patience}")


def _pragma(connection: Connection, statement: str) -> int:
    with closing(sqlite3.Cursor(connection)) as cursor:
        (found,) = cursor.execute(statement).fetchone()
    return int(found)


def was_interrupted(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorname", None) == "SQLITE_INTERRUPT"
