"""Set up each new connection; if that fails, close it immediately, not when it is garbage-collected."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.pool.base import _ConnectionRecord

# Newer versions of SQLAlchemy close it themselves, and in PyMySQL a second close is an error, which the pool logs.
_connect: Any = vars(_ConnectionRecord)["_ConnectionRecord__connect"]
_CLOSED_BY_SQLALCHEMY: Final = "_close_connection" in _connect.__code__.co_names

Work = Callable[[Any, Any], None]  # takes the DBAPI's connection and its record in the pool

_of_sessions: weakref.WeakKeyDictionary[Engine, list[Work]] = weakref.WeakKeyDictionary()


def on_connect(engine: Engine, work: Work, *, first: bool = False, session: bool = False) -> None:
    """Call a function with each new connection, and its record, before it is handed out.

    Args:
        engine: of the connections.
        work: may raise: the connection is then closed. SQLAlchemy up to 2.1 would drop it without closing it.
        first: call it before everything attached so far.
        session: it sets session state, so it is called again after a reset.
    """
    if session:
        _of_sessions.setdefault(engine, []).append(work)
    dialect: Any = engine.dialect

    def set_up(connection: Any, record: Any) -> None:
        try:
            work(connection, record)
        except BaseException:
            if not _CLOSED_BY_SQLALCHEMY:
                end = dialect.do_terminate if getattr(dialect, "has_terminate", False) else dialect.do_close
                end(connection)
            raise

    event.listen(engine, "connect", set_up, insert=first)


def set_up_session(engine: Engine, connection: Any, record: Any) -> None:
    """Set the state of a session again, on a connection whose session was reset."""
    for work in _of_sessions.get(engine, ()):
        work(connection, record)


def info_of(connection: Any) -> dict[str, Any]:
    """Return the `info` of a pooled connection; a driver's bare one has none, or a different attribute of this name."""
    record = getattr(connection, "_connection_record", None)
    if record is not None:
        return record.info  # type: ignore[no-any-return]  # as the proxy does, but slower
    try:
        found = getattr(connection, "info", None)
    except NotImplementedError:  # of the very first connection, while SQLAlchemy asks what server that is
        found = None
    return found if isinstance(found, dict) else {}
