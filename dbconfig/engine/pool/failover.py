"""A primary that has become read-only, or is shutting down, is left: the next checkout connects anew."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext

logger = logging.getLogger("dbconfig.pool.failover")

_READ_ONLY_STATE = "25006"  # PostgreSQL: read_only_sql_transaction
# MySQL: running with --read-only, transaction in a read-only server, read-only mode.
_READ_ONLY_CODES = frozenset({1290, 1792, 1836})
# PostgreSQL: admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped, idle_session_timeout.
_SHUTDOWN_STATES = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05"})
_SHUTDOWN_CODES = frozenset({1053, 1927})  # MySQL: server shutdown in progress; MariaDB: connection was killed


def attach(engine: Engine, name: str) -> None:
    """Invalidate the pool of a primary when it refuses a write for being read-only, or goes down."""

    def handle_error(context: ExceptionContext) -> None:
        if context.is_disconnect:
            return
        error = context.original_exception
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        code = error.args[0] if error.args and isinstance(error.args[0], int) else None
        if state in _SHUTDOWN_STATES or code in _SHUTDOWN_CODES:
            context.is_disconnect = True
        elif (state == _READ_ONLY_STATE or code in _READ_ONLY_CODES) and not _asked_for_read_only(context, code):
            logger.warning("%s: the primary is read-only now; all its connections are replaced (%s)", name, error)
            context.is_disconnect = True

    event.listen(engine, "handle_error", handle_error)


def _asked_for_read_only(context: ExceptionContext, code: int | None) -> bool:
    """Whether the transaction was declared read-only by the application, which is then at fault, not the server."""
    connection = context.connection
    if connection is None:
        return False
    if connection.get_execution_options().get("postgresql_readonly"):
        return True
    if code is not None:
        return code == 1290 and "--read-only" not in str(context.original_exception)
    # Since version 14 PostgreSQL reports both without being asked: a read-only transaction on a server that is neither
    # a standby nor read-only by default was made so by a statement of the application.
    states = [_parameter(connection, key) for key in ("in_hot_standby", "default_transaction_read_only")]
    return states == ["off", "off"]


def _parameter(connection: Any, key: str) -> str | None:
    """Return what the server last reported of a setting, without a round trip."""
    try:
        driver = connection.connection.driver_connection
        if hasattr(driver, "get_parameter_status"):  # psycopg2
            value = driver.get_parameter_status(key)
        elif hasattr(driver, "pgconn"):  # psycopg
            raw = driver.pgconn.parameter_status(key.encode())
            value = None if raw is None else raw.decode()
        elif hasattr(driver, "get_settings"):  # asyncpg
            value = getattr(driver.get_settings(), key, None)
        else:
            value = None
    except Exception as error:  # the connection broke together with the statement
        logger.debug("no parameter %s: %s", key, error)
        return None
    return value if isinstance(value, str) else None
