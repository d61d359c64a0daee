"""A client-side time limit for statements, for a server or a network that no longer answers."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from dbconfig.engine.pool.call_watchdog import watch
from dbconfig.engine.pool.cancelling import Canceller
from dbconfig.engine.pool.sockets import descriptor

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# Seconds that a server gets beyond its own limit to report that it has cancelled a statement.
GRACE = 5.0

_LATE: Final = "_dbconfig_late"  # on an error
_BY_CURSOR = ("do_execute", "do_execute_no_params", "do_executemany")
_BY_CONNECTION = ("do_commit", "do_rollback")


def attach(engine: Engine, statement_timeout: float) -> None:
    """Shut the socket down under a call that outlasts the server's own limit.

    The server cannot end a statement that never reached it, and TCP's limits do not help where a peer acknowledges data
    but does not answer: a stopped process, or a proxy whose other side is gone.
    """
    if engine.dialect.name == "sqlite":
        return  # it has no server
    limit = statement_timeout + GRACE
    of_cursor = _under_adapted_cursor if engine.dialect.is_async else _of_cursor
    abandon = Canceller(engine).abandon  # MySQL's own limit is for SELECT alone
    for name in _BY_CURSOR:
        _guard(engine, name, of_cursor, limit, abandon)
    for name in _BY_CONNECTION:
        _guard(engine, name, engine.dialect.get_driver_connection, limit)


def is_late(error: BaseException) -> bool:
    """Return whether a statement ended because it had reached this limit."""
    return getattr(error, _LATE, False)


def _of_cursor(cursor: Any) -> Any:
    return cursor.connection


def _under_adapted_cursor(cursor: Any) -> Any:
    return cursor._connection  # SQLAlchemy's adapter of asynchronous drivers has no public name for it


def _guard(
    engine: Engine,
    name: str,
    connection_of: Callable[[Any], Any],
    limit: float,
    late: Callable[[Any], None] = lambda connection: None,
) -> None:
    dialect: Any = engine.dialect
    call = getattr(dialect, name)

    def guarded(first: Any, *arguments: Any, **keywords: Any) -> Any:
        began, connection = monotonic(), connection_of(first)
        try:
            return watch.call(descriptor(dialect, connection), limit, call, first, *arguments, **keywords)[0]
        except Exception as error:
            if monotonic() - began >= limit:
                setattr(error, _LATE, True)
                late(connection)
            raise

    setattr(dialect, name, guarded)  # on the dialect object of this engine alone
