"""The assignment of tables to databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, MetaData, Table, event, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.sql import visitors
from sqlmodel import SQLModel

from dbconfig.errors.printable import quoted
from dbconfig.sessions.commit import commit
from dbconfig.sessions.session import Committing, ReadOnlySession, SnapshotSession, UnitOfWork, WritingSession
from dbconfig.settings.loaded_profile import DEFAULT

Home = MetaData | type[Any] | Sequence[MetaData | type[Any]]


class Homes:
    """The database of each table: bound by its metadata or its model, else the profile's own database."""

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
        # A query may contain an annotated copy of the table; its metadata is the same.
        return by.get(table) or by.get(table.metadata.tables.get(table.key, table)) or by.get(table.metadata, DEFAULT)

    def names(self) -> list[str]:
        return list(dict.fromkeys(self._by.values()))

    def metadatas(self) -> list[MetaData]:
        bound = [key if isinstance(key, MetaData) else key.metadata for key in self._by]
        return list(dict.fromkeys([SQLModel.metadata, *bound]))

    def grouped(self, models: Sequence[Any], database: str) -> dict[str, Sequence[Any]]:
        """Return the tables of the models, or all tables, by their database."""
        if not self:
            return {database: models}
        from dbconfig.engine import create_tables

        found = create_tables.selected(models, self.metadatas())
        if database != DEFAULT and models:
            return {database: found}  # the caller has chosen the database
        groups: dict[str, list[Any]] = {}
        for table in found:
            groups.setdefault(self.of(table), []).append(table)
        if database != DEFAULT:
            groups = {database: groups.get(database, [])}
        return {name: group for name, group in groups.items() if group}

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
    """A session whose statements go to the database of their tables."""

    def __init__(self, bind: Any = None, *, homes: Homes, open_: Callable[[str], Any], **arguments: Any) -> None:
        super().__init__(bind, **arguments)
        self._homes = homes
        self._open = open_
        self._opened: dict[str, Any] = {}  # the engine of each database that it has used

    def name_of(self, connection: Connection) -> str:
        """Return the name of a connection's database for errors."""
        names = [name for name, engine in self._opened.items() if engine is connection.engine]
        return names[0] if names else str(connection.engine.logging_name)

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **keywords: Any) -> Any:
        if bind is not None:
            return bind
        name = self._homes.of_statement(mapper, clause)
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]


class BoundSession(Bound, Committing):
    """The usual session, over several databases."""

    def commit(self) -> None:
        commit(self)


class BoundWriting(Bound, WritingSession):
    """The session of `transaction` over several databases."""

    def commit(self) -> None:
        commit(self)


class BoundUnitOfWork(Bound, UnitOfWork, WritingSession):
    """The session of `run_in_transaction` over several databases."""


class BoundReading(Bound, ReadOnlySession):
    """A read-only session over several databases."""


class BoundSnapshot(BoundReading, SnapshotSession):
    """A read-only session with one snapshot in each of several databases."""


@event.listens_for(BoundReading, "after_begin", propagate=True)
def _stay(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if isinstance(session, BoundReading):
        fleet = getattr(connection.engine, "fleet", None)
        for name, engine in session._opened.items():
            if fleet is not None and getattr(engine, "fleet", None) is fleet:
                session._opened[name] = connection.engine  # `connect` may have used another server
