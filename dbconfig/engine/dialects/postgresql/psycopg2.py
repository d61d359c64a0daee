"""psycopg2: its connections, without secrets in their `repr`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import extensions

from dbconfig.engine.dialects.postgresql.driver import LibpqDriver
from dbconfig.engine.dialects.postgresql.fast_begin import FastBeginConnection, FastBeginCursor, with_factory

if TYPE_CHECKING:
    from sqlalchemy import Engine


class _NeverWriting(extensions.connection):
    """A connection whose transactions are never READ WRITE; SQLAlchemy passes False to reset the option."""

    @property
    def readonly(self) -> bool | None:
        found: bool | None = super().readonly
        return found

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self.set_session(readonly="DEFAULT" if value is None else value)

    def set_session(
        self, isolation_level: Any = None, readonly: Any = None, deferrable: Any = None, autocommit: Any = None
    ) -> None:
        readonly = True if readonly is False else readonly
        super().set_session(isolation_level, readonly, deferrable, autocommit)


def hold_cursors(engine: Engine) -> None:
    class HoldingConnection(_NeverWriting):
        def cursor(self, name: Any = None, *arguments: Any, **keywords: Any) -> Any:
            if name is not None and self.autocommit:
                keywords.setdefault("withhold", True)
            return super().cursor(name, *arguments, **keywords)

    _connect_with(engine, HoldingConnection)


def _connect_with(engine: Engine, ours: type) -> None:
    dialect: Any = engine.dialect
    connect = dialect.connect
    classes: dict[Any, type] = {}

    def connect_ours(*arguments: Any, **keywords: Any) -> Any:
        chosen = keywords.get("connection_factory")
        if chosen not in classes:
            classes[chosen] = with_factory(ours, chosen)
        keywords["connection_factory"] = classes[chosen]
        try:
            return connect(*arguments, **keywords)
        finally:
            keywords.clear()  # no traceback frame may hold the password

    dialect.connect = connect_ours


def discreet_connection() -> type:
    """Return psycopg2's connection without its `repr`, which the pool logs and which masks only the password."""

    class DiscreetConnection(extensions.connection):
        def __repr__(self) -> str:
            return f"<connection object at {id(self):#x}; closed: {self.closed}>"

        __str__ = __repr__

    return DiscreetConnection


class ReadingConnection(FastBeginConnection):
    """A connection in autocommit whose statements are all read-only."""

    def begin_due(self) -> str:
        if not self.autocommit:
            return super().begin_due()
        return self.limits if self.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE else ""

    def begin_now(self) -> None:
        due = self.begin_due()
        if due:
            self._send(f"BEGIN; {due}" if self.autocommit else due)

    def begin_for_stream(self) -> None:
        if self.autocommit:
            self.begin_now()
        else:
            super().begin_for_stream()

    def tpc_begin(self, xid: Any) -> None:
        raise psycopg2.NotSupportedError("a read-only session has nothing to commit in two phases")


class Psycopg2(LibpqDriver):
    """The driver psycopg2."""

    package = "psycopg2"
    deaf = True

    def cancel_aside(self, connection: Any) -> None:
        connection.cancel()  # over a separate connection that libpq opens

    def let_class_change(self, engine: Engine) -> None:
        class Connection(extensions.connection):  # a Python class: the driver's own is written in C
            pass

        _connect_with(engine, Connection)

    def parameter(self, connection: Any, key: str) -> str | None:
        found: str | None = connection.get_parameter_status(key)
        return found

    def awaits_answer(self, connection: Any) -> bool:
        return bool(connection.get_transaction_status() == extensions.TRANSACTION_STATUS_ACTIVE)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE)

    def has_begun(self, connection: Any, adapted: Any) -> bool:
        if isinstance(connection, FastBeginConnection) and connection.is_ours():
            return connection.has_begun()
        return bool(connection.status == extensions.STATUS_BEGIN)

    def is_open(self, connection: Any) -> bool:
        ours = isinstance(connection, FastBeginConnection)
        return self.in_transaction(connection) and not (ours and connection.begun_again)

    def cursor_class(self, connection: Any) -> type:
        chosen: type | None = connection.cursor_factory
        if isinstance(connection, FastBeginConnection):
            return with_factory(FastBeginCursor, chosen)
        return chosen or extensions.cursor

    def in_failed_transaction(self, connection: Any) -> bool:
        return bool(connection.get_transaction_status() == extensions.TRANSACTION_STATUS_INERROR)


DRIVER = Psycopg2()
