"""PgBouncer in transaction mode: nothing may outlive a transaction on the server's side."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, event

_log = logging.getLogger(__name__)


def set_in_transactions(engine: Engine, session: Mapping[str, str]) -> None:
    """Set session variables at the begin of each transaction, for it alone; one round trip more.

    Args:
        engine: of a database behind a pooler.
        session: names and SQL literals.
    """
    if not session:
        return
    # Not `SELECT set_config(…)`: after a query it would be too late for SET TRANSACTION.
    statements = [f"SET LOCAL {name} = {value}" for name, value in session.items()]
    if engine.dialect.driver != "asyncpg":  # which sends one statement at a time
        statements = ["; ".join(statements)]
    dialect: Any = engine.dialect

    def do_begin(connection: Any) -> None:
        if connection.autocommit:
            return  # no transaction, in which alone this acts
        cursor = connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.close()

    dialect.do_begin = do_begin  # on the dialect object of this engine alone


def distrust(engine: Engine) -> None:
    """Prepare nothing on a connection behind a pooler that the profile does not tell of.

    psycopg prepares a statement that it has seen five times under a name of its own. PgBouncer runs the next
    execution on another server connection, where the name may be another client's statement: the rows are wrong,
    without an error.
    """
    warned = False

    @event.listens_for(engine, "connect")
    def look(connection: Any, record: Any) -> None:
        nonlocal warned
        driver = record.driver_connection
        if not stands_behind_a_pooler(connection, driver.info.backend_pid):
            return
        driver.prepare_threshold = None
        if not warned:
            warned = True
            _log.warning(
                "%s: a pooler stands before the server: statements are not prepared; write `pgbouncer: true`",
                engine.logging_name,
            )


def stands_behind_a_pooler(connection: Any, number: int) -> bool:
    """Return whether the server's number of a connection is another one than the driver was told at login."""
    cursor = connection.cursor()
    before = connection.autocommit
    connection.autocommit = True  # one round trip instead of three
    cursor.execute("SELECT pg_backend_pid()")
    (found,) = cursor.fetchone()
    cursor.close()
    connection.autocommit = before  # not after an error, which it would hide: then nobody uses this connection
    return bool(found != number)
