"""What makes every transaction read-only on a server that accepts writes: the profile's variables, or init_connect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dbconfig.engine.pool.options import Connected
    from dbconfig.settings.database import DatabaseSettings

_NAMES: Final = ("tx_read_only", "transaction_read_only")
_ON: Final = ("1", "ON", "TRUE")
_STATEMENT: Final = re.compile(r"\bread\s+only\b|\b(?:tx|transaction)_read_only\b", re.IGNORECASE)


def reason(settings: DatabaseSettings, connected: Connected) -> str:
    """Return what makes transactions read-only by default; "" if it was a statement of the application."""
    for name, value in settings.variables.items():
        if name.lower() in _NAMES and str(value).upper() in _ON:
            return f"transactions are read-only by default: {name} is set in variables ({settings.origin('variables')})"
    with connected() as connection:
        cursor = connection.cursor()
        try:
            cursor.execute("SHOW GLOBAL VARIABLES LIKE 'init_connect'")
            row = cursor.fetchone()
        finally:
            cursor.close()
    if row is None or not _STATEMENT.search(str(row[1])):
        return ""
    return "the server accepts writes, but its init_connect makes the transactions of new connections read-only"
