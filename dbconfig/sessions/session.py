"""The behavior of each kind of session at begin, flush, and commit; `session_classes` combines it with a class."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction

from dbconfig.engine.commit_guard import REFUSAL, Mark, mark
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import fate_of
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.statement_limit import is_late

_log = logging.getLogger("dbconfig.reads")


class Committing(Session):
    """A session that tracks what it has begun and committed, even if its COMMIT fails."""

    def name_of(self, connection: Connection) -> str:
        """Return the name of a connection's database for errors."""
        return str(connection.engine.logging_name or connection.engine.url.database)


class WritingSession(Committing):
    """A session that takes SQLite's write lock when its transaction begins.

    With a plain BEGIN, two transactions can both read and then both try to write: one of them fails immediately,
    regardless of the busy timeout, or (as in the driver, which begins only before the write) its result is lost.
    """


class UnitOfWork(Committing):
    """The session of `run_in_transaction`: it commits when the work has returned, and only then."""

    def begin(self, nested: bool = False) -> SessionTransaction:
        if not nested:
            raise InvalidRequestError(f"{REFUSAL} (begin() commits when it ends; begin_nested() is a savepoint)")
        return super().begin(nested=nested)

    def prepare(self) -> None:
        raise InvalidRequestError(REFUSAL)

    def commit(self) -> None:
        raise InvalidRequestError(REFUSAL)

    # A block (`with session:`) closes too. It may end with an error, which decides whether the work is retried. So the
    # close is allowed, and the COMMIT reports the problem.

    def close(self) -> None:
        self._note_close()
        super().close()

    def invalidate(self) -> None:
        self._note_close()
        super().invalidate()

    def reset(self) -> None:
        self._note_close()
        super().reset()

    def _note_close(self) -> None:
        if self.info.get(_BEGUN):
            self.info[_CLOSED] = True

    def refuse_closed(self) -> None:
        """Raise if the function of the unit has closed the session, and so rolled back what it did."""
        if _CLOSED in self.info:
            raise InvalidRequestError(
                "the function closed the session of run_in_transaction, which rolled back its work: it is committed "
                "and closed when the function returns"
            )


class WritingUnitOfWork(UnitOfWork, WritingSession):
    """The same on SQLite."""


def begun(session: Session) -> list[tuple[Connection, Mark]]:
    """Return the connections of a session's transaction, in the order of their first use."""
    found: list[tuple[Connection, Mark]] = session.info.get(_BEGUN, [])
    return found


_CLOSED: Final = "dbconfig.closed"  # in session.info
_BEGUN: Final = "dbconfig.begun"  # in session.info
COMMITTING: Final = "dbconfig.committing"  # in session.info while a COMMIT is due


@event.listens_for(Committing, "after_transaction_create", propagate=True)
def _begin_anew(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[_BEGUN] = []


@event.listens_for(Committing, "after_begin", propagate=True)
def _take_note(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    # A savepoint is within a transaction that is already recorded, and already holds SQLite's lock.
    if transaction.nested or not isinstance(session, Committing):
        return
    # One session may serve several databases.
    if isinstance(session, UnitOfWork) and _level(connection) == "AUTOCOMMIT":
        raise InvalidRequestError(
            f"run_in_transaction needs a transaction, and the isolation level of {session.name_of(connection)} is "
            "AUTOCOMMIT, where a retry would repeat what is already committed: use db.session(), or choose a level "
            'with execution_options={"isolation_level": …}'
        )
    if connection.dialect.name == "sqlite" and isinstance(session, WritingSession):
        from dbconfig.engine.dialects.sqlite.transactions import begin_immediate  # import its driver only if it is used

        begin_immediate(connection)
    if begun(session):
        from dbconfig.sessions import preparable

        preparable.begin(connection, [each for each, _ in begun(session)])
    allowed = not isinstance(session, UnitOfWork) or COMMITTING in session.info
    found = Mark(session.name_of(connection), allowed=allowed)
    mark(connection, found)
    begun(session).append((connection, found))


@event.listens_for(Committing, "after_commit", propagate=True)
def _note_commit(session: Session) -> None:
    # In tests whose transactions are savepoints of one that is rolled back, no COMMIT is sent.
    if not session.in_nested_transaction():
        for _, found in begun(session):
            found.committed = True


def _level(connection: Connection) -> str:
    """Return the isolation level that was asked for; "" where none was.

    Not get_isolation_level(), which asks the server, and gets the level of the transaction.
    """
    own = getattr(connection.dialect, "_on_connect_isolation_level", None)
    return str(connection.get_execution_options().get("isolation_level", own) or "").upper()


_SNAPSHOTS: Final = {
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "mysql": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "mariadb": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "sqlite": "BEGIN",
}


class ReadOnlySession(Session):
    """A read-only session: a flush raises an error with the names of the models; the server rejects statements.

    If the connection ends during its first statement, the statement is sent once more, on another connection, unless it
    had reached `statement_timeout`. That is safe: the server rejects writes, nothing was read before, and no state of
    the connection was used.
    """

    def _execute_internal(self, *arguments: Any, **keywords: Any) -> Any:
        # All ways to execute a statement meet here: execute(), exec(), scalars(), get(), Query.
        is_first = not (self.in_transaction() or len(self.identity_map))
        try:
            return super()._execute_internal(*arguments, **keywords)
        except DBAPIError as error:
            fate = fate_of(error)
            if not is_first or error.statement is None or fate not in (Fate.LOST, Fate.ABSENT):
                raise
            if error.orig is not None and is_late(error.orig):
                raise  # its time is over
            name = getattr(self.bind, "logging_name", None) or ""
            words = "a read failed (%s), and is sent once more: %s"
            _log.info(words, fate.value, error.orig, extra=facts(name, reason=fate.name.lower()))
        self.rollback()  # of the transaction that the statement began; otherwise, it keeps the lost connection
        return super()._execute_internal(*arguments, **keywords)


class SnapshotSession(ReadOnlySession):
    """A read-only session whose statements all see the database as of the first one."""


@event.listens_for(ReadOnlySession, "before_flush", propagate=True)
def _refuse_flush(session: Session, context: UOWTransaction, instances: object) -> None:
    pending: dict[str, Iterable[object]] = {
        "added": session.new,
        "changed": [each for each in session.dirty if session.is_modified(each)],
        "deleted": session.deleted,
    }
    found = [
        f"{name} is {what}"
        for what, objects in pending.items()
        for name in sorted({type(each).__name__ for each in objects})
    ]
    if found:
        raise InvalidRequestError(f"a read-only session writes nothing, and {', '.join(found)}: use db.session()")


@event.listens_for(SnapshotSession, "after_begin", propagate=True)
def _begin_snapshot(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.parent is None:
        statement = _SNAPSHOTS.get(connection.dialect.name)
        if statement is None or _level(connection) != "AUTOCOMMIT":
            name = f"{connection.dialect.name}+{connection.dialect.driver}"
            raise InvalidRequestError(f"snapshot=True is not supported on {name}: use db.transaction()")
        connection.exec_driver_sql(statement)
