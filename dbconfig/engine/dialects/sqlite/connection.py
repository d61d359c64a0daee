"""The sqlite3 connection of our engines: it queues for writing, guards foreign keys, and begins late in memory."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

from dbconfig.engine.dialects.sqlite import dropped_parents, rebuilt_tables
from dbconfig.engine.dialects.sqlite.statements import Kind, kind_of, reads_no_table
from dbconfig.engine.dialects.sqlite.write_queue import Turn, Waiter, WriteQueue, identity

_BUSY_SNAPSHOT: Final = 517  # https://www.sqlite.org/rescode.html#busy_snapshot


class Cursor(sqlite3.Cursor):
    """Notifies the connection of each statement; raw cursors of the driver use it too."""

    connection: Connection

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        connection: Connection = self.connection
        kind = kind_of(sql)
        if kind is Kind.READ and connection._turn is None:
            if connection.in_memory and not reads_no_table(sql):
                connection._read_in_memory()
            connection.fresh = False
            super().execute(sql, parameters)
        elif kind is Kind.BEGIN:  # of every transaction: no detour
            super().execute(sql, parameters)
            connection.begun(sql)
        else:
            with connection.prepared_for(kind, sql) as done:
                if not done:
                    super().execute(sql, parameters)
        return self

    def executemany(self, sql: str, parameters: Any, /) -> Self:
        with self.connection.prepared_for(kind_of(sql), sql):
            super().executemany(sql, parameters)
        return self

    def executescript(self, sql_script: str, /) -> Self:
        if "foreign_keys" in sql_script.lower():
            self.connection.switched = True
        if "query_only" in sql_script.lower():
            self.connection.refuse_writing()
        with self.connection.prepared_for(Kind.DROP, sql_script):
            super().executescript(sql_script)
        return self


class Connection(sqlite3.Connection):
    """A connection of an engine; `attach` of the dialect gives it its queue."""

    cursor_class: type[Cursor] = Cursor
    queue: WriteQueue | None = None
    dropping: frozenset[str] = frozenset()  # tables that are about to be dropped together with the current one
    in_memory: bool = False
    place: str = ""
    file: tuple[int, int] | None = None  # of the file that was opened at this path
    trusted_until: float = 0.0  # when to check again that it is still the file at this path
    late: bool = False  # a transaction is due, which begins with the first statement that writes (in memory only)
    fresh: bool = False  # nothing was executed in this transaction
    ask: Callable[[str], None] | None = None  # called before a statement that may end a transaction; may raise
    switched: bool = False  # foreign keys were turned on or off in a session
    until: float | None = None  # when its statements end, by the pool's clock
    patience: int = 0  # milliseconds: its own busy_timeout, while that is shortened
    suspended: bool = False  # they are off until the transaction that drops tables has ended
    rebuilt: dict[str, rebuilt_tables.Violations] | None = None  # they are off for these tables, which a copy replaces
    keeps: str = ""  # why its transaction does not end soon: for the error of a connection that would wait for it
    _nested = False  # a SAVEPOINT was set
    _wrote = False  # in this transaction

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn: Turn | None = None
        self._waiter: Waiter | None = None
        self._own: weakref.ref[Turn] | None = None
        self._seen: int | None = None  # the version of the data that a late transaction has read
        self._begun = "BEGIN"

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or self.cursor_class)

    # sqlite3's own make a plain cursor, past `cursor()`.

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        return self.cursor().executemany(sql, parameters)

    def executescript(self, sql_script: str, /) -> Any:
        return self.cursor().executescript(sql_script)

    def commit(self) -> None:
        if self._turn is not None and self.place and identity(self.place) != self.file:
            raise sqlite3.OperationalError(
                f"{self.place} was deleted or replaced during this transaction: its COMMIT would write to a "
                "deleted file"
            )
        super().commit()
        self._ended()

    def rollback(self) -> None:
        super().rollback()
        self._ended()

    def close(self) -> None:
        try:
            self._let_go()
            super().close()
        finally:
            self._give_turn_back()

    def _let_go(self) -> None:
        # If a cursor is still referenced, for example by a traceback, SQLite delays the close, and with it the end of
        # the transaction, until the cursor is collected: the file would stay locked meanwhile.
        try:
            if self.in_transaction:
                super().rollback()
        except sqlite3.Error:  # closed before, or by another thread than it may be: `close` says so
            return

    def __exit__(self, *error: Any) -> Any:
        try:
            return super().__exit__(*error)
        finally:
            self._ended()

    def interrupt(self) -> None:
        super().interrupt()
        waiter = self._waiter
        if waiter is not None and waiter.gate.locked():
            waiter.gate.release()

    def refuse_writing(self) -> None:
        """Raise if a read-only connection is about to become writable: `reading_guard` sets it."""

    def is_late(self) -> bool:
        """Return whether a statement has exceeded its time limit."""
        return False

    def watch_clock(self) -> None:
        """Make SQLite call `is_late` while a statement is running, if there is a time limit."""
        self.set_progress_handler(None, 0)

    def begin_late(self) -> None:
        """Begin a transaction with the first statement that writes."""
        self.late, self._seen = True, None

    def look_for_own_turn(self) -> None:
        """Record whether the caller holds the write lock through another connection, and so would wait for itself.

        For the next statement, which an asynchronous driver executes in a thread without the caller's context.
        """
        holder = self.queue.holder() if self._turn is None and self.queue is not None else None
        self._own = weakref.ref(holder) if holder is not None and holder.is_ours() else None

    def _refuse_own_turn(self) -> None:
        holder = self.queue.holder() if self._turn is None and self.queue is not None else None
        own = self._own() if self._own is not None else None
        refusal = holder.refusal(own) if holder is not None else ""
        if refusal:
            raise sqlite3.OperationalError(refusal)

    def remember_turn(self) -> None:
        """Record that the caller holds the write lock."""
        if self._turn is not None:
            self._turn.remember()

    def begun(self, sql: str) -> None:
        """Record that this statement has begun a transaction."""
        self.late = self._wrote = False
        self.fresh, self._begun = True, sql

    @contextmanager
    def prepared_for(self, kind: Kind, sql: str) -> Iterator[bool]:
        """Prepare for a statement, and clean up after it; yield whether that has already done its work."""
        done = False
        if kind is Kind.END and self.ask is not None:
            self.ask(sql)  # before the clean-up below: an error leaves the transaction unchanged
        try:
            if kind is Kind.QUERY_ONLY:
                self.refuse_writing()
            elif kind is Kind.FOREIGN_KEYS:
                done = self._switch_foreign_keys(sql)
            elif kind is Kind.READ:
                self._read_in_memory()
            elif kind is Kind.END:
                self._seen = None
                self._begin_if_late("BEGIN")
            elif kind is Kind.SAVEPOINT:
                self._nested = True
                self._begin_if_late("BEGIN")
            elif kind is Kind.BEGIN:
                self.late = False
            elif kind is Kind.BEGIN_WRITING:
                self.late = False
                self._take_turn()
            else:
                if kind is Kind.COPY:
                    self._let_foreign_keys_rest()
                self._take_turn()
                self._begin_if_late("BEGIN IMMEDIATE")
                self._wrote = self.in_transaction or self.isolation_level is not None
                if kind is Kind.DROP and self.rebuilt is not None:
                    rebuilt_tables.drop(self, sql, self.dropping, self.rebuilt)
                elif kind is Kind.DROP:
                    dropped_parents.refuse_script(self, sql, self.dropping)
            yield done
            if kind in (Kind.BEGIN, Kind.BEGIN_WRITING):
                self.begun(sql)
            elif not done:
                self.fresh = False
            if kind is Kind.REPLACE and self.rebuilt is not None:
                rebuilt_tables.check(self, self.rebuilt)
        finally:
            if kind is Kind.END and not self.in_transaction:
                self._ended()
            elif self._turn is not None and not self.in_transaction:
                self._give_turn_back()

    def _ended(self) -> None:
        self.late = self.fresh = self._nested = self._wrote = False
        self.dropping, self.rebuilt = frozenset(), None
        if self.suspended and not self.in_transaction:
            self.suspended = False
            self._run("PRAGMA foreign_keys = ON")
        if self._turn is not None and not self.in_transaction:
            self._give_turn_back()

    def _give_turn_back(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()

    def _take_turn(self) -> None:
        if self._turn is not None or self.queue is None:
            return
        turn = self.queue.try_enter()
        if turn is None:
            self._refuse_own_turn()
            turn = self._wait_for_turn(self.queue)
        turn.kept = self.keeps
        self._turn = turn
        turn.remember()

    def _wait_for_turn(self, queue: WriteQueue) -> Turn:
        (patience,) = self._ask("PRAGMA busy_timeout")
        holder = queue.holder()
        thread = holder and holder.thread
        del holder  # a reference to a turn would keep it from being returned when its connection is collected
        self._waiter = waiter = Waiter()
        try:
            turn = queue.enter(waiter, patience / 1000)
        finally:
            self._waiter = None
        if turn is None:
            where = f" in this process (thread {thread})" if thread is not None else ""
            error = sqlite3.OperationalError(f"database is locked: another transaction{where} holds the write lock")
            raise _coded(error, "SQLITE_BUSY", sqlite3.SQLITE_BUSY)
        return turn

    def _begin_if_late(self, begin: str) -> None:
        """Begin the pending transaction, if no other connection has changed what it has read."""
        if not self.late:
            return
        self.late = False
        self._run(begin)
        if self._seen is not None and self._ask("PRAGMA data_version") != (self._seen,):
            self._refuse_changed()

    def _read_in_memory(self) -> None:
        # Here a writer blocks readers, because databases in memory have no write-ahead log.
        if self.queue is not None and self.queue.holder() is not None:
            self._refuse_own_turn()
        if self.late and self._seen is None:
            (self._seen,) = self._ask("PRAGMA data_version")

    def _switch_foreign_keys(self, sql: str) -> bool:
        """Execute a PRAGMA that SQLite ignores in a transaction between two, if this one has not written."""
        if self.dropping:
            dropped_parents.refuse_to_drop(self, self.dropping)
        if self._nested or self._wrote:
            raise sqlite3.OperationalError(
                "PRAGMA foreign_keys has no effect in a transaction that has written: "
                "execute it first in the session, or set it in the profile (variables: {foreign_keys: false})"
            )
        if self.dropping:
            self.suspended = True
        else:
            self.switched = True
        if not self.in_transaction:
            return False
        self._run_between(sql)
        return True

    def _run_between(self, sql: str) -> None:
        before = self._ask("PRAGMA data_version")
        self._run("ROLLBACK")
        self._run(sql)
        self._run(self._begun)
        if not self.fresh and self._ask("PRAGMA data_version") != before:
            self._refuse_changed()

    def _let_foreign_keys_rest(self) -> None:
        """Turn foreign keys off for a table that is recreated, if the transaction has not written."""
        (enforced,) = self._ask("PRAGMA foreign_keys")
        if not enforced or self._nested or self._wrote or self.isolation_level is None:
            return
        run = self._run_between if self.in_transaction else self._run
        run("PRAGMA foreign_keys = OFF")
        self.suspended, self.rebuilt = True, {}

    def _refuse_changed(self) -> None:
        self._run("ROLLBACK")
        error = sqlite3.OperationalError("database is locked: what this transaction has read has changed since")
        raise _coded(error, "SQLITE_BUSY_SNAPSHOT", _BUSY_SNAPSHOT)

    # The driver's own cursors, which do not notify the connection, and end with their last reference.

    def _run(self, statement: str) -> None:
        sqlite3.Cursor(self).execute(statement)

    def _ask(self, statement: str) -> Any:
        return sqlite3.Cursor(self).execute(statement).fetchone()


def driver_of(connection: Any) -> Any:
    """Return the sqlite3 connection wrapped by SQLAlchemy or aiosqlite, even if it is detached."""
    # A detached proxied connection no longer has a driver_connection, but still the DBAPI's.
    for name in ("dbapi_connection", "driver_connection", "_conn"):
        connection = getattr(connection, name, None) or connection
    return connection


def _coded(error: sqlite3.OperationalError, name: str, code: int) -> sqlite3.OperationalError:
    error.sqlite_errorname, error.sqlite_errorcode = name, code
    return error
