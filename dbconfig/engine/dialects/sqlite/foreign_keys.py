"""Turn foreign keys off temporarily, and drop tables that refer to each other together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, MetaData, Table, event
from sqlalchemy.exc import OperationalError

from dbconfig.engine.dialects.sqlite.connection import Connection as WatchedConnection
from dbconfig.engine.dialects.sqlite.connection import driver_of


def drop_together(connection: Connection, names: Iterable[str]) -> None:
    """Allow tables that refer to each other to be dropped in the open transaction; do nothing on other systems."""
    if connection.dialect.name != "sqlite":
        return
    ours = driver_of(connection.connection)
    dropping = {name.lower() for name in names}
    if not isinstance(ours, WatchedConnection) or not dropping or not _enforced(connection):
        return
    ours.dropping |= dropping  # rows that refer to these tables from others are looked for before the next statement
    if not suspend_foreign_keys(connection):
        # A row may refer to one that is deleted before it; both are deleted by COMMIT, which then does the check.
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")


@event.listens_for(MetaData, "before_drop")
def _drop_all(target: MetaData, connection: Connection, tables: Iterable[Table] = (), **_: Any) -> None:
    drop_together(connection, [table.name for table in tables])


def suspend_foreign_keys(connection: Connection) -> bool:
    """Turn foreign keys off until the connection is returned to its pool; return whether they are off now.

    That is impossible in a transaction that has written: SQLite ignores the PRAGMA in a transaction.
    """
    try:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    except OperationalError:
        return False
    return not _enforced(connection)


def _enforced(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("PRAGMA foreign_keys").scalar())
