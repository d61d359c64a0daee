"""BEGIN together with the first statement (psycopg2): a transaction costs one round trip less; see `fast_begin`.

The driver sees the connection as in autocommit, so it does not send BEGIN itself. The modes that SQLAlchemy, or the
application, sets (autocommit, isolation level, read-only, deferrable) are kept here and become part of the BEGIN that
precedes the first statement, in the same message. Whether one is due is read from libpq, to which the server reports
the transaction status with each answer, so a BEGIN or COMMIT that the application sends itself is detected. Behind a
pooler, the limits of each transaction are sent with it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import psycopg2
from psycopg2 import extensions, sql
from sqlalchemy import Engine

_LEVELS: Final = {
    extensions.ISOLATION_LEVEL_READ_UNCOMMITTED: "READ UNCOMMITTED",
    extensions.ISOLATION_LEVEL_READ_COMMITTED: "READ COMMITTED",
    extensions.ISOLATION_LEVEL_REPEATABLE_READ: "REPEATABLE READ",
    extensions.ISOLATION_LEVEL_SERIALIZABLE: "SERIALIZABLE",
}
_IDLE: Final = extensions.TRANSACTION_STATUS_IDLE


class FastBeginCursor(extensions.cursor):
    """Sends the pending BEGIN with its statement."""

    connection: FastBeginConnection
    _turn = 0  # the connection's, at the last statement

    def execute(self, query: Any, vars: Any = None) -> None:
        begin = self.connection.begin_due()
        if begin and self.name is None:
            query = self._joined(begin, query, vars)
        elif begin:
            self.connection.begin_for_stream()
        super().execute(query, vars)
        self._turn = self.connection.turn
        if begin:
            self.connection.note_begin()

    def close(self) -> None:
        # Such a cursor has ended with its transaction: CLOSE would be an error, and would fail the next transaction.
        if not self.withhold or self._turn == self.connection.turn:
            super().close()

    def _joined(self, begin: str, query: Any, vars: Any) -> Any:
        # On a separate line: the excerpt in an error shows lines.
        begin = (begin if vars is None else begin.replace("%", "%%")) + ";\n"
        if isinstance(query, bytes):
            return begin.encode(extensions.encodings[self.connection.encoding]) + query
        return sql.SQL(begin) + query if isinstance(query, sql.Composable) else begin + query

    def executemany(self, query: Any, vars_list: Any) -> None:
        self.connection.begin_now()
        super().executemany(query, vars_list)

    def callproc(self, procname: Any, parameters: Any = ()) -> Any:
        self.connection.begin_now()
        return super().callproc(procname, parameters)

    def copy_expert(self, *arguments: Any, **keywords: Any) -> None:
        self.connection.begin_now()
        super().copy_expert(*arguments, **keywords)

    def copy_from(self, *arguments: Any, **keywords: Any) -> None:
        self.connection.begin_now()
        super().copy_from(*arguments, **keywords)

    def copy_to(self, *arguments: Any, **keywords: Any) -> None:
        self.connection.begin_now()
        super().copy_to(*arguments, **keywords)


class FastBeginConnection(extensions.connection):
    """A connection whose transactions begin with their first statement, in one message."""

    limits = ""  # what is set in each transaction
    turn = 0  # counts the transactions that have ended

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        try:
            super().__init__(*arguments, **keywords)
        finally:
            del arguments, keywords  # no traceback frame may hold the password
        self._autocommit = False
        self._level: int | None = None
        self._readonly: bool | None = None
        self._deferrable: bool | None = None
        self._by_driver = False  # only the driver can run the current transaction
        self._holding = False  # a named cursor was opened in one that we began
        self._begun_in = -1  # the turn in which the last BEGIN was sent
        self.begun_again = False  # twice in the same turn: something other than commit() or rollback() has ended one
        self._set_driver(autocommit=True)

    def _set_driver(self, *, autocommit: bool) -> None:
        driver: Any = extensions.connection.autocommit  # what the property below hides
        driver.__set__(self, autocommit)

    # The BEGIN that is due

    def begin_due(self) -> str:
        """Return the BEGIN that must go before the next statement; "" within a transaction and in autocommit."""
        if self._autocommit or self._by_driver or self.get_transaction_status() != _IDLE:
            return ""
        level = "" if self._level is None else f" ISOLATION LEVEL {_LEVELS[self._level]}"
        access = "" if self._readonly is None else " READ ONLY" if self._readonly else " READ WRITE"
        wait = "" if self._deferrable is None else " DEFERRABLE" if self._deferrable else " NOT DEFERRABLE"
        limits = f"; {self.limits}" if self.limits else ""
        return f"BEGIN{level}{access}{wait}{limits}"

    def begin_now(self) -> None:
        """Send BEGIN in a separate message, before what cannot be combined with it."""
        begin = self.begin_due()
        if begin:
            self._send(begin)
            self.note_begin()

    def note_begin(self) -> None:
        """Record that the server has answered our BEGIN."""
        self.begun_again = self._begun_in == self.turn
        self._begun_in = self.turn

    def has_begun(self) -> bool:
        """Return whether a BEGIN was sent that neither commit() nor rollback() has ended."""
        return self._begun_in == self.turn

    def is_ours(self) -> bool:
        """Return whether we have begun the current transaction, and not the driver."""
        return not self._by_driver

    def begin_by_driver(self) -> None:
        """Leave the transaction to the driver: it rejects named cursors and two-phase commits in its autocommit."""
        self._set_driver(autocommit=False)
        if self._level is not None or self._readonly is not None or self._deferrable is not None:
            super().set_session(self._level, self._readonly, self._deferrable)
        self._by_driver = True

    def begin_for_stream(self) -> None:
        """Begin before a named cursor's first statement, to which nothing can be added."""
        self.begin_by_driver()
        if self.limits:
            self._send(self.limits)

    def _send(self, statement: str) -> None:
        cursor = super().cursor(cursor_factory=extensions.cursor)
        try:
            cursor.execute(statement)
        finally:
            cursor.close()

    def _end(self, word: str, by_driver: Any) -> None:
        self.turn += 1
        self._holding = self.begun_again = False
        if self.closed:
            by_driver()  # the driver raises its own error
        elif self._by_driver:
            by_driver()
            self._by_driver = False
            super().set_session("DEFAULT", "default", "default", autocommit=True)
        elif self.get_transaction_status() != _IDLE:
            self._send(word)

    def commit(self) -> None:
        closing = self._holding and self.get_transaction_status() == extensions.TRANSACTION_STATUS_INTRANS
        if closing and self._by_driver:
            self._send("CLOSE ALL")
        self._end("CLOSE ALL; COMMIT" if closing else "COMMIT", super().commit)

    def rollback(self) -> None:
        self._end("ROLLBACK", super().rollback)

    def cursor(
        self, name: Any = None, cursor_factory: Any = None, withhold: bool = False, scrollable: bool | None = None
    ) -> Any:
        if name is not None and self.begin_due():
            self.begin_for_stream()
        if name is not None and not self._by_driver and self.get_transaction_status() != _IDLE:
            # The driver rejects named cursors in what it considers autocommit, except for WITH HOLD. None is actually
            # held: a rollback ends them, and they are closed before a commit.
            withhold = self._holding = True
        chosen: Any = cursor_factory or self.cursor_factory
        factory = with_factory(FastBeginCursor, chosen)
        return super().cursor(name, cursor_factory=factory, withhold=withhold, scrollable=scrollable)

    # The driver's API

    def _refuse_inside(self) -> None:
        if self.get_transaction_status() != _IDLE and not self.closed:
            raise psycopg2.ProgrammingError("this cannot be changed inside a transaction")

    @property
    def autocommit(self) -> bool:
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._refuse_inside()
        self._autocommit = bool(value)

    @property
    def isolation_level(self) -> int | None:
        return self._level

    @isolation_level.setter
    def isolation_level(self, value: Any) -> None:
        self._refuse_inside()
        self._level = _level_of(value)

    @property
    def readonly(self) -> bool | None:
        return self._readonly

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self._refuse_inside()
        self._readonly = _flag_of(value)

    @property
    def deferrable(self) -> bool | None:
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: Any) -> None:
        self._refuse_inside()
        self._deferrable = _flag_of(value)

    def set_isolation_level(self, level: int | None) -> None:
        if level == extensions.ISOLATION_LEVEL_AUTOCOMMIT:
            self.rollback()
            self._autocommit = True
            return
        self.rollback()  # as the driver does
        self._autocommit, self._level = False, _level_of(level)

    def set_session(
        self, isolation_level: Any = None, readonly: Any = None, deferrable: Any = None, autocommit: Any = None
    ) -> None:
        self._refuse_inside()
        if isolation_level is not None:
            self._level = _level_of(isolation_level)
        if readonly is not None:
            self._readonly = _flag_of(readonly)
        if deferrable is not None:
            self._deferrable = _flag_of(deferrable)
        if autocommit is not None:
            self._autocommit = bool(autocommit)

    # What only the driver can run

    def tpc_begin(self, xid: Any) -> None:
        self.begin_by_driver()
        super().tpc_begin(xid)
        if self.limits:
            self._send(self.limits)

    def tpc_commit(self, *xid: Any) -> None:
        super().tpc_commit(*xid)
        self._leave_to_us()

    def tpc_rollback(self, *xid: Any) -> None:
        super().tpc_rollback(*xid)
        self._leave_to_us()

    def _leave_to_us(self) -> None:
        if self._by_driver and self.status == extensions.STATUS_READY:
            self._by_driver = False
            super().set_session("DEFAULT", "default", "default", autocommit=True)

    def lobject(self, *arguments: Any, **keywords: Any) -> Any:
        # The driver rejects large objects in what it considers autocommit.
        if self.begin_due():
            self.begin_for_stream()
        elif not self._autocommit and not self._by_driver:
            # In the middle of our transaction: the server only warns about the driver's next BEGIN.
            self._set_driver(autocommit=False)
            self._by_driver = True
        return super().lobject(*arguments, **keywords)


@lru_cache
def with_factory(ours: type, chosen: type | None) -> type:
    """Return a class that combines ours with the application's own: DictCursor, a repr without secrets."""
    if chosen is None or issubclass(ours, chosen):
        return ours
    return chosen if issubclass(chosen, ours) else type(ours.__name__, (ours, chosen), {})


def _level_of(value: Any) -> int | None:
    if isinstance(value, str):
        names = {name: level for level, name in _LEVELS.items()}
        return None if value.upper() == "DEFAULT" else names[value.upper()]
    return None if value is None else int(value)


def _flag_of(value: Any) -> bool | None:
    return None if value is None or (isinstance(value, str) and value.upper() == "DEFAULT") else bool(value)


def attach(engine: Engine, ours: type[FastBeginConnection], limits: str) -> None:
    """Make an engine use our connections, each of whose transactions sets the limits."""
    dialect: Any = engine.dialect
    connect = dialect.connect
    limited = type(ours.__name__, (ours,), {"limits": limits})

    def connect_ours(*arguments: Any, **keywords: Any) -> Any:
        keywords["connection_factory"] = with_factory(limited, keywords.get("connection_factory"))
        try:
            return connect(*arguments, **keywords)
        finally:
            keywords.clear()  # no traceback frame may hold the password

    dialect.connect = connect_ours
