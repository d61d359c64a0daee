"""Ends on the server a statement whose caller was interrupted: a cancelled task, a thread under a time limit by signal.

The drivers of asyncio send a cancel request themselves, which the server ignores if it has not begun the statement; in
a thread, psycopg does so for Ctrl-C only. The server does not notice a closed socket before it sends something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from dbconfig.engine.pool import births, driver
from dbconfig.engine.pool.cancelling import Canceller
from dbconfig.engine.pool.deadline import DeadlineExceeded

if TYPE_CHECKING:
    from sqlalchemy import Engine, ExceptionContext

_IN_STATEMENT: Final = "dbconfig.interrupted"  # in record.info


def attach(engine: Engine) -> None:
    """End the connections of an engine that are given up in the middle of a statement."""
    own, is_async = driver.of(engine.dialect), engine.dialect.is_async
    known: tuple[type[BaseException], ...] = (engine.dialect.loaded_dbapi.Error, DeadlineExceeded)
    canceller = Canceller(engine)

    def interrupted(context: ExceptionContext) -> None:
        # Not the driver's errors: the server has answered, or has gone. Deadlines end what they interrupt themselves.
        connection: Any = context.connection
        if isinstance(context.original_exception, known) or context.execution_context is None or connection is None:
            return
        if not connection.closed and not connection.invalidated:
            connection.connection.info[_IN_STATEMENT] = True

    def given_up(connection: Any, record: Any, error: BaseException | None) -> None:
        if not record.info.pop(_IN_STATEMENT, False):
            return
        # In a thread, psycopg may have waited for the server to confirm that it has cancelled the statement.
        if is_async or getattr(connection, "closed", False) or own.awaits_answer(connection):
            canceller.abandon(record.driver_connection)

    births.attach(engine)
    event.listen(engine, "handle_error", interrupted)
    event.listen(engine, "invalidate", given_up)
