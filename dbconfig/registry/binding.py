"""Which tables live in which database, so that one session can serve several of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Table
from sqlmodel import Session, SQLModel

from dbconfig.config.protected_databases import refuse_elsewhere
from dbconfig.engine import create_tables
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.sessions.model_databases import (
    BoundReading,
    BoundSession,
    BoundSnapshot,
    BoundUnitOfWork,
    BoundWriting,
    Home,
    Homes,
)
from dbconfig.sessions.sessionmaker import Readers, SessionFactory
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.profile import DEFAULT, Profile

if TYPE_CHECKING:
    from dbconfig.registry.event_loops import Loops


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
        statement where its tables are, and `create_tables()` sends each table to its own. At a commit
        they commit in two phases where their servers keep prepared transactions, else one after the other.

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
            created += create_tables.create(self.engine(name), found)
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
        return [name for home, found in wanted.items() for name in create_tables.drop(self.engine(home), found)]

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
        refuse_elsewhere(profile, settings, what, destructive=destructive, path=self._path, environ=self._environ())

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
        found = create_tables.selected(models, self._homes.metadatas())
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
