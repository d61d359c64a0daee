"""Transactions that actually begin on SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbconfig.engine.dialects.sqlite.connection import Connection, driver_of

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy.pool import PoolProxiedConnection


def begin(connection: PoolProxiedConnection) -> None:
    """Begin a transaction now; in memory, with the first statement that writes.

    The driver begins only before a write: DDL would not be rolled back, a released SAVEPOINT would survive the
    rollback, and data read before the write could have changed. Databases in memory have no write-ahead log, so an open
    transaction that has read would block every writer; there, the connection itself checks whether the data that it has
    read has changed.
    """
    adapted: Any = connection.dbapi_connection
    ours = adapted if isinstance(adapted, Connection) else driver_of(connection)
    # An isolation level of None is SQLAlchemy's AUTOCOMMIT.
    if ours.isolation_level is None or ours.in_transaction:
        return
    if ours.in_memory:
        ours.begin_late()
    else:
        run(adapted, "BEGIN")


def begin_immediate(connection: sqlalchemy.Connection) -> None:
    """Take the write lock now, replacing the BEGIN that has just been sent; do nothing in AUTOCOMMIT."""
    adapted: Any = connection.connection.dbapi_connection
    ours = driver_of(connection.connection)
    if not ours.in_transaction and not ours.late:
        return
    ours.look_for_own_turn()
    if ours.in_transaction:
        run(adapted, "ROLLBACK")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    ours.remember_turn()


def is_open(connection: Any) -> bool:
    """Return whether a transaction is open, or will begin with the first statement that writes."""
    ours = driver_of(connection)
    return bool(ours.in_transaction or getattr(ours, "late", False))


def run(connection: Any, statement: str) -> Any:
    """Run a statement on a connection of the driver, or on SQLAlchemy's adapter of an asynchronous one; return a row.

    Uses a cursor: the return value of the adapter's `execute` differs between SQLAlchemy 2.0 and 2.1.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone() if cursor.description else None
    finally:
        cursor.close()
