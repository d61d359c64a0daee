"""Ends on the server a statement whose caller was interrupted: a cancelled task, a thread under Ctrl-C.

The driver closes the socket, which the server does not notice before it sends something. A long statement, or one that
waits for a lock, would run to its end, and its transaction would keep its locks until then.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Engine, event

from dbconfig.engine.dialects.mysql.driver import beginning
from dbconfig.engine.pool.cancelling import Canceller, Request
from dbconfig.engine.pool.driver import Left


def attach(engine: Engine) -> None:
    """Let each connection of an engine report an interrupted statement; its class has to call `interrupted`."""
    dialect: Any = engine.dialect
    canceller = Canceller(engine)

    @event.listens_for(engine, "connect")
    def introduce(connection: Any, record: Any) -> None:
        under = dialect.get_driver_connection(connection)
        own = getattr(under, "__wrapped__", under)  # of a tracer's proxy
        if hasattr(own, "interrupted"):
            own.interrupted = partial(_report, canceller, int(own.thread_id()))


def _report(canceller: Canceller, number: int, statement: Any) -> None:
    canceller.ask(Request(number, Left(beginning(statement))))
