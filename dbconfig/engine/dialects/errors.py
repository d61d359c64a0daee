"""What an error means: the table that it belongs to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from dbconfig.engine.dialects.error_table import JUDGED, NOT_A_DATABASE, TLS_REFUSED, UNKNOWN, Fate, Meaning, chain
from dbconfig.engine.dialects.system_errors import of_system
from dbconfig.engine.pool.timeout_errors import is_silent
from dbconfig.settings.known_drivers import family

_TABLES: Final = (
    "sqlite",
    "postgresql",
    "mysql",
)  # each is read when it is first asked; most processes know one system
_CODES: Final = ("sqlstate", "pgcode", "sqlite_errorname", "sqlite_errorcode")
LOCK_WAIT: Final = 1205  # whether it has ended the transaction or the statement alone, a variable of the server says
COMMITTED: Final = "_dbconfig_committed"  # on an error that came after COMMIT had been acknowledged


def read_table(backend: str) -> None:
    """Load the table of a system before an error asks for it: then there may be no file descriptor left to load it."""
    _table(backend)


@cache
def _table(system: str) -> Callable[[BaseException], Meaning | None] | None:
    """Return what knows the errors of a database system."""
    name = family(system)
    if name not in _TABLES:
        return None
    found: Callable[[BaseException], Meaning | None] = import_module(f"dbconfig.engine.dialects.{name}.errors").meaning
    return found


def of_connect(error: BaseException, backend: str = "") -> Meaning | None:
    """Return what an error means that ended a connection attempt; None if no table has a row for it.

    Args:
        error: a driver's, SQLAlchemy's around it, or one of the system.
        backend: the database system; "" is seen from the error.
    """
    causes = list(chain(error))
    if backend == "sqlite" or any(isinstance(found, sqlite3.Error) for found in causes):
        return of_statement(error, "sqlite")  # a file, and no way to it
    # What lies under an error is more exact than its wrapping: PyMySQL's 2003 may be a certificate.
    for found in reversed(causes):
        # asyncpg makes one itself of "rejected SSL upgrade": without a number its words say what was lost.
        made = type(found) is ConnectionError and not found.errno
        row = (of_statement(found, backend) if made else None) or of_system(found)
        if row is NOT_A_DATABASE and backend in ("mysql", "mariadb"):
            row = TLS_REFUSED  # TLS begins after the greeting: this is a server of the system, which has none
        if row is not None:
            return row
    return of_statement(error, backend)


def of_statement(error: BaseException, backend: str = "") -> Meaning | None:
    """Return what a driver's error means that ended a statement; None if its system's table has no row for it."""
    for found in chain(error):
        if not isinstance(found, DBAPIError):  # whose text is the statement's too
            table = _table(backend or _system_of(found))  # of a generic dialect nothing is known
            row = table(found) if table is not None else None
            if row is not None:
                return row
    return None


def fate_of(error: BaseException) -> Fate:
    """Return what an error says about the work that it ended."""
    if is_silent(error):
        return Fate.ABSENT  # as when the server refuses: nothing has reached it
    if not isinstance(error, DBAPIError) or getattr(error, COMMITTED, False):
        return Fate.FINAL
    row: Meaning | None = getattr(error.orig, JUDGED, None) or getattr(error, JUDGED, None)
    if row is None:
        connecting = error.statement is None and not error.connection_invalidated
        row = of_connect(error) if connecting else of_statement(error)
        if connecting and row is not None and row.fate is Fate.LOST:
            return Fate.ABSENT  # a balancer without a server accepts, and closes: nothing has reached one
    if row is None:
        return Fate.LOST if error.connection_invalidated else Fate.FINAL
    if row.fate is Fate.READ_ONLY:
        # The engine has looked who refuses: a server that changed its role, or the application's own READ ONLY.
        return Fate.READ_ONLY if error.connection_invalidated else Fate.FINAL
    return row.fate


def may_roll_back(error: BaseException, backend: str) -> bool:
    """Return whether an error of MySQL's may have ended the whole transaction, though the server continues."""
    row = of_statement(error, backend)
    return row is not None and (row.rolls_back or error.args[:1] == (LOCK_WAIT,))


def like(error: BaseException, backend: str) -> BaseException:
    """Return an error like another one, without its frames, which would keep the session that they refer to alive."""
    try:
        made = type(error)(*error.args)
    except TypeError:  # a class that takes something else than its args
        made = type(error).__new__(type(error), *error.args)
    for name in _CODES:
        value = getattr(error, name, None)
        if value is not None and getattr(made, name, None) is None:
            try:
                setattr(made, name, value)
            except (AttributeError, TypeError):
                continue  # psycopg2's cannot be written; the meaning below goes along
    row: Meaning | None = getattr(error, JUDGED, None) or of_statement(error, backend)
    setattr(made, JUDGED, row or UNKNOWN)
    made.add_note("dbconfig: this error ended the transaction; none of its work can be committed.")
    return made


def is_answer(error: Any) -> bool:
    """Whether an error is what the database said, and not what the driver made of a broken connection."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    states = (getattr(error, name, None) for name in ("sqlstate", "pgcode", "sqlite_errorname"))
    from dbconfig.engine.dialects.mysql.errors import CLIENT

    return number not in CLIENT if number else any(isinstance(state, str) for state in states)


def _system_of(error: Any) -> str:
    if isinstance(error, sqlite3.Error):
        return "sqlite"
    # Before SQLSTATE, which PyMySQL 1.2 and asyncmy tell too: HY000 says nothing.
    return "mysql" if error.args and isinstance(error.args[0], int) else "postgresql"
