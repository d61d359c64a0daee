"""Threads and tasks take turns on the one connection of a test, and its savepoints stay a stack."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.orm import Session, SessionTransaction

from dbconfig.sessions.model_databases import Bound, Homes
from dbconfig.sessions.session import ReadOnlySession, UnitOfWork
from dbconfig.sessions.session_classes import SessionClasses

HOME: Final = "dbconfig.home"  # in a session's info: the test's own session, which stays open while others work

_PATIENCE: Final = 10.0  # seconds that a thread or task waits for the previous one
_POLL: Final = 0.002  # seconds
_SAVEPOINT: Final = re.compile(r"\s*(RELEASE SAVEPOINT|ROLLBACK TO SAVEPOINT|SAVEPOINT)\s+(\S+)", re.IGNORECASE)
_READS: Final = re.compile(r"\s*(SELECT|SHOW|EXPLAIN|PRAGMA|SET)\b", re.IGNORECASE)
# https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/
_COMMITS: Final = re.compile(
    r"\s*(CREATE|ALTER|DROP|RENAME|TRUNCATE|ANALYZE|OPTIMIZE|REPAIR|GRANT|REVOKE|LOCK TABLES)\b", re.IGNORECASE
)


class IsolatedSession(Session):
    """A session on an isolated connection, which takes turns with others."""


class IsolatedUnitOfWork(UnitOfWork, IsolatedSession):
    """The same for `run_in_transaction`."""


class IsolatedReading(ReadOnlySession, IsolatedSession):
    """The same for reading: on the same connection, so that it sees what the test has written; a flush is rejected."""


class IsolatedBound(Bound, IsolatedSession):
    """An isolated session over several databases, each of which has its isolated connection."""


class IsolatedBoundUnitOfWork(Bound, IsolatedUnitOfWork):
    """The same for `run_in_transaction`."""


class IsolatedBoundReading(Bound, IsolatedReading):
    """The same for reading."""


Open = Callable[[str], Any]


def kinds(
    homes: Homes | None, open_: Open | None, classes: SessionClasses
) -> tuple[tuple[type[Any], ...], dict[str, Any]]:
    """Return the classes for sessions, units of work, and read-only sessions, and their common arguments.

    Args:
        homes: the database of each table; None for a session of one database.
        open_: returns what a session is bound to, by the database's name.
        classes: the application's own.
    """
    several: dict[str, Any] = {}
    found: tuple[type[Session], ...] = (IsolatedSession, IsolatedUnitOfWork, IsolatedReading)
    if homes is not None:
        several = {"homes": homes, "open_": open_}
        found = (IsolatedBound, IsolatedBoundUnitOfWork, IsolatedBoundReading)
    return tuple(map(classes.of, found)), several


class Turns:
    """The turns of threads and tasks on one connection, and what its savepoints need.

    Savepoints are a stack: overlapping transactions on one connection would roll each other back. A thread (or
    task) keeps the connection from its first statement to the end of its transaction; the test's own session does not.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.committed = False  # by DDL on MySQL and MariaDB, which ends a transaction
        self._savepoints: list[_Savepoint] = []
        self._owner: object = None
        self._depth = 0
        self._turn = threading.Lock()
        # A driver's connection executes one statement at a time; asynchronous drivers ensure that themselves.
        self._wire = threading.RLock() if not connection.dialect.is_async else None
        self._mine = threading.local()
        _turns[connection] = self
        event.listen(connection, "savepoint", lambda *_: self.enter())
        event.listen(connection, "before_cursor_execute", self._before_statement, retval=True)
        event.listen(connection, "after_cursor_execute", self._after_statement)
        event.listen(connection.engine, "handle_error", self._after_error)

    def close(self) -> None:
        event.remove(self.connection.engine, "handle_error", self._after_error)

    def enter(self) -> None:
        """Wait until no other thread or task is in a transaction, and take the turn."""
        me = _me()
        end = time.monotonic() + _PATIENCE
        while not self._taken_by(me):
            if time.monotonic() > end:
                raise TimeoutError(
                    f"another thread or task has kept the test's one connection for {_PATIENCE:.0f} s: "
                    "transactions that must overlap need `db_session_committed`"
                )
            _pause()

    def _taken_by(self, me: object) -> bool:
        with self._turn:
            if self._owner is not None and self._owner != me:
                return False
            self._owner = me
            self._depth += 1
            return True

    def leave(self) -> None:
        with self._turn:
            self._depth -= 1
            if self._depth <= 0:
                self._owner, self._depth = None, 0

    def claim(self, session: Session) -> None:
        """Record that the savepoint that was just set belongs to this session."""
        if self._savepoints:
            self._savepoints[-1].session = weakref.ref(session)

    def _before_statement(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> tuple[str, Any]:
        if self._wire is not None:
            self._wire.acquire()
            self._mine.count = getattr(self._mine, "count", 0) + 1
        found = _SAVEPOINT.match(statement)
        if found is None:
            if self._savepoints and not _READS.match(statement):
                self._savepoints[-1].wrote = True
        elif found[1].upper().startswith("ROLLBACK") and self._keeps(found[2]):
            return f"RELEASE SAVEPOINT {found[2]}", parameters
        return statement, parameters

    def _keeps(self, name: str) -> bool:
        """Whether what other sessions committed within a session that now ends must stay: it wrote nothing itself."""
        savepoint = next((each for each in self._savepoints if each.name == name), None)
        if savepoint is None or not savepoint.kept:
            return False
        if savepoint.wrote:
            warnings.warn(
                "a session that wrote is rolled back, and with it what other sessions committed meanwhile, since the "
                "sessions of a test share one connection: such a test needs `db_session_committed`",
                stacklevel=2,
            )
        return not savepoint.wrote

    def _after_error(self, context: ExceptionContext) -> None:
        if context.connection is self.connection:
            self._hang_up()

    def _hang_up(self) -> None:
        held: int = getattr(self._mine, "count", 0)
        if self._wire is not None and held:
            self._mine.count = held - 1
            self._wire.release()

    def _after_statement(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        try:
            found = _SAVEPOINT.match(statement)
            if found:
                self._note(found[1].upper(), found[2])
            elif connection.dialect.name in ("mysql", "mariadb") and _COMMITS.match(statement):
                self.committed = True
                for savepoint in self._savepoints:  # they went with the transaction
                    cursor.execute(f"SAVEPOINT {savepoint.name}")
        finally:
            self._hang_up()

    def _note(self, what: str, name: str) -> None:
        if what == "SAVEPOINT":
            self._savepoints.append(_Savepoint(name))
            return
        place = next((place for place, each in enumerate(self._savepoints) if each.name == name), None)
        if place is None:
            return
        ended = self._savepoints[place]
        del self._savepoints[place:]
        if what.startswith("RELEASE") and place:
            outer = self._savepoints[-1]
            own = outer.session is not None and ended.session is not None and outer.session() is ended.session()
            outer.wrote |= own and ended.wrote
            outer.kept |= ended.kept or (ended.wrote and not own)


@dataclass(slots=True)
class _Savepoint:
    """An active savepoint.

    Attributes:
        name: SQLAlchemy's.
        session: its owner.
        wrote: that session changed something since.
        kept: another session committed something since.
    """

    name: str
    session: weakref.ref[Session] | None = None
    wrote: bool = False
    kept: bool = False


_turns: weakref.WeakKeyDictionary[Connection, Turns] = weakref.WeakKeyDictionary()
_begun: weakref.WeakKeyDictionary[SessionTransaction, list[Turns]] = weakref.WeakKeyDictionary()


@event.listens_for(IsolatedSession, "after_begin", propagate=True)
def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    turns = _turns.get(connection)
    if turns is None:
        return  # a session that was bound to another engine
    turns.claim(session)
    if session.info.get(HOME):
        turns.leave()
    else:
        _begun.setdefault(transaction, []).append(turns)


@event.listens_for(IsolatedSession, "after_transaction_end", propagate=True)
def _after_end(session: Session, transaction: SessionTransaction) -> None:
    for turns in _begun.pop(transaction, ()):
        turns.leave()


def _me() -> object:
    return threading.get_ident(), id(_task())


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _pause() -> None:
    greenlet = sys.modules.get("greenlet")
    if _task() is not None and greenlet is not None and greenlet.getcurrent().parent is not None:
        from sqlalchemy.util import await_only

        await_only(asyncio.sleep(_POLL))  # an asynchronous session: the holder of the turn may be in the same loop
    else:
        time.sleep(_POLL)
