"""PgBouncer in transaction mode: no session state may outlive a transaction on the server."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Engine

from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.engine.pool.facts import facts
from dbconfig.errors.late_pattern import late_pattern

_log = logging.getLogger("dbconfig.dialects.poolers")

# Defaults apply to the next transaction: setting them inside one has no effect on it.
_OF_TRANSACTION: Final = {
    "default_transaction_read_only": "transaction_read_only",
    "default_transaction_deferrable": "transaction_deferrable",
}
# SET treats one literal as one name, where a startup option is a list of names.
_LISTS: Final = ("search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries")
_NAME: Final = late_pattern(r'\s*"(?:[^"]|"")*"|[^,]+')


def limits_of(session: Mapping[str, Any]) -> list[str]:
    """Return the statements that set session variables for one transaction."""
    # Not `SELECT set_config(…)`: after a query it would be too late for SET TRANSACTION.
    return [
        f"SET LOCAL {_OF_TRANSACTION.get(name.lower(), name)} = {_literals(name, value)}"
        for name, value in session.items()
    ]


def _literals(name: str, value: Any) -> str:
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    if name.lower() not in _LISTS:
        return _literal(text)
    names = [one.strip() for one in _NAME.findall(text) if one.strip()]
    plain = [one[1:-1].replace('""', '"') if one.startswith('"') else one.lower() for one in names]
    return ", ".join(map(_literal, plain)) or "''"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def set_in_transactions(engine: Engine, limits: Sequence[str]) -> None:
    """Set session variables at the start of each transaction: one more round trip, except with asyncpg."""
    if not limits:
        return
    script = "; ".join(limits)
    if engine.dialect.driver == "asyncpg":
        from dbconfig.engine.dialects.postgresql import asyncpg_limits

        asyncpg_limits.attach(engine, script)
        return
    dialect: Any = engine.dialect

    def do_begin(connection: Any) -> None:
        if connection.autocommit:
            return  # without a transaction this has no effect
        cursor = connection.cursor()
        try:
            cursor.execute(script)
        finally:
            cursor.close()

    dialect.do_begin = do_begin  # on the dialect object of this engine alone


def guard_readers(engine: Engine, limits: Sequence[str]) -> None:
    """Apply the limits to statements of an engine in AUTOCOMMIT, per statement if the driver can.

    Args:
        engine: of a database behind a pooler.
        limits: including the one that makes it read-only.
    """
    driver = engine.dialect.driver
    if driver == "psycopg2":
        from dbconfig.engine.dialects.postgresql import fast_begin, psycopg2

        fast_begin.attach(engine, psycopg2.ReadingConnection, "; ".join(limits))
        dialect: Any = engine.dialect
        dialect.do_commit = lambda connection: connection.commit()  # which send nothing if no transaction is open
        dialect.do_rollback = lambda connection: connection.rollback()
    elif driver == "psycopg":
        from dbconfig.engine.dialects.postgresql import psycopg

        psycopg.attach(engine, limits)
    elif driver == "asyncpg":
        from dbconfig.engine.dialects.postgresql import asyncpg_limits

        asyncpg_limits.attach(engine, "; ".join(limits), reading=True)


def distrust(engine: Engine) -> None:
    """Prepare no statements on a connection behind a pooler that the profile does not declare.

    psycopg prepares a statement that it has seen five times under a generated name. PgBouncer runs the next
    execution on another server connection, where the name may be another client's statement: the rows are wrong,
    without an error.
    """
    warned = False

    def look(connection: Any, record: Any) -> None:
        nonlocal warned
        driver = record.driver_connection
        if not stands_behind_a_pooler(connection, driver.info.backend_pid):
            return
        driver.prepare_threshold = None
        if not warned:
            warned = True
            _log.warning(
                "%s: connected through a pooler: statements are not prepared; write `pgbouncer: true`",
                engine.logging_name,
                extra=facts(engine.logging_name or ""),
            )

    on_connect(engine, look)


def stands_behind_a_pooler(connection: Any, number: int) -> bool:
    """Return whether the server's process ID of a connection differs from the one reported at login."""
    cursor = connection.cursor()
    before = connection.autocommit
    connection.autocommit = True  # one round trip instead of three
    cursor.execute("SELECT pg_backend_pid()")
    (found,) = cursor.fetchone()
    cursor.close()
    connection.autocommit = before  # not after an error, which it would hide: the connection is then discarded
    return bool(found != number)
