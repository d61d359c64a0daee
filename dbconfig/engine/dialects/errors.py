"""Which table an error belongs to."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError

from dbconfig.engine.dialects.driver_protocol import Fate
from dbconfig.engine.dialects.mysql.errors import _MYSQL
from dbconfig.engine.dialects.postgresql.errors import _HEALING, _POSTGRESQL
from dbconfig.engine.dialects.sqlite.errors import _SQLITE


def fate_of(error: BaseException) -> Fate:
    """Return what an error says about the work that it ended."""
    if not isinstance(error, DBAPIError):
        return Fate.FINAL
    cause: Any = error.orig
    known = _known(cause)
    if known is not None:
        return known
    # Without a statement the connection itself could not be made.
    if error.statement is None and not error.connection_invalidated:
        text = str(cause).lower()
        return Fate.ABSENT if any(phrase in text for phrase in _HEALING) else Fate.FINAL
    return Fate.LOST if error.connection_invalidated else Fate.FINAL


def _known(cause: Any) -> Fate | None:
    arguments = getattr(cause, "args", ())
    if arguments and isinstance(arguments[0], int):
        return _MYSQL.get(arguments[0])  # before SQLSTATE, which PyMySQL 1.2 and asyncmy tell too: HY000 says nothing
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if isinstance(state, str):
        return _POSTGRESQL.get(state)
    name = getattr(cause, "sqlite_errorname", None)
    return Fate.CONFLICT if name is not None and name.startswith(_SQLITE) else None
