"""Tables that an Alembic batch migration recreates: no row that refers to one is lost or left dangling.

The migration copies the table, drops it, and renames the copy. SQLite would delete the rows of the dropped table, which
cascades. So foreign keys are off meanwhile (https://www.sqlite.org/lang_altertable.html#otheralter), and are checked
here.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

from dbconfig.engine.dialects.sqlite import dropped_parents
from dbconfig.engine.dialects.sqlite.statements import COPY, dropped_tables

Violations = Counter[tuple[str, str]]  # by child and parent


def drop(connection: sqlite3.Connection, script: str, together: frozenset[str], before: dict[str, Violations]) -> None:
    """Record tables that a script drops while foreign keys are off; raise for one that no copy replaces."""
    for schema, name in dropped_tables(script):
        if _has_copy(connection, name):
            before.setdefault(name.lower(), _violations(connection, name))
        else:
            dropped_parents.refuse_to_drop(connection, {*together, name}, schema, enforced=True)


def check(connection: sqlite3.Connection, before: dict[str, Violations]) -> None:
    """Raise if rows have lost the row that they referred to before."""
    for name, found in before.items():
        for (child, parent), count in (_violations(connection, name) - found).items():
            raise sqlite3.IntegrityError(
                f"FOREIGN KEY constraint failed: after the batch migration of {name}, {count} rows of {child} refer to "
                f"no row of {parent}"
            )


def _has_copy(connection: sqlite3.Connection, name: str) -> bool:
    ask = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
    with closing(sqlite3.Cursor(connection)) as cursor:
        return cursor.execute(ask, (COPY + name,)).fetchone() is not None


def _violations(connection: sqlite3.Connection, name: str) -> Violations:
    with closing(sqlite3.Cursor(connection)) as cursor:
        rows = cursor.execute("PRAGMA foreign_key_check").fetchall()
    pairs = ((str(child), str(parent)) for child, _, parent, _ in rows)
    return Counter(pair for pair in pairs if name.lower() in (pair[0].lower(), pair[1].lower()))
