"""Create and drop tables: all, or the named ones with what they need; safe when several workers start at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, Table, inspect, text
from sqlmodel import SQLModel

from dbconfig.errors import ConfigError, Problem, quoted

_LOCK: Final = 0x6462636F6E666967  # "dbconfig": the advisory lock of everybody who creates or drops tables
_LOCK_TIMEOUT: Final = 60  # seconds; another worker's DDL takes long on a large database


def create(engine: Engine, tables: Sequence[type[SQLModel] | str]) -> list[str]:
    """Create the tables that are not there yet; return their names, in the order of creation."""
    with _locked(engine) as connection:
        missing = [table for table in _selected(tables) if not _exists(connection, table)]
        for metadata, group in _by_metadata(missing):
            metadata.create_all(connection, tables=group, checkfirst=False)
        return [table.fullname for table in missing]


def drop(engine: Engine, tables: Sequence[type[SQLModel] | str]) -> list[str]:
    """Drop the tables that are there; return their names, in the order of dropping."""
    with _locked(engine) as connection:
        present = [table for table in _selected(tables) if _exists(connection, table)]
        for metadata, group in _by_metadata(present):
            metadata.drop_all(connection, tables=group, checkfirst=False)
        return [table.fullname for table in reversed(present)]


def _exists(connection: Connection, table: Table) -> bool:
    return inspect(connection).has_table(table.name, schema=table.schema)


def _selected(tables: Sequence[type[SQLModel] | str]) -> list[Table]:
    """Return tables in the order in which their foreign keys allow to create them."""
    if not tables:
        return list(SQLModel.metadata.sorted_tables)
    named = [_table(each) for each in tables]
    order = {
        table: position
        for metadata in {table.metadata for table in named}
        for position, table in enumerate(metadata.sorted_tables)
    }
    return sorted(dict.fromkeys(named), key=lambda table: order[table])


def _table(each: type[SQLModel] | str) -> Table:
    if not isinstance(each, str):
        table: Any = getattr(each, "__table__", None)
        if table is None:
            message = f"{each.__name__} is no table: its class has no `table=True`"
            raise ConfigError([Problem("unknown-table", message, help=f"class {each.__name__}(SQLModel, table=True)")])
        return table  # type: ignore[no-any-return]  # SQLModel does not declare __table__
    known = SQLModel.metadata.tables
    if each in known:
        return known[each]
    near = get_close_matches(each, known, 1, 0.6)
    notes = (f"tables of the models that are imported: {', '.join(known) or 'none'}",)
    help = f"did you mean {near[0]!r}?" if near else "import the module of its model first"
    raise ConfigError([Problem("unknown-table", f"no model has a table {quoted(each)}", help=help, notes=notes)])


def _by_metadata(tables: Sequence[Table]) -> Iterator[tuple[MetaData, list[Table]]]:
    for metadata in dict.fromkeys(table.metadata for table in tables):
        yield metadata, [table for table in tables if table.metadata is metadata]


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """Let one worker at a time look and create: in between, another one would create the same table."""
    with engine.connect() as connection:
        backend = connection.dialect.name
        if backend == "postgresql":
            with connection.begin():
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                yield connection
        elif backend == "sqlite":
            connection.exec_driver_sql("ROLLBACK") if connection.in_transaction() else None
            with connection.begin():
                driver_connection: Any = connection.connection.dbapi_connection
                driver_connection.execute("ROLLBACK")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        else:
            with _named_lock(connection):
                yield connection
                connection.commit()


@contextmanager
def _named_lock(connection: Connection) -> Iterator[None]:
    """Hold MySQL's lock of the session: DDL commits by itself, and with it any lock of a transaction."""
    name = {"name": f"{_LOCK:x}"}
    if connection.scalar(text("SELECT GET_LOCK(:name, :timeout)"), {**name, "timeout": _LOCK_TIMEOUT}) != 1:
        raise TimeoutError(
            f"another process has been creating tables for {_LOCK_TIMEOUT} s: its lock {_LOCK:x} is not free"
        )
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)
