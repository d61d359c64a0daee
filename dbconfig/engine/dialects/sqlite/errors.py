"""SQLite's errors and their meanings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dbconfig.engine.dialects.error_table import CONFLICT, NEVER, TABLE_MISSING, Fate, Meaning

_FILE: Final = Meaning(Fate.FINAL, "database-file", "login")
_FOREIGN: Final = Meaning(Fate.FINAL, "not-a-database", "login")
_READ_ONLY: Final = Meaning(Fate.FINAL, "read-only")  # a file does not become writable without intervention

# https://www.sqlite.org/rescode.html: the primary result codes, each with its extended forms.
CODES: Final[Mapping[str, Meaning]] = {
    "SQLITE_BUSY": CONFLICT,
    "SQLITE_LOCKED": CONFLICT,
    "SQLITE_PROTOCOL": CONFLICT,  # two connections that began to read the WAL at the same time
    "SQLITE_CANTOPEN": _FILE,
    "SQLITE_PERM": _FILE,
    "SQLITE_NOTADB": _FOREIGN,
    "SQLITE_CORRUPT": _FOREIGN,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_FULL": NEVER,
    "SQLITE_IOERR": NEVER,
    "SQLITE_INTERRUPT": NEVER,  # statement_timeout
}
# Errors that the library does not raise have no code: those of this package, and of the driver.
WORDS: Final = (
    (r"holds the write lock (?:itself|until the test)", NEVER),  # the caller would wait for itself
    (r"unable to open|cannot be created|permission denied", _FILE),
    (r"not a database|malformed", _FOREIGN),
    (r"is locked|busy", CONFLICT),
    (r"readonly", _READ_ONLY),
)


def meaning(error: Any) -> Meaning | None:
    """Return what an error of the driver means; None if the table has no row for it."""
    name = getattr(error, "sqlite_errorname", None)
    if isinstance(name, str):
        primary = "_".join(name.split("_")[:2])
        if primary == "SQLITE_ERROR" and str(error).startswith("no such table"):
            return TABLE_MISSING
        return CODES.get(primary)
    text = str(error)
    return next((found for pattern, found in WORDS if re.search(pattern, text)), None)
