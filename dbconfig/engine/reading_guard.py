"""Keeps read-only sessions read-only: rejects statements that would let them write, also on the driver's connections.

For the servers, read-only is a session setting, which any statement may change, so statements that change it are
rejected. Indirect changes (a function, a prepared text) show in the server's answers: PostgreSQL reports its default,
MySQL and MariaDB whether the open transaction is read-only. The latter two do not report the mode of the next
transaction, so there the setting is sent again before a statement that is not known to read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import InvalidRequestError

from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.dialects.set_up import info_of, on_connect
from dbconfig.engine.watched_class import CURSOR_METHODS, subclass, watched
from dbconfig.engine.watched_cursor import text_of
from dbconfig.engine.writing_statements import Effect, effect
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import family

REFUSAL: Final = "a read-only session cannot be made to write: use db.session() or db.transaction()"
_OUTSIDE: Final = (
    "a procedure or a block can commit, and then write: in a read-only session call it with snapshot=True, in whose "
    "transaction the server refuses that"
)
_OFF: Final = (
    "the server does not treat this session as read-only: a statement has changed default_transaction_read_only, or a "
    "pooler before the server has dropped it (`pgbouncer: true` sends it in each transaction)"
)
_GUARDED: Final = "dbconfig.guarded"  # in the info of a pooled connection: the server has confirmed read-only mode
DEFAULT: Final = "default_transaction_read_only"
RESTORE: Final = f"SET {DEFAULT} = on"
# One statement at each new connection. The level is for snapshots; outside one, each statement sees committed data.
GUARD_MYSQL: Final = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    """Prevent the connections of a read-only engine from becoming writable."""
    system = family(settings.backend)
    if system == "sqlite":
        on_connect(engine, _guard_sqlite)
    elif system == "mysql":
        on_connect(engine, guard_mysql, session=True)
        _guard_methods(engine, _guarded_mysql)
    elif system == "postgresql":
        _guard_postgresql(engine, settings)


def _guard_methods(engine: Engine, make: Callable[[type, Driver], type]) -> None:
    driver = driver_protocol.of(engine.dialect)
    guarded: dict[type, type] = {}

    def guard(connection: Any, record: Any) -> None:
        own = _bare(record.driver_connection)
        kind = type(own)
        if kind not in guarded:
            guarded[kind] = make(kind, driver)
        own.__class__ = guarded[kind]

    on_connect(engine, guard)


def _bare(connection: Any) -> Any:
    return getattr(connection, "__wrapped__", connection)  # of a tracer's proxy


# SQLite


def _guard_sqlite(connection: Any, record: Any) -> None:
    from dbconfig.engine.dialects.sqlite.connection import Connection, driver_of

    own = driver_of(connection)
    if isinstance(own, Connection):
        vars(own)["refuse_writing"] = refuse


def refuse() -> None:
    raise InvalidRequestError(REFUSAL)


# PostgreSQL


def is_lost(pooled: Any, driver: Driver, own: Any) -> bool:
    """Return whether a session that the server had confirmed as read-only no longer is."""
    return is_off(driver, own) and info_of(pooled).get(_GUARDED, False)


def is_off(driver: Driver, connection: Any) -> bool:
    """Return whether the server has reported that transactions of this session can write (since version 14)."""
    return driver.parameter(connection, DEFAULT) == "off"


def _guard_postgresql(engine: Engine, settings: DatabaseSettings) -> None:
    driver, pooled = driver_protocol.of(engine.dialect), settings.pgbouncer

    def look(connection: Any, statement: str) -> None:
        found = effect(statement, "postgresql")
        if found is Effect.WRITES:
            refuse()
        if found is Effect.OUTSIDE and not driver.in_transaction(connection):
            raise InvalidRequestError(_OUTSIDE)
        # Behind a pooler each transaction is guarded, and the default is the server's.
        if not pooled and found is not Effect.ENDS and is_off(driver, connection):
            raise InvalidRequestError(_OFF)

    if driver.statement_methods:
        _guard_methods(engine, lambda kind, driver: watched(kind, driver.statement_methods, look))
    cursors: dict[type, type] = {}

    def of_connection(cursor: Any, statement: str) -> None:
        look(cursor.connection, statement)

    def guard(connection: Any, record: Any) -> None:
        own = _bare(record.driver_connection)
        record.info[_GUARDED] = not pooled and not is_off(driver, own)
        for name in ("cursor_factory", "server_cursor_factory"):
            if hasattr(own, name):
                kind: Any = getattr(own, name) if name != "cursor_factory" else driver.cursor_class(own)
                if kind not in cursors:
                    cursors[kind] = watched(kind, CURSOR_METHODS, of_connection)
                setattr(own, name, cursors[kind])
        driver.begin_read_only(own)

    on_connect(engine, guard)


# MySQL and MariaDB


def guard_mysql(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(GUARD_MYSQL)
    finally:
        cursor.close()


def _guarded_mysql(kind: type, driver: Driver) -> type:
    """Return a connection class that sends the guard before statements that are not known to read."""
    query: Callable[..., Any] = kind.query  # type: ignore[attr-defined]

    def guarded(self: Any, sql: Any, *arguments: Any, **keywords: Any) -> Any:
        found = effect(text_of(sql), "mysql")
        if found is Effect.WRITES:
            refuse()
        if found is not Effect.OTHER:
            return query(self, sql, *arguments, **keywords)
        if driver.may_write(self):
            refuse()
        sent = query(self, GUARD_MYSQL)
        if hasattr(sent, "__await__"):
            return _later(sent, query, self, sql, *arguments, **keywords)
        return query(self, sql, *arguments, **keywords)

    return subclass(kind, {"query": guarded})


async def _later(sent: Awaitable[Any], query: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    await sent
    return await query(*arguments, **keywords)
