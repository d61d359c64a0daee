"""Sessions of an engine: one that closes, and one that commits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import SessionTransaction, UOWTransaction
from sqlmodel import Session

pass


class WritingSession(Session):
    """A session that takes SQLite's write lock when its transaction begins.

    With a plain BEGIN two transactions can both read and then both want to write: one of them is refused at once,
    whatever the busy timeout, or (as the driver does it, beginning before the write only) its result is lost.
    """


class UnitOfWork(Session):
    """The session of `run_in_transaction`: it commits when the work has returned, and only then."""

    def commit(self) -> None:
        raise InvalidRequestError(
            "run_in_transaction commits when its function returns; a commit within it could not be run again"
        )


@event.listens_for(UnitOfWork, "after_begin", propagate=True)
def _remember_connection(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    # Looked at before COMMIT is sent.
    session.info.setdefault(CONNECTIONS, []).append(connection)


class WritingUnitOfWork(UnitOfWork, WritingSession):
    """The same on SQLite."""


@event.listens_for(WritingSession, "after_begin", propagate=True)
def _begin_immediate(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    from dbconfig.engine.dialects.sqlite.transactions import begin_immediate  # its driver is for those who use it

    # One session may serve several databases; and a savepoint is within a transaction that holds the lock already.
    if connection.dialect.name == "sqlite" and not transaction.nested:
        begin_immediate(connection)


CONNECTIONS: Final = "dbconfig.connections"  # in session.info of a unit of work: those of its transaction


_SNAPSHOTS: Final = {
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "mysql": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "mariadb": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "sqlite": "BEGIN",
}


class ReadOnlySession(Session):
    """A session that writes nothing: a flush is refused with the names of the models, a statement by the server."""


class SnapshotSession(ReadOnlySession):
    """A reading session whose statements all see the database as it was at the first of them."""


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
        connection.exec_driver_sql(_SNAPSHOTS[connection.dialect.name])
