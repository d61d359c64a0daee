"""Reading behind a pooler (psycopg2): each statement brings its guard and its limits along, in one message.

A pooler refuses startup options, and in AUTOCOMMIT there is no transaction in which they could be set. But the
statements of one message are one transaction to the server, which ends with it. What cannot be sent that way begins a
real one, which lasts until the session's end.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2 import extensions

from dbconfig.dialects.fast_begin import FastBeginConnection


class ReadingConnection(FastBeginConnection):
    """A connection in autocommit whose every statement is read-only."""

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

    def tpc_begin(self, xid: Any) -> None:
        raise psycopg2.NotSupportedError("a reading session has nothing to commit in two phases")
