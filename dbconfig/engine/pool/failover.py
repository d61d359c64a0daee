"""Leave a primary that has become read-only or is shutting down: the next checkout reconnects."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool import beside, driver
from dbconfig.engine.pool.facts import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Engine, ExceptionContext

    from dbconfig.engine.pool.options import Connected, Judge

logger: logging.Logger = logging.getLogger("dbconfig.pool.failover")

# Whether the server itself rejects writes; MySQL gives the same error for the application's own READ ONLY.
_SERVER_READ_ONLY = ("read_only", "innodb_read_only")
_BY_DEFAULT = ("tx_read_only", "transaction_read_only")  # MariaDB's before 11.1, and MySQL's


def attach(engine: Engine, name: str, judge: Judge, count: Callable[[], None], *, read_only: bool) -> None:
    """Invalidate the pool of a server that shuts down or left its cluster, or of a primary that has become read-only.

    Args:
        engine: whose pool.
        name: its name in logs.
        judge: classifies errors.
        count: called for each primary that has become read-only.
        read_only: rejected writes are those of the application, and say nothing about the server.
    """

    of_driver = engine.dialect.loaded_dbapi.Error

    def handle_error(context: ExceptionContext) -> None:
        error = context.original_exception
        # An error of the application's own code, as of a type's conversion, says nothing about the connection.
        if context.is_disconnect or not isinstance(error, of_driver):
            return
        if judge.ends_connection(error):
            context.is_disconnect = True
        elif not read_only and judge.refuses_writes(error):
            reason = _reason_without_failover(context, judge)
            if reason is None:
                logger.warning(
                    "%s: the primary has become read-only; replacing all of its connections (%s)",
                    name,
                    error,
                    extra=facts(name),
                )
                count()
                context.is_disconnect = True
            elif reason:
                (context.sqlalchemy_exception or error).add_note(f"dbconfig[read-only-by-default]: {reason}")

    event.listen(engine, "handle_error", handle_error)


def _reason_without_failover(context: ExceptionContext, judge: Judge) -> str | None:
    """Return what has made the transaction read-only if the server accepts writes; None if the server does not.

    "" is the application's own statement, which the caller knows.
    """
    connection = context.connection
    if connection is None:
        return None
    if connection.get_execution_options().get("postgresql_readonly"):
        return ""
    if connection.dialect.name in ("mysql", "mariadb"):
        if not _are_off(connection, "GLOBAL", _SERVER_READ_ONLY):
            return None
        if not _are_off(connection, "SESSION", _BY_DEFAULT):
            # It would stay read-only after the server's default has changed, and for callers that did not set it.
            connection.connection._connection_record.invalidate(soft=True)
        return _asked(judge, partial(nullcontext, connection.connection))
    # Since version 14 PostgreSQL reports both without being asked: a read-only transaction on a server that is neither
    # a standby nor read-only by default was made so by a statement of the application.
    standby, by_default = (_parameter(connection, key) for key in ("in_hot_standby", "default_transaction_read_only"))
    if standby == "on":
        return None
    if (standby, by_default) == ("off", "off"):
        return ""
    # On another connection: this one's transaction has failed, and answers nothing.
    assert context.engine is not None  # a connection has one; a listener that kept it would keep its memory
    return _asked(judge, partial(beside.connected, context.engine.pool)) or None


def _asked(judge: Judge, connected: Connected) -> str:
    try:
        return judge.read_only_because(connected)
    except Exception as error:  # as during a failover, when the new connection fails
        logger.debug("cannot tell why the transaction is read-only: %s", error)
        return ""


def _are_off(connection: Any, scope: str, variables: Sequence[str]) -> bool:
    """Whether all of these variables are off. MySQL accepts further statements after one that it rejected."""
    cursor = connection.connection.cursor()
    try:
        names = ", ".join(f"'{name}'" for name in variables)
        cursor.execute(f"SHOW {scope} VARIABLES WHERE Variable_name IN ({names}) AND Value NOT IN ('OFF', '0')")
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
