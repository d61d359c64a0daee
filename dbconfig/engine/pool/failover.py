"""Leave a primary that has become read-only or is shutting down: the next checkout reconnects."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool import driver
from dbconfig.engine.pool.facts import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Engine, ExceptionContext

    from dbconfig.engine.pool.options import Judge

logger: logging.Logger = logging.getLogger("dbconfig.pool.failover")

# Whether the server itself rejects writes; MySQL gives the same error for the application's own READ ONLY.
_SERVER_READ_ONLY = ("read_only", "innodb_read_only", "tx_read_only", "transaction_read_only")


def attach(engine: Engine, name: str, judge: Judge, count: Callable[[], None]) -> None:
    """Invalidate the pool of a primary that has become read-only, which is counted, or shuts down."""

    of_driver = engine.dialect.loaded_dbapi.Error

    def handle_error(context: ExceptionContext) -> None:
        error = context.original_exception
        # An error of the application's own code, as of a type's conversion, says nothing about the connection.
        if context.is_disconnect or not isinstance(error, of_driver):
            return
        if judge.ends_connection(error):
            context.is_disconnect = True
        elif judge.refuses_writes(error) and not _asked_for_read_only(context, judge):
            logger.warning(
                "%s: the primary has become read-only; replacing all of its connections (%s)",
                name,
                error,
                extra=facts(name),
            )
            count()
            context.is_disconnect = True

    event.listen(engine, "handle_error", handle_error)


def _asked_for_read_only(context: ExceptionContext, judge: Judge) -> bool:
    """Whether the transaction was declared read-only by the application, which is then at fault, not the server."""
    connection = context.connection
    if connection is None:
        return False
    if connection.get_execution_options().get("postgresql_readonly"):
        return True
    if connection.dialect.name in ("mysql", "mariadb"):
        return _is_off(connection, _SERVER_READ_ONLY)
    # Since version 14 PostgreSQL reports both without being asked: a read-only transaction on a server that is neither
    # a standby nor read-only by default was made so by a statement of the application.
    standby, by_default = (_parameter(connection, key) for key in ("in_hot_standby", "default_transaction_read_only"))
    return standby != "on" and ((standby, by_default) == ("off", "off") or judge.declares_read_only())


def _is_off(connection: Any, variables: Sequence[str]) -> bool:
    """Whether all of these global variables are off. MySQL accepts further statements after one that it rejected."""
    cursor = connection.connection.cursor()
    try:
        names = ", ".join(f"'{name}'" for name in variables)
        cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names}) AND Value NOT IN ('OFF', '0')")
        return cursor.fetchone() is None
    except Exception as error:  # the connection broke together with the statement: then it is replaced anyway
        logger.debug("cannot tell whether the server is read-only: %s", error)
        return False
    finally:
        cursor.close()


def _parameter(connection: Any, key: str) -> str | None:
    """Return what the server last reported of a setting, without a round trip."""
    try:
        value = driver.of(connection.dialect).parameter(connection.connection.driver_connection, key)
    except Exception as error:  # the connection broke together with the statement
        logger.debug("no parameter %s: %s", key, error)
        return None
    return value if isinstance(value, str) else None
