"""Create and drop tables, all or the named ones; safe when several workers start together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, Table, inspect, text
from sqlalchemy.schema import sort_tables_and_constraints
from sqlalchemy.util import await_only
from sqlmodel import SQLModel

from dbconfig.engine import declarative_bases
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.errors.problem import Problem

_log = logging.getLogger("dbconfig.tables")

_LOCK: Final = 0x6462636F6E666967  # "dbconfig": the advisory lock for creating and dropping tables
_LOCK_TIMEOUT: Final = 60.0  # seconds; another worker's DDL takes long on a large database
_LOCK_PAUSE: Final = 0.02  # seconds between two attempts to take the lock


# A model, a table or its name; all tables of metadata, or of a declarative base.
What = type[Any] | Table | MetaData | str


def create(engine: Engine, tables: Sequence[What]) -> list[str]:
    """Create missing tables; return their names, in the order of creation."""
    with _locked(engine) as connection:
        missing = [table for table in selected(tables) if not _exists(connection, table)]
        for metadata, group in _by_metadata(missing):
            # Checks what exists: a type (ENUM) may exist already, for another table.
            metadata.create_all(connection, tables=group)
        return [table.fullname for table in missing]


def drop(engine: Engine, tables: Sequence[What]) -> list[str]:
    """Drop existing tables; return their names, in the order of dropping."""
    with _locked(engine) as connection:
        present = [table for table in selected(tables) if _exists(connection, table)]
        if connection.dialect.name == "sqlite":
            from dbconfig.engine.dialects.sqlite import foreign_keys

            foreign_keys.drop_together(connection, [table.name for table in present])
        for metadata, group in _by_metadata(present):
            if connection.dialect.name == "sqlite" and _form_a_circle(group):
                # drop_all would warn: it removes the constraints first elsewhere, which SQLite cannot.
                for table in reversed(group):
                    table.drop(connection, checkfirst=False)
            else:
                metadata.drop_all(connection, tables=group)
        return [table.fullname for table in reversed(present)]


def _form_a_circle(tables: Sequence[Table]) -> bool:
    pairs = sort_tables_and_constraints(tables)  # type: ignore[no-untyped-call]
    return any(table is None and constraints for table, constraints in pairs)


def _exists(connection: Connection, table: Table) -> bool:
    # The schema to which `schema_translate_map` maps the table's own.
    return inspect(connection).has_table(table.name, schema=connection.schema_for_object(table))


def selected(tables: Sequence[What], metadatas: Sequence[MetaData] = (SQLModel.metadata,)) -> list[Table]:
    """Return the given tables, or all, in the order in which their foreign keys allow them to be created."""
    if not tables:
        every = [table for metadata in metadatas for table in _sorted(metadata)]
        if not every:
            _refuse_other_bases()
            _log.warning(
                "no tables are defined: import the modules of your models before creating or dropping tables",
                extra={"tables": 0},
            )
        return every
    named = dict.fromkeys(table for each in tables for table in _tables(each, metadatas))
    return [
        table
        for metadata in dict.fromkeys(table.metadata for table in named)
        for table in _sorted(metadata)
        if table in named
    ]


def _sorted(metadata: MetaData) -> list[Table]:
    # Unlike `metadata.sorted_tables`, without a warning if tables refer to each other: those keys are added last.
    tables = sorted(metadata.tables.values(), key=lambda table: table.fullname)
    pairs = sort_tables_and_constraints(tables)  # type: ignore[no-untyped-call]
    return [table for table, _ in pairs if table is not None]


def _refuse_other_bases() -> None:
    bases = declarative_bases.with_tables()
    if bases:
        base = bases[0].partition(" ")[0].rpartition(".")[2]
        message = "SQLModel.metadata has no tables, but other declarative bases do"
        help = f"pass the base: db.create_tables({base}); in tests, let the fixture `db_setup` do so"
        notes = (f"bases found: {', '.join(bases)}",)
        raise ConfigError([Problem("unknown-table", message, help=help, notes=notes)])


def _tables(each: Any, metadatas: Sequence[MetaData]) -> list[Table]:
    metadata = declarative_bases.metadata_of(each)
    return [_table(each, metadatas)] if metadata is None else _sorted(metadata)


def _table(each: What, metadatas: Sequence[MetaData]) -> Table:
    if isinstance(each, Table):
        return each
    if not isinstance(each, str):
        table: Any = getattr(each, "__table__", None)
        if table is None:
            name = getattr(each, "__name__", repr(each))
            if not (isinstance(each, type) and issubclass(each, SQLModel)):
                help = "pass a model, a Table, a table's name, MetaData, or a declarative base"
                raise ConfigError([Problem("unknown-table", f"{name} has no table", help=help)])
            message = f"{name} is not a table: its class has no `table=True`"
            raise ConfigError([Problem("unknown-table", message, help=f"class {name}(SQLModel, table=True)")])
        return table  # type: ignore[no-any-return]  # SQLModel does not declare __table__
    known = {name: table for metadata in metadatas for name, table in metadata.tables.items()}
    if each in known:
        return known[each]
    notes = (f"tables of the models that are imported: {', '.join(known) or 'none'}",)
    help = did_you_mean(suggest(each, known)) or "import the module of its model first"
    raise ConfigError([Problem("unknown-table", f"no model has a table {quoted(each)}", help=help, notes=notes)])


def _by_metadata(tables: Sequence[Table]) -> Iterator[tuple[MetaData, list[Table]]]:
    for metadata in dict.fromkeys(table.metadata for table in tables):
        yield metadata, [table for table in tables if table.metadata is metadata]


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """Let one worker at a time check and create: otherwise another one could create the same table in between."""
    with engine.connect() as connection:
        backend = connection.dialect.name
        if backend == "postgresql":
            # Whatever the profile's level: AUTOCOMMIT would release the lock immediately, and a snapshot older than the
            # lock would not show what the previous worker has created.
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                _wait_for_lock(connection, "SELECT pg_try_advisory_xact_lock(:name)", _LOCK)
                yield connection
        elif backend == "sqlite":
            from dbconfig.engine.dialects.sqlite.transactions import begin_immediate

            connection.execution_options(isolation_level="SERIALIZABLE")  # AUTOCOMMIT would have no transaction
            with connection.begin():
                begin_immediate(connection)
                yield connection
        elif backend in ("mysql", "mariadb"):
            with _named_lock(connection):
                yield connection
                connection.commit()
        else:
            with connection.begin():  # no lock is supported: a second worker's CREATE fails with the system's own error
                yield connection


@contextmanager
def _named_lock(connection: Connection) -> Iterator[None]:
    """Hold a session-level lock of MySQL: DDL commits implicitly, and releases any transaction-level lock."""
    name = f"{_LOCK:x}"
    _wait_for_lock(connection, "SELECT GET_LOCK(:name, 0)", name)
    try:
        yield
    finally:
        if not connection.invalidated:  # a lost connection has released its lock
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


def _wait_for_lock(connection: Connection, ask: str, name: int | str) -> None:
    """Poll until the lock is acquired: a single blocking call would run into the profile's own timeouts."""
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while not connection.scalar(text(ask), {"name": name}):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"another process has been creating tables for {_LOCK_TIMEOUT:.0f} s: its lock {_LOCK:x} is not free"
            )
        _pause(connection)


def _pause(connection: Connection) -> None:
    if connection.dialect.is_async:
        await_only(asyncio.sleep(_LOCK_PAUSE))
    else:
        time.sleep(_LOCK_PAUSE)
