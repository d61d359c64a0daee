"""Close a connection whose statement was interrupted: the pending answer must not reach the next user."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError

from dbconfig.engine.pool import driver
from dbconfig.engine.pool.deadline import DeadlineExceeded

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext

# What drivers and type adapters raise for values that they cannot send. Nothing has been sent then.
_MISTAKES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NotImplementedError)
_BEFORE_THE_WIRE = frozenset({"escape", "escape_string", "literal"})


def attach(engine: Engine) -> None:
    """Treat an error in the middle of a driver call that is not the driver's own as the end of the connection.

    A time limit by signal (Celery's soft limit, gevent.Timeout, a watchdog) raises any exception at any point.
    SQLAlchemy closes the connection for KeyboardInterrupt and other exits only. Without a rollback at the end of a use,
    as in read-only sessions, the next user would then get the answer to this statement.
    """
    of_the_driver, own = engine.dialect.loaded_dbapi.Error, driver.of(engine.dialect)

    def handle_error(context: ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(error, DeadlineExceeded):  # a TimeoutError, which SQLAlchemy always treats as a disconnect
            context.is_disconnect = context.connection is not None and not error.connection_is_whole
            context.invalidate_pool_on_disconnect = False
            return
        if context.is_disconnect or context.connection is None or isinstance(error, of_the_driver):
            return
        if context.statement is not None and context.execution_context is None:
            return  # while the statement was being compiled
        mistake = type(error).__module__ == "builtins" and isinstance(error, _MISTAKES)
        refused = type(error) is InvalidRequestError  # by SQLAlchemy, or by one of our guards, before it was sent
        if (mistake or refused) and not _mid_answer(own, context, error):
            return
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False  # the others are whole

    event.listen(engine, "handle_error", handle_error)


def _mid_answer(own: driver.Driver, context: ExceptionContext, error: BaseException) -> bool:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") in own.wire and frame.f_code.co_name not in _BEFORE_THE_WIRE:
            return True
    connection = context.connection
    if connection is None or connection.invalidated:
        return False
    return own.awaits_answer(connection.connection.driver_connection)
