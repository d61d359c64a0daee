"""SQLite's PRAGMAs."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from dbconfig.engine.dialects.driver_arguments import unknown_argument, variable_names
from dbconfig.engine.dialects.sqlite.transactions import run
from dbconfig.errors.printable import did_you_mean, suggest
from dbconfig.errors.problem import Problem

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings


BUSY_TIMEOUT: Final = 5.0  # seconds that a writer waits for another one; Python's own default


def _set_journal_mode(connection: Any, mode: str) -> None:
    (current,) = run(connection, "PRAGMA journal_mode")
    if current.lower() == mode.lower():
        return
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            run(connection, f"PRAGMA journal_mode = {_literal(mode)}")
        except sqlite3.OperationalError as error:
            # The busy timeout does not cover this change; another process may be making it at this moment.
            if "locked" in str(error) and time.monotonic() < deadline:
                time.sleep(0.01)  # in an event loop too: it is short, rare, and only at a connect
                continue
            if "readonly" in str(error):
                return  # a read-only file needs no journal
            raise
        return


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    if isinstance(value, (int, float)):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def _read_only(settings: DatabaseSettings) -> bool:
    query = settings.address.query
    return "ro" in query.get("mode", ()) or any(_is_on(str(one)) for one in query.get("immutable", ()))


def _is_on(value: str) -> bool:
    """Read a boolean of a file's URI as SQLite does: another text than these is off (`sqlite3_uri_boolean`)."""
    number = re.match("[0-9]+", value)
    return int(number[0]) % 256 != 0 if number else value.lower() in ("on", "yes", "true")  # a number of one byte


def _unknown_pragmas(settings: DatabaseSettings) -> list[Problem]:
    """Return names that are not PRAGMAs: SQLite accepts any name, and silently ignores unknown ones."""
    if not settings.variables:
        return []
    with closing(sqlite3.connect(":memory:")) as connection:
        known = [name for (name,) in connection.execute("PRAGMA pragma_list")]
    problems = []
    for name in variable_names(settings):
        if known and name.rpartition(".")[2].lower() not in known:
            help = did_you_mean(suggest(name.lower(), known))
            problems.append(unknown_argument(settings, name, "PRAGMA", "variables", help))
    return problems
