"""Which tables live in which database, so that one session can serve several of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, MetaData, Table, event, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.sql import visitors
from sqlmodel import Session, SQLModel

from dbconfig import tables
from dbconfig.errors import ConfigError, Problem, quoted
from dbconfig.profile import DEFAULT, Profile
from dbconfig.protection import protected_elsewhere
from dbconfig.reading import Readers, ReadOnlySession, SnapshotSession
from dbconfig.sessions import SessionFactory, UnitOfWork, WritingSession
from dbconfig.settings import DatabaseSettings

if TYPE_CHECKING:
    from dbconfig.loops import Loops

Home = MetaData | type[Any] | Sequence[MetaData | type[Any]]


class Homes:
    """Where each table lives: bound by its metadata or by its model, else in the profile's own database."""

    def __init__(self) -> None:
        self._by: dict[MetaData | Table, str] = {}

    def __bool__(self) -> bool:
        return bool(self._by)

    def bind(self, database: str, what: MetaData | type[Any]) -> None:
        key = _metadata_or_table(what)
        known = self._by.setdefault(key, database)
        if known != database:
            raise InvalidRequestError(f"{_shown(what)} is bound to {quoted(known)} already, not to {quoted(database)}")

    def of(self, table: Table) -> str:
        by = self._by
        # What a query holds may be an annotated copy of the table; its metadata is the same.
        return by.get(table) or by.get(table.metadata.tables.get(table.key, table)) or by.get(table.metadata, DEFAULT)

    def names(self) -> list[str]:
        return list(dict.fromkeys(self._by.values()))

    def metadatas(self) -> list[MetaData]:
        bound = [key if isinstance(key, MetaData) else key.metadata for key in self._by]
        return list(dict.fromkeys([SQLModel.metadata, *bound]))

    def of_statement(self, mapper: Any, clause: Any) -> str:
        """Return the one database that a statement needs.

        Raises:
            InvalidRequestError: it needs several.
        """
        found = {self.of(table): table for table in _tables_of(mapper, clause)}
        if len(found) > 1:
            needed = ", ".join(f"{table.fullname} in {name}" for name, table in found.items())
            raise InvalidRequestError(f"one statement cannot read from several databases: {needed}")
        return next(iter(found), DEFAULT)


def _metadata_or_table(what: Any) -> MetaData | Table:
    if isinstance(what, MetaData):
        return what
    table = getattr(what, "__table__", None)
    if isinstance(table, Table):
        return table
    metadata = getattr(what, "metadata", None)
    if not isinstance(metadata, MetaData):
        raise TypeError(f"bind takes metadata and models, not {what!r}")
    if metadata is SQLModel.metadata and what is not SQLModel:
        raise InvalidRequestError(
            f"{_shown(what)} shares its metadata with all models: give it one of its own (metadata = MetaData())"
        )
    return metadata


def _shown(what: Any) -> str:
    return what.__name__ if isinstance(what, type) else repr(what)


def _tables_of(mapper: Any, clause: Any) -> Iterator[Table]:
    for each in (inspect(mapper).persist_selectable if mapper is not None else None, clause):
        if each is not None:
            yield from (found for found in visitors.iterate(each) if isinstance(found, Table))


class Bound(Session):
    """A session whose statements go to the database where their tables live."""

    def __init__(self, bind: Any = None, *, homes: Homes, open_: Callable[[str], Any], **arguments: Any) -> None:
        super().__init__(bind, **arguments)
        self._homes = homes
        self._open = open_
        self._opened: dict[str, Any] = {}  # the engine of each database that it has used

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **keywords: Any) -> Any:
        if bind is not None:
            return bind
        name = self._homes.of_statement(mapper, clause)
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]


class BoundSession(Bound):
    """The usual session, over several databases."""


class BoundWriting(Bound, WritingSession):
    """The session of `transaction` over several databases."""


class BoundUnitOfWork(Bound, UnitOfWork, WritingSession):
    """The session of `run_in_transaction` over several databases."""


class BoundReading(Bound, ReadOnlySession):
    """A reading session over several databases."""


class BoundSnapshot(BoundReading, SnapshotSession):
    """A reading session with one snapshot in each of several databases."""


@event.listens_for(BoundReading, "after_begin", propagate=True)
def _stay(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if isinstance(session, BoundReading):
        fleet = getattr(connection.engine, "fleet", None)
        for name, engine in session._opened.items():
            if fleet is not None and getattr(engine, "fleet", None) is fleet:
                session._opened[name] = connection.engine  # `connect` may have led to another server


class Binding:
    """What a registry does with tables, and for models that live in several databases."""

    _lock: threading.RLock
    _path: str | os.PathLike[str] | None
    _given: Profile | None
    _homes: Homes
    _factories: dict[tuple[str | None, str], SessionFactory]
    _sessions: dict[str, Callable[[], Session]]
    _readers: dict[tuple[str | None, str], Readers]
    _loops: Loops | None
    _profiles: dict[str | None, Profile]

    def bind(self, **databases: Home) -> None:
        """Say which tables live in which database: ``db.bind(analytics=AnalyticsBase.metadata)``.

        From then on `session()`, `transaction()` and `run_in_transaction()` without a database serve all of them, each
        statement where its tables are, and `create_tables()` sends each table to its own. Each database commits for
        itself: between two of them there is no atomicity.

        Args:
            databases: by name, metadata, a base class with metadata of its own, a model, or a list of them.

        Raises:
            InvalidRequestError: something is bound to another database already.
            ConfigError: the profile has no such database; before the profile is loaded nobody knows, and the first
                statement says so.
        """
        with self._lock:
            known = self._profiles.get(None)
            for name, found in databases.items():
                if known is not None:
                    known.database(name)
                for what in found if isinstance(found, Sequence) else (found,):
                    self._homes.bind(name, what)
            for (profile, database), factory in list(self._factories.items()):
                if database == DEFAULT:
                    self._factories[profile, database] = self._bound(factory, profile)
            self._sessions.pop(DEFAULT, None)
            self._readers = {key: readers for key, readers in self._readers.items() if key[1] != DEFAULT}
            if self._loops is not None:
                self._loops.unbind(DEFAULT)

    def create_tables(self, *models: type[SQLModel] | Table | str, database: str = DEFAULT) -> list[str]:
        """Create the tables of models, or of all that are imported; those that exist are left alone.

        Safe when several processes start at once. Foreign keys decide the order.

        Args:
            models: SQLModel classes or table names; none of them is all.
            database: where; unless one is given, each goes where `bind` has put it.

        Returns:
            The names of the tables that were created.

        Raises:
            ConfigError: a name is no table's, or another profile protects this database.
        """
        created = []
        for name, found in self._by_home(models, database).items():
            self._refuse_foreign(name, "create tables", destructive=False)
            created += tables.create(self.engine(name), found)
        return created

    def drop_tables(self, *models: type[SQLModel] | Table | str, database: str = DEFAULT) -> list[str]:
        """Drop the tables of models, or of all that are imported.

        Returns:
            The names of the tables that were dropped.

        Raises:
            ConfigError: the database is protected, by this profile or by another one that points at it.
        """
        wanted = self._by_home(models, database)
        for name in wanted:
            self._refuse_protected(name)
        return [name for home, found in wanted.items() for name in tables.drop(self.engine(home), found)]

    def _refuse_protected(self, database: str) -> None:
        settings = self._settings(self.profile, database)
        if settings.protected:
            message = f"profile {quoted(self.profile.name)} is protected: dropping tables is refused"
            help = "a profile that may lose its tables says `protected: false`"
            raise ConfigError([Problem("protected", message, settings.origin("protected"), "protected", help)])
        self._refuse_foreign(database, "drop tables", destructive=True)

    def _refuse_foreign(self, database: str, what: str, *, destructive: bool) -> None:
        profile = self.profile
        if self._given is not None:
            return  # made in code: there are no other profiles beside it
        settings = self._settings(profile, database)
        owner = protected_elsewhere(
            profile, settings, destructive=destructive, path=self._path, environ=self._environ()
        )
        if owner:
            message = (
                f"refused to {what}: profile {quoted(profile.name)} points at the same database as {quoted(owner)}, "
                "which is protected"
            )
            help = f"give {quoted(profile.name)} a database of its own, or run with ENVIRONMENT={owner}"
            raise ConfigError([Problem("database-elsewhere", message, help=help)])

    def _bound(self, factory: SessionFactory, profile: str | None) -> SessionFactory:
        """Return a factory whose sessions serve all databases of a profile."""

        def open_(name: str) -> Engine:
            return factory.engine if name == DEFAULT else self.engine(name, profile=profile)

        arguments = {"homes": self._homes, "open_": open_, **getattr(factory.session, "keywords", {})}
        kinds = (BoundSession, BoundWriting, BoundUnitOfWork)
        made = [partial(kind, factory.engine, **arguments) for kind in kinds]
        return replace(factory, session=made[0], writing=made[1], unit_of_work=made[2])

    def _by_home(self, models: Sequence[Any], database: str) -> dict[str, Sequence[Any]]:
        """Return the tables of models, or of all, by the database that they are to be in."""
        if not self._homes:
            return {database: models}
        found = tables.selected(models, self._homes.metadatas())
        if database != DEFAULT and models:
            return {database: found}  # somebody knows better
        grouped: dict[str, list[Any]] = {}
        for table in found:
            grouped.setdefault(self._homes.of(table), []).append(table)
        if database != DEFAULT:
            grouped = {database: grouped.get(database, [])}
        return {name: group for name, group in grouped.items() if group}

    def _bound_readers(self, readers: Readers, arguments: Mapping[str, Any], profile: str | None) -> Readers:
        """Return what makes reading sessions that serve all databases of a profile."""

        def open_(name: str) -> Engine:
            return readers.pick() if name == DEFAULT else self._readers_of(name, profile).pick()

        how = {"homes": self._homes, "open_": open_, **arguments}
        return replace(readers, plain=partial(BoundReading, None, **how), snapshot=partial(BoundSnapshot, None, **how))

    # What the registry has.

    if TYPE_CHECKING:

        @property
        def profile(self) -> Profile: ...
        def _environ(self) -> Mapping[str, str] | None: ...
        def engine(self, database: str = DEFAULT, *, profile: str | None = None) -> Engine: ...
        def _settings(self, profile: Profile, database: str) -> DatabaseSettings: ...
        def _readers_of(self, database: str, name: str | None) -> Readers: ...
