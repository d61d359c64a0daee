"""What sessions of one engine are made with, sync or async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session

from dbconfig.sessions.commit import commit
from dbconfig.sessions.session import Committing, UnitOfWork, WritingSession, WritingUnitOfWork
from dbconfig.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession


class Routing(Protocol):
    """What chooses a server for each reading session; the routers are above this layer."""

    key: str

    def mark(self) -> Any: ...

    def stats(self) -> list[Any]: ...

    def rest(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Readers:
    """What reading sessions of one database are made with."""

    plain: Callable[[], Session]
    snapshot: Callable[[], Session]
    pick: Callable[[], Engine]  # the next server's
    engines: Callable[[], list[Engine]]
    router: Routing | None = None  # None: there are no replicas


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
        kinds = (Session, WritingSession, WritingUnitOfWork) if sqlite else (Session, Committing, UnitOfWork)
        return cls(engine, *(partial(kind, engine, **arguments) for kind in kinds))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self.writing() as session, session.begin():
            yield session
            commit(session)


@dataclass(frozen=True, slots=True)
class AsyncSessionFactory:
    """What asynchronous sessions of one engine are made with."""

    engine: AsyncEngine
    session: Callable[[], AsyncSession]
    writing: Callable[[], AsyncSession]
    unit_of_work: Callable[[], AsyncSession]

    @classmethod
    def of(cls, engine: AsyncEngine, settings: DatabaseSettings) -> AsyncSessionFactory:
        sqlite = settings.backend == "sqlite"
        kinds = (Session, WritingSession, WritingUnitOfWork) if sqlite else (Session, Committing, UnitOfWork)
        return cls.made_of(engine, kinds, async_session_arguments(settings))

    @classmethod
    def made_of(
        cls, engine: AsyncEngine, kinds: Iterable[type[Session]], arguments: Mapping[str, Any]
    ) -> AsyncSessionFactory:
        from sqlmodel.ext.asyncio.session import AsyncSession

        return cls(engine, *(partial(AsyncSession, engine, sync_session_class=each, **arguments) for each in kinds))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        # The session's own exit is shielded from cancellation, and takes back what the transaction's exit could not.
        async with self.writing() as session, session.begin():
            yield session
            await greenlet_spawn(commit, session.sync_session)


@dataclass(frozen=True, slots=True)
class AsyncReaders:
    """What asynchronous reading sessions of one database are made with."""

    plain: Callable[[], AsyncSession]
    snapshot: Callable[[], AsyncSession]
    pick: Callable[[], Engine]  # the next server's
    router: Routing | None = None  # None: there are no replicas

    def over_several(self, kinds: Iterable[type[Session]], arguments: Mapping[str, Any]) -> AsyncReaders:
        """Return what makes sessions that find the database of each statement by themselves."""
        plain, snapshot = reading_makers(None, kinds, arguments)
        return replace(self, plain=plain, snapshot=snapshot)


def reading_makers(
    engine: AsyncEngine | None, kinds: Iterable[type[Session]], arguments: Mapping[str, Any]
) -> tuple[Callable[[], AsyncSession], Callable[[], AsyncSession]]:
    from sqlmodel.ext.asyncio.session import AsyncSession

    plain, snapshot = (partial(AsyncSession, engine, sync_session_class=each, **arguments) for each in kinds)
    return plain, snapshot
