"""Read-only sessions: one round trip per statement, nothing to roll back, and a server that rejects every write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from sqlalchemy import Engine

from dbconfig.engine import create, reading_guard
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.postgresql import base
from dbconfig.errors.light_dataclass import replace
from dbconfig.settings.database import DatabaseSettings

# Per session, so that it covers every statement, including raw ones of the driver.
_GUARDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "postgresql": {"default_transaction_read_only": True},
    "sqlite": {"query_only": True},
}


def open_engine(
    settings: DatabaseSettings,
    label: str,
    extra: Mapping[str, Any] | None = None,
    *,
    asynchronous: bool = False,
    beside: Engine | None = None,
    patient: bool = True,
) -> Engine:
    """Return a new engine for reading; nothing is connected.

    It has its own connections. To share those of a writable engine, each checkout would have to set the mode on the
    server: one more round trip on PostgreSQL, four on MySQL.

    Args:
        settings: of the database, or of a replica.
        label: its name in logs.
        extra: arguments of create_engine that only code can express.
        asynchronous: with an asynchronous driver; the engine is meant for `AsyncEngine(engine)`.
        beside: the engine whose database in memory this one shares.
        patient: wait for a server that cannot be reached, until `pool_timeout`; or fail immediately.
    """
    own = settings_for_reading(settings)
    engine = create.build(
        own,
        label,
        extra,
        asynchronous=asynchronous,
        beside=beside,
        read_only=True,
        patient=patient,
    )
    skip_what_carries_nothing(engine, restores=settings.backend == "postgresql" and not settings.pgbouncer)
    reading_guard.attach(engine, own)
    if settings.backend == "postgresql":
        base.attach_to_readers(engine, own)
    return engine


def settings_for_reading(settings: DatabaseSettings) -> DatabaseSettings:
    """Return settings whose connections are in AUTOCOMMIT and read-only."""
    changes: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT",
        "fast_begin": False,
        "variables": {**settings.variables, **_GUARDS.get(settings.backend, {})},
        "execution_options": {
            name: value for name, value in settings.execution_options.items() if name != "isolation_level"
        },
        "query": _for_any_primary(settings.query),
    }
    if settings.url is not None:
        changes["url"] = replace(settings.url, query=_for_any_primary(settings.url.query))
    return settings.model_copy(update=changes)


def _for_any_primary(query: Mapping[str, Any]) -> dict[str, Any]:
    # For libpq, a session that is read-only by default is not "read-write", even on the primary.
    key = "target_session_attrs"
    return {**query, key: ("primary",)} if "read-write" in query.get(key, ()) else dict(query)


def skip_what_carries_nothing(engine: Engine, *, restores: bool) -> None:
    """Send COMMIT and ROLLBACK only where a transaction is open: a snapshot, or one that a statement has begun.

    Args:
        engine: for reading.
        restores: restore PostgreSQL's default, which a function may have changed, before the next user.
    """
    driver, dialect = driver_protocol.of(engine.dialect), cast("Any", engine.dialect)
    if not driver.tells_transactions:
        return

    def end(proxied: Any, word: str, by_driver: Callable[[Any], None]) -> None:
        connection = proxied.dbapi_connection
        own = dialect.get_driver_connection(connection)
        by_itself = getattr(own, "autocommit", True) is False
        if by_itself:
            by_driver(proxied)  # psycopg2 would not notice the end of what it has begun
        elif driver.in_transaction(own):
            send(connection, word)
        if restores and reading_guard.is_lost(proxied, driver, own):
            send(connection, reading_guard.RESTORE)
            if by_itself:
                commit(proxied)  # the driver has begun a transaction for it, whose ROLLBACK would undo it

    def send(connection: Any, statement: str) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()

    roll_back, commit = dialect.do_rollback, dialect.do_commit
    dialect.do_rollback = lambda proxied: end(proxied, "ROLLBACK", roll_back)
    dialect.do_commit = lambda proxied: end(proxied, "COMMIT", commit)
