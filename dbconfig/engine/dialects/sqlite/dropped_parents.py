"""DROP TABLE must not delete rows of other tables, which SQLite does if foreign keys are enforced.

SQLite deletes the table's rows first, and so cascades, sets to NULL, or fails. PostgreSQL and MariaDB raise an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from dbconfig.engine.dialects.sqlite.statements import dropped_tables

# By number, since a key can have several columns; `to` is NULL if it refers to the primary key.
_KEYS: Final = """
    SELECT child.name, key.id, key."from", key."to", key.seq
    FROM {schema}.sqlite_master AS child JOIN pragma_foreign_key_list(child.name, :schema) AS key
    WHERE child.type = 'table' AND key."table" = :parent COLLATE NOCASE AND child.name <> :parent COLLATE NOCASE
    ORDER BY child.name, key.id, key.seq
"""
_PRIMARY_KEY: Final = "SELECT name FROM pragma_table_info(:parent, :schema) WHERE pk > 0 ORDER BY pk"


def refuse_script(connection: sqlite3.Connection, script: str, together: Iterable[str]) -> None:
    """Raise if a script drops a table that rows of other tables refer to.

    Args:
        connection: with foreign keys on or off.
        script: one statement or several.
        together: names of further tables that are about to be dropped.
    """
    dropped = list(dropped_tables(script))
    if dropped:
        schema = next((schema for schema, _ in dropped if schema is not None), None)
        refuse_to_drop(connection, {*together, *(name for _, name in dropped)}, schema)


def refuse_to_drop(
    connection: sqlite3.Connection, names: Iterable[str], schema: str | None = None, *, enforced: bool = False
) -> None:
    """Raise if rows of other tables refer to one of these, and foreign keys are on or `enforced` is set."""
    with closing(sqlite3.Cursor(connection)) as cursor:
        if not enforced and not cursor.execute("PRAGMA foreign_keys").fetchone()[0]:
            return
        gone = {name.lower() for name in names}
        for parent in sorted(gone):
            found = schema or _schema_of(cursor, parent)
            if found is None:
                continue  # the table does not exist
            children = [child for child in _referring(cursor, found, parent) if child.lower() not in gone]
            if children:
                raise sqlite3.IntegrityError(_refusal(parent, children))


def _refusal(parent: str, children: list[str]) -> str:
    return (
        f"FOREIGN KEY constraint failed: DROP TABLE {parent} would delete or change rows of {', '.join(children)}, "
        "which refer to it. Drop those tables together with it, or execute PRAGMA foreign_keys = OFF as the first "
        "statement of the session or connection"
    )


def _schema_of(cursor: sqlite3.Cursor, name: str) -> str | None:
    """Return the schema in which SQLite finds a table by its bare name."""
    schemas = [row[1] for row in cursor.execute("PRAGMA database_list")]
    for schema in sorted(schemas, key=lambda each: (each != "temp", each != "main")):
        master = f"{_quoted(schema)}.sqlite_master"
        ask = f"SELECT 1 FROM {master} WHERE type = 'table' AND name = ? COLLATE NOCASE"  # noqa: S608  # quoted
        if cursor.execute(ask, (name,)).fetchone():
            return str(schema)
    return None


def _referring(cursor: sqlite3.Cursor, schema: str, parent: str) -> list[str]:
    """Return the tables with rows that refer to rows of a table."""
    names = {"schema": schema, "parent": parent}
    keys: dict[tuple[str, int], list[tuple[str, str | None]]] = {}
    for child, number, here, there, _ in cursor.execute(_KEYS.format(schema=_quoted(schema)), names).fetchall():
        keys.setdefault((child, number), []).append((here, there))
    primary = [name for (name,) in cursor.execute(_PRIMARY_KEY, names).fetchall()]
    found = []
    for (child, _), columns in keys.items():
        theirs = [there for _, there in columns if there is not None] or primary
        if len(theirs) != len(columns):
            continue  # a key that matches nothing refers to nothing
        # The parent's column on the left, whose affinity and collation decide, as in the foreign key itself.
        same = " AND ".join(
            f"p.{_quoted(there)} = c.{_quoted(here)}" for there, (here, _) in zip(theirs, columns, strict=True)
        )
        tables = f"{_quoted(schema)}.{_quoted(parent)} AS p JOIN {_quoted(schema)}.{_quoted(child)} AS c ON {same}"
        ask = f"SELECT 1 FROM {tables} LIMIT 1"  # noqa: S608  # quoted
        if child not in found and cursor.execute(ask).fetchone():
            found.append(child)
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
