"""Sessions of an engine: one that closes, and one that commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import SessionTransaction
from sqlmodel import Session

from dbconfig.retry import CONNECTIONS
from dbconfig.settings import DatabaseSettings


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
    from dbconfig.dialects.sqlite import begin_immediate  # its driver is for those who use it

    # One session may serve several databases; and a savepoint is within a transaction that holds the lock already.
    if connection.dialect.name == "sqlite" and not transaction.nested:
        begin_immediate(connection)


def session_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of `Session` that the settings mean."""
    given = {"expire_on_commit": settings.expire_on_commit, "autoflush": settings.autoflush}
    # True is Session's own default: what is not passed costs nothing.
    return {key: value for key, value in given.items() if value is not True}


def async_session_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of `AsyncSession` that the settings mean."""
    # An expired attribute is read again when it is touched, which cannot be awaited: SQLAlchemy's advice for
    # asyncio is not to expire ("Preventing Implicit IO when Using AsyncSession").
    expire = settings.expire_on_commit if "expire_on_commit" in settings.model_fields_set else False
    return {"expire_on_commit": expire, "autoflush": settings.autoflush}


@dataclass(frozen=True, slots=True)
class SessionFactory:
    """What sessions of one engine are made with."""

    engine: Engine
    session: Callable[[], Session]
    writing: Callable[[], Session]
    unit_of_work: Callable[[], Session]

    @classmethod
    def of(cls, engine: Engine, settings: DatabaseSettings) -> SessionFactory:
        arguments = session_arguments(settings)
        sqlite = settings.backend == "sqlite"
        kinds = (Session, WritingSession, WritingUnitOfWork) if sqlite else (Session, Session, UnitOfWork)
        return cls(engine, *(partial(kind, engine, **arguments) for kind in kinds))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self.writing() as session, session.begin():
            yield session
