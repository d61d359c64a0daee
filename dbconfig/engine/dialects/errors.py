"""The meaning of an error, looked up in the tables of the database systems."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from dbconfig.engine.dialects.error_table import (
    CONNECTION_LOST,
    JUDGED,
    NOT_A_DATABASE,
    TIMED_OUT,
    TLS_REFUSED,
    UNKNOWN,
    Fate,
    Meaning,
    chain,
)
from dbconfig.engine.dialects.system_errors import of_system
from dbconfig.engine.pool.timeout_errors import is_silent
from dbconfig.settings.known_drivers import family

_TABLES: Final = (
    "sqlite",
    "postgresql",
    "mysql",
)  # each is loaded at first use; most processes use one system
_CODES: Final = ("sqlstate", "pgcode", "sqlite_errorname", "sqlite_errorcode")
LOCK_WAIT: Final = 1205  # a server variable decides whether it ends the transaction or the statement only
COMMITTED: Final = "_dbconfig_committed"  # on an error that came after COMMIT had been acknowledged


def read_table(backend: str) -> None:
    """Load the table of a system before an error occurs: by then, no file descriptor may be left to load it."""
    _table(backend)


@cache
def _table(system: str) -> Callable[[BaseException], Meaning | None] | None:
    """Return the error table of a database system."""
    name = family(system)
    if name not in _TABLES:
        return None
    found: Callable[[BaseException], Meaning | None] = import_module(f"dbconfig.engine.dialects.{name}.errors").meaning
    return found


def of_connect(error: BaseException, backend: str = "") -> Meaning | None:
    """Return what an error means that ended a connection attempt; None if no table has a row for it.

    Args:
        error: a driver's, SQLAlchemy's around it, or one of the system.
        backend: the database system; "" derives it from the error.
    """
    causes = list(chain(error))
    if backend == "sqlite" or any(isinstance(found, sqlite3.Error) for found in causes):
        return of_statement(error, "sqlite")  # a file, not a connection
    # A cause is more precise than its wrapper: PyMySQL's 2003 may be a certificate error.
    for found in reversed(causes):
        # asyncpg raises its own error for "rejected SSL upgrade", without an error number: match its text.
        made = type(found) is ConnectionError and not found.errno
        row = (of_statement(found, backend) if made else None) or of_system(found)
        if row is NOT_A_DATABASE and backend in ("mysql", "mariadb"):
            row = TLS_REFUSED  # TLS begins after the greeting: this is a server of the system without TLS
        if row is not None:
            return row
    row = of_statement(error, backend)
    if row is CONNECTION_LOST and any("(timed out)" in str(found) for found in causes):
        return TIMED_OUT  # PyMySQL's 2013 for a server that does not greet; for a statement, it is a lost connection
    return row


def of_statement(error: BaseException, backend: str = "") -> Meaning | None:
    """Return what a driver's error means that ended a statement; None if its system's table has no row for it."""
    for found in chain(error):
        if not isinstance(found, DBAPIError):  # whose text may repeat the statement
            table = _table(backend or _system_of(found))  # nothing is known about a generic dialect
            row = table(found) if table is not None else None
            if row is not None:
                return row
    return None


def fate_of(error: BaseException) -> Fate:
    """Return what an error implies for the work that it ended."""
    if is_silent(error):
        return Fate.ABSENT  # for example, the server rejects the connection: nothing has reached it
    if not isinstance(error, DBAPIError) or getattr(error, COMMITTED, False):
        return Fate.FINAL
    row: Meaning | None = getattr(error.orig, JUDGED, None) or getattr(error, JUDGED, None)
    if row is None:
        connecting = error.statement is None and not error.connection_invalidated
        row = of_connect(error) if connecting else of_statement(error)
        if connecting and row is not None and row.fate is Fate.LOST:
            return Fate.ABSENT  # a load balancer without a server accepts and closes: nothing has reached a server
    if row is None:
        return Fate.LOST if error.connection_invalidated else Fate.FINAL
    if row.fate is Fate.READ_ONLY:
        # The engine has checked what rejects writes: a server that changed its role, or the application's own READ
        # ONLY.
        return Fate.READ_ONLY if error.connection_invalidated else Fate.FINAL
    return row.fate


def may_roll_back(error: BaseException, backend: str) -> bool:
    """Return whether an error of MySQL's may have ended the whole transaction, though the server continues."""
    row = of_statement(error, backend)
    return row is not None and (row.rolls_back or error.args[:1] == (LOCK_WAIT,))


def like(error: BaseException, backend: str) -> BaseException:
    """Return a copy of an error without its traceback, whose frames would keep the session alive."""
    try:
        made = type(error)(*error.args)
    except TypeError:  # a class whose constructor differs from its args
        made = type(error).__new__(type(error), *error.args)
    for name in _CODES:
        value = getattr(error, name, None)
        if value is not None and getattr(made, name, None) is None:
            try:
                setattr(made, name, value)
            except (AttributeError, TypeError):
                continue  # psycopg2's attribute is read-only; the meaning below is copied
    row: Meaning | None = getattr(error, JUDGED, None) or of_statement(error, backend)
    setattr(made, JUDGED, row or UNKNOWN)
    made.add_note("dbconfig: this error ended the transaction; none of its work can be committed.")
    return made


def is_answer(error: Any) -> bool:
    """Whether an error came from the database, and not from the driver because of a broken connection."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    states = (getattr(error, name, None) for name in ("sqlstate", "pgcode", "sqlite_errorname"))
    from dbconfig.engine.dialects.mysql.errors import CLIENT

    return number not in CLIENT if number else any(isinstance(state, str) for state in states)


def _system_of(error: Any) -> str:
    if isinstance(error, sqlite3.Error):
        return "sqlite"
    # Before SQLSTATE, which PyMySQL 1.2 and asyncmy also report: HY000 is too general.
    return "mysql" if error.args and isinstance(error.args[0], int) else "postgresql"
