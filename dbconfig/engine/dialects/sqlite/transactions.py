"""Transactions that really begin on SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.pool import PoolProxiedConnection


def begin(connection: PoolProxiedConnection) -> None:
    """Begin a transaction now.

    The driver begins only before a write: DDL would not be rolled back, a released SAVEPOINT would survive the
    rollback, and what was read before the write could have changed.
    """
    adapted: Any = connection.dbapi_connection
    driver_connection: Any = connection.driver_connection  # aiosqlite's own, or the same one
    # An isolation level of None is SQLAlchemy's AUTOCOMMIT.
    if driver_connection.isolation_level is not None and not driver_connection.in_transaction:
        run(adapted, "BEGIN")


def begin_immediate(connection: Connection) -> None:
    """Take the write lock now, in place of the BEGIN that has just been sent; do nothing in AUTOCOMMIT."""
    adapted: Any = connection.connection.dbapi_connection
    driver_connection: Any = connection.connection.driver_connection  # aiosqlite's own, or the same one
    if driver_connection.in_transaction:
        run(adapted, "ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def run(connection: Any, statement: str) -> Any:
    """Run a statement on a connection of the driver, or on SQLAlchemy's adapter of an asynchronous one; return a row.

    By way of a cursor: what the adapter's `execute` returns differs between SQLAlchemy 2.0 and 2.1.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone() if cursor.description else None
    finally:
        cursor.close()
