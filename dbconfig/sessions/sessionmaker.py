"""The session factories of one engine, sync or async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session as Plain
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session

from dbconfig.errors.light_dataclass import dataclass, replace
from dbconfig.sessions.commit import commit, tell_if_committed
from dbconfig.sessions.execution_options import making
from dbconfig.sessions.model_databases import (
    BoundReading,
    BoundSession,
    BoundSnapshot,
    BoundUnitOfWork,
    BoundWriting,
    Homes,
)
from dbconfig.sessions.session import Committing, UnitOfWork, WritingSession, WritingUnitOfWork
from dbconfig.sessions.session_classes import SQLMODEL, SessionClasses
from dbconfig.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession

S = TypeVar("S")  # Session or AsyncSession
NONE: Final[Mapping[str, Any]] = MappingProxyType({})  # no options


@dataclass(frozen=True, slots=True)
class Several:
    """What sessions over several databases need."""

    homes: Homes
    open_: Callable[[str], Any]  # returns what the statements of a database, by its name, are bound to

    def arguments(self) -> dict[str, Any]:
        return {"homes": self.homes, "open_": self.open_}


class Routing(Protocol):
    """The interface of routers, which choose a server for each read-only session, and are in a higher layer."""

    key: str

    def mark(self) -> Any: ...

    def stats(self) -> list[Any]: ...

    def rest(self) -> None: ...

    def engines(self) -> list[Engine]: ...


@dataclass(frozen=True, slots=True)
class Readers(Generic[S]):
    """The read-only session factories of one database, sync or async."""

    plain: Callable[[], S]
    snapshot: Callable[[], S]
    pick: Callable[[], Engine]  # the next server's
    router: Routing | None = None  # None: there are no replicas

    def engines(self) -> list[Engine]:
        """Return the open engines."""
        return [self.pick()] if self.router is None else self.router.engines()


def readers_over_several(
    found: Readers[Session], settings: DatabaseSettings, several: Several, classes: SessionClasses = SQLMODEL
) -> Readers[Session]:
    """Return the factories of read-only sessions that find the database of each statement."""
    how = {**several.arguments(), **session_arguments(settings)}
    return replace(
        found,
        plain=partial(classes.of(BoundReading), None, **how),
        snapshot=partial(classes.of(BoundSnapshot), None, **how),
    )


def async_readers_over_several(
    found: Readers[AsyncSession], settings: DatabaseSettings, several: Several, classes: SessionClasses = SQLMODEL
) -> Readers[AsyncSession]:
    """Do the same for an event loop."""
    how = {**several.arguments(), **async_session_arguments(settings)}
    plain, snapshot = async_makers(None, (BoundReading, BoundSnapshot), how, classes)
    return replace(found, plain=plain, snapshot=snapshot)


def session_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of `Session` for the settings."""
    given = {"expire_on_commit": settings.expire_on_commit, "autoflush": settings.autoflush}
    # True is Session's own default, and an argument that is not passed costs nothing.
    return {key: value for key, value in given.items() if value is not True}


def async_session_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of `AsyncSession` for the settings."""
    # An expired attribute is reloaded when it is accessed, which cannot be awaited: SQLAlchemy's advice for
    # asyncio is not to expire ("Preventing Implicit IO when Using AsyncSession").
    expire = settings.expire_on_commit if "expire_on_commit" in settings.model_fields_set else False
    return {"expire_on_commit": expire, "autoflush": settings.autoflush}


def _kinds(settings: DatabaseSettings, several: Several | None) -> tuple[type[Plain], ...]:
    """Return the kinds of plain sessions, of `transaction` and of `run_in_transaction`."""
    if several is not None:
        return BoundSession, BoundWriting, BoundUnitOfWork
    sqlite = settings.backend == "sqlite"
    return (Plain, WritingSession, WritingUnitOfWork) if sqlite else (Plain, Committing, UnitOfWork)


@dataclass(frozen=True, slots=True)
class SessionFactory:
    """The session factories of one engine."""

    engine: Engine
    session: Callable[[], Session]
    writing: Callable[[], Session]
    unit_of_work: Callable[[], Session]
    classes: SessionClasses = SQLMODEL

    @classmethod
    def of(
        cls,
        engine: Engine,
        settings: DatabaseSettings,
        several: Several | None = None,
        classes: SessionClasses = SQLMODEL,
    ) -> SessionFactory:
        arguments = session_arguments(settings) | (several.arguments() if several is not None else {})
        session, writing, unit = (partial(classes.of(kind), engine, **arguments) for kind in _kinds(settings, several))
        return cls(engine, session, writing, unit, classes)

    @contextmanager
    def transaction(self, options: Mapping[str, Any] = NONE) -> Iterator[Session]:
        session, due = making(self.writing, options)(), False
        try:
            with session, session.begin():
                yield session
                due = True
                commit(session)
        except BaseException as error:
            if due:
                tell_if_committed(error, session)
            raise


@dataclass(frozen=True, slots=True)
class AsyncSessionFactory:
    """The asynchronous session factories of one engine."""

    engine: AsyncEngine
    session: Callable[[], AsyncSession]
    writing: Callable[[], AsyncSession]
    unit_of_work: Callable[[], AsyncSession]
    classes: SessionClasses = SQLMODEL

    @classmethod
    def of(
        cls,
        engine: AsyncEngine,
        settings: DatabaseSettings,
        several: Several | None = None,
        classes: SessionClasses = SQLMODEL,
    ) -> AsyncSessionFactory:
        arguments = async_session_arguments(settings) | (several.arguments() if several is not None else {})
        session, writing, unit = async_makers(engine, _kinds(settings, several), arguments, classes)
        return cls(engine, session, writing, unit, classes)

    @asynccontextmanager
    async def transaction(self, options: Mapping[str, Any] = NONE) -> AsyncIterator[AsyncSession]:
        # The session's own exit is shielded from cancellation, and rolls back what the transaction's exit could not.
        session, due = making(self.writing, options)(), False
        try:
            async with session, session.begin():
                yield session
                due = True
                await greenlet_spawn(commit, session.sync_session)
        except BaseException as error:
            if due:
                tell_if_committed(error, session)
            raise


def async_makers(
    engine: AsyncEngine | None,
    kinds: Iterable[type[Plain]],
    arguments: Mapping[str, Any],
    classes: SessionClasses = SQLMODEL,
) -> list[Callable[[], AsyncSession]]:
    """Return a function for each kind of session that creates its asynchronous counterpart."""
    made = classes.async_class()
    return [partial(made, engine, sync_session_class=classes.of(each), **arguments) for each in kinds]
