"""The state of a database before the first test, and its restoration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, Table, cast, func, inspect, select, text
from sqlalchemy.dialects.postgresql import REGCLASS

_LOCK_TIMEOUT: Final = 5000  # milliseconds; a session that a test left open must not block the cleanup indefinitely


@dataclass(frozen=True, slots=True)
class Baseline:
    """The state of a database before the first test: its tables, and the rows that its migrations inserted."""

    metadata: MetaData
    rows: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, engine: Engine) -> Baseline:
        metadata = MetaData()
        with engine.connect() as connection:
            metadata.reflect(connection)
            rows = {
                table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
                for table in metadata.sorted_tables
            }
        return cls(metadata, {name: found for name, found in rows.items() if found})

    def restore(self, engine: Engine) -> bool:
        """Restore the rows, and drop further tables; return False if a table is missing."""
        with engine.connect() as connection, _without_foreign_keys(connection):
            present = set(inspect(connection).get_table_names())
            connection.rollback()
            known = {table.name for table in self.metadata.sorted_tables}
            cascade = " CASCADE" if engine.dialect.name == "postgresql" else ""
            with connection.begin():
                quote = engine.dialect.identifier_preparer.quote
                for name in present - known:
                    connection.execute(text(f"DROP TABLE {quote(name)}{cascade}"))
                kept = [table for table in reversed(self.metadata.sorted_tables) if table.name in present]
                if engine.dialect.name == "postgresql" and kept:
                    names = ", ".join(quote(table.name) for table in kept)
                    connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
                else:
                    for table in kept:
                        connection.execute(table.delete())
                for table in reversed(kept):
                    if table.name in self.rows:
                        connection.execute(table.insert(), self.rows[table.name])
                        _continue_sequences(connection, table)
            return known <= present


def _continue_sequences(connection: Connection, table: Table) -> None:
    """Advance sequences past the existing rows, which PostgreSQL does not do itself."""
    if connection.dialect.name != "postgresql":
        return
    quote = connection.dialect.identifier_preparer.quote
    for column in table.columns:
        owned = func.pg_get_serial_sequence(quote(table.name), column.name)
        sequence = connection.scalar(select(owned))
        if sequence is not None:
            connection.execute(
                select(func.setval(cast(sequence, REGCLASS), select(func.max(column)).scalar_subquery()))
            )


@contextmanager
def _without_foreign_keys(connection: Any) -> Iterator[None]:
    """Allow tables with circular references to be emptied one after the other."""
    name = connection.dialect.name
    off, on = {
        "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
        "postgresql": (f"SET lock_timeout = {_LOCK_TIMEOUT}", "RESET lock_timeout"),
    }.get(name, ("SET foreign_key_checks = 0", "SET foreign_key_checks = 1"))
    cursor = connection.connection.cursor()  # outside any transaction: SQLite ignores the PRAGMA within one
    cursor.execute(off)
    if name == "postgresql":
        connection.connection.commit()  # or a rollback would undo it
    try:
        yield
    finally:
        connection.rollback()
        cursor.execute(on)
        if name == "postgresql":
            connection.connection.commit()
        cursor.close()
