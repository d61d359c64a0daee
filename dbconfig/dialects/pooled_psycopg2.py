"""Reading behind a pooler (psycopg2): each statement brings its guard and its limits along, in one message.

A pooler refuses startup options, and in AUTOCOMMIT there is no transaction in which they could be set. But the
statements of one message are one transaction to the server, which ends with it. What cannot be sent that way begins a
real one, which lasts until the session's end.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2 import extensions

from dbconfig.dialects.fast_begin import FastBeginConnection, FastBeginCursor


class ReadingCursor(FastBeginCursor):
    """Sends the guard that is due with its statement."""

    connection: ReadingConnection
    _turn = 0

    def execute(self, query: Any, vars: Any = None) -> None:
        super().execute(query, vars)
        self._turn = self.connection.turn

    def close(self) -> None:
        # A named cursor ends with its transaction: CLOSE would be an error, and one of the next transaction.
        if self.name is None or self._turn == self.connection.turn:
            super().close()


class ReadingConnection(FastBeginConnection):
    """A connection in autocommit whose every statement is read-only."""

    cursor_class = ReadingCursor
    turn = 0  # counts the transactions that have ended

    def begin_due(self) -> str:
        if not self.autocommit:
            return super().begin_due()
        return self.limits if self.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE else ""

    def begin_now(self) -> None:
        due = self.begin_due()
        if due:
            self._send(f"BEGIN; {due}" if self.autocommit else due)

    def begin_for_stream(self) -> None:
        if self.autocommit:
            self.begin_now()
        else:
            super().begin_for_stream()

    def cursor(
        self, name: Any = None, cursor_factory: Any = None, withhold: bool = False, scrollable: bool | None = None
    ) -> Any:
        # Without it the driver refuses named cursors in autocommit. Nothing is held: see commit().
        withhold = name is not None and self.autocommit
        return super().cursor(name, cursor_factory, withhold, scrollable)

    def commit(self) -> None:
        if self.autocommit and self.get_transaction_status() == extensions.TRANSACTION_STATUS_INTRANS:
            # A cursor WITH HOLD would outlive the transaction, on a server connection that is not ours.
            self._end("CLOSE ALL; COMMIT", super().commit)
        else:
            super().commit()

    def _end(self, word: str, by_driver: Any) -> None:
        self.turn += 1
        super()._end(word, by_driver)

    def tpc_begin(self, xid: Any) -> None:
        raise psycopg2.NotSupportedError("a reading session has nothing to commit in two phases")
