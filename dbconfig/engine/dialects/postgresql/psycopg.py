"""Read-only sessions behind a pooler (psycopg): each statement is sent with its guard and limits, in one message.

The server accepts several statements in one message only without parameters, so the client inserts the parameters into
the statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import pq, sql
from psycopg.errors import FeatureNotSupported
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.util import await_only

from dbconfig.engine.dialects.postgresql import psycopg_tasks
from dbconfig.engine.dialects.postgresql.driver import LibpqDriver
from dbconfig.engine.pool.driver import Parameters

_IDLE: Final = pq.TransactionStatus.IDLE
_JOINABLE: Final = (str, bytes, sql.Composable)


class _Guarded:
    """The common part of these cursors; `limits` are the statements that their engine executes in each transaction."""

    limits: Sequence[str] = ()
    connection: Any

    def _is_due(self) -> bool:
        return bool(self.connection.info.transaction_status == _IDLE)

    def _begin(self) -> str:
        # Sent like any statement, so with the guard. Without autocommit, the driver sends BEGIN itself.
        return "BEGIN" if self.connection.autocommit else ""

    def _joined(self, query: Any, params: Any) -> Any:
        guard = "; ".join(self.limits) if params is None else "; ".join(self.limits).replace("%", "%%")
        guard += ";\n"  # the statement on a separate line: the excerpt in an error shows lines
        if isinstance(query, bytes):
            return guard.encode(self.connection.info.encoding) + query
        return guard + query if isinstance(query, str) else sql.SQL(guard) + query

    def _step_over(self) -> None:
        """Move to the statement's own result; earlier ones belong to the guard."""
        cursor: Any = self
        for _ in self.limits:
            cursor.nextset()


class ReadingCursor(_Guarded, psycopg.ClientCursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if self._is_due() and isinstance(query, _JOINABLE):
            super().execute(self._joined(query, params), params, **options)
            self._step_over()
            return self
        self._begin_now()
        return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        self._begin_now()
        super().executemany(query, params_seq, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        self._begin_now()
        yield from super().stream(query, params, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        self._begin_now()
        with super().copy(statement, params, **options) as copy:
            yield copy

    def _begin_now(self) -> None:
        if self._is_due():
            self.connection.execute(self._begin())


class ReadingServerCursor(_Guarded, psycopg.ServerCursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if self._is_due():
            self.connection.execute(self._begin())
        return super().execute(query, params, **options)


class AsyncReadingCursor(_Guarded, psycopg.AsyncClientCursor[Any]):
    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if self._is_due() and isinstance(query, _JOINABLE):
            await super().execute(self._joined(query, params), params, **options)
            self._step_over()
            return self
        await self._begin_now()
        return await super().execute(query, params, **options)

    async def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        await self._begin_now()
        await super().executemany(query, params_seq, **options)

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        await self._begin_now()
        async for row in super().stream(query, params, **options):
            yield row

    @asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        await self._begin_now()
        async with super().copy(statement, params, **options) as copy:
            yield copy

    async def _begin_now(self) -> None:
        if self._is_due():
            await self.connection.execute(self._begin())


class AsyncReadingServerCursor(_Guarded, psycopg.AsyncServerCursor[Any]):
    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if self._is_due():
            await self.connection.execute(self._begin())
        return await super().execute(query, params, **options)


def execute_script(engine: Engine, connection: Any, script: str) -> None:
    """Execute statements without parameters, in one message and outside a transaction."""
    before = connection.autocommit
    connection.autocommit = True
    driver: Any = engine.dialect.get_driver_connection(connection)
    executed = driver.execute(script, prepare=False)  # several statements cannot be prepared
    if engine.dialect.is_async:
        await_only(executed)
    connection.autocommit = before


def forget_stale_plans(engine: Engine) -> None:
    """Prepare again after another process has altered a table: in AUTOCOMMIT, no ROLLBACK triggers that in the driver.

    The server rejects the old prepared statement for as long as the connection lives.
    """

    @event.listens_for(engine, "handle_error")
    def forget(context: ExceptionContext) -> None:
        error = context.original_exception
        if not isinstance(error, FeatureNotSupported) or context.connection is None:
            return
        connection = context.connection.connection
        driver: Any = engine.dialect.get_driver_connection(connection.dbapi_connection)  # type: ignore[arg-type]
        stale = error.diag.source_function == "RevalidateCachedQuery"  # which the server never translates
        if stale and driver.info.transaction_status == _IDLE:
            cursor = connection.cursor()
            cursor.execute("BEGIN; ROLLBACK")  # after the second one the driver drops its prepared statements
            cursor.close()


def attach(engine: Engine, limits: Sequence[str]) -> None:
    """Make an engine use connections with our cursors."""
    dialect: Any = engine.dialect
    connect = dialect.connect
    kinds = (AsyncReadingCursor, AsyncReadingServerCursor) if dialect.is_async else (ReadingCursor, ReadingServerCursor)
    cursor, server_cursor = (type(kind.__name__, (kind,), {"limits": limits}) for kind in kinds)

    def connect_reading(*arguments: Any, **keywords: Any) -> Any:
        try:
            connection = connect(*arguments, **keywords)
        finally:
            keywords.clear()  # no traceback frame may hold the password
        driver = dialect.get_driver_connection(connection)
        driver.cursor_factory = _with_factory(cursor, driver.cursor_factory)
        driver.server_cursor_factory = _with_factory(server_cursor, driver.server_cursor_factory)
        dialect.set_readonly(connection, True)  # for the transactions that the driver begins: connection.transaction()
        return connection

    dialect.connect = connect_reading


def _with_factory(ours: type, chosen: type) -> type:
    return ours if issubclass(ours, chosen) else type(ours.__name__, (ours, chosen), {})


@cache
def _reading(kind: Any) -> Any:
    start: Callable[[Any], bytes] = kind._get_tx_start_command

    def start_reading(self: Any) -> bytes:
        if self._read_only is False:  # it would begin with READ WRITE
            self._read_only, self._begin_statement = None, b""
        return start(self)

    return type(kind.__name__, (kind,), {"_get_tx_start_command": start_reading})


class Psycopg(LibpqDriver):
    """The driver psycopg, for both kinds of engine."""

    package = "psycopg"
    begins_by = "_get_tx_start_command"

    def cursor_class(self, connection: Any) -> type:
        found: type = connection.cursor_factory
        return found

    def begin_read_only(self, connection: Any) -> None:
        kind: Any = type(connection)
        connection.__class__ = _reading(kind)

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        super().limit_connect(dialect, record, parameters, seconds)
        if dialect.is_async and parameters.written("async_creator_fn") is None and psycopg_tasks.can_cancel():
            parameters.set("async_creator_fn", psycopg_tasks.Connection.connect)

    def parameter(self, connection: Any, key: str) -> str | None:
        raw = connection.pgconn.parameter_status(key.encode())
        return None if raw is None else str(raw.decode())

    def hang_up(self, connection: Any) -> None:
        connection.pgconn.finish()

    def awaits_answer(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status != _IDLE)

    def in_failed_transaction(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == pq.TransactionStatus.INERROR)


DRIVER = Psycopg()
