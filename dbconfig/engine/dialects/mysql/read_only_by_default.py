"""What makes transactions read-only on a server that accepts writes: the profile, a global default, or init_connect."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dbconfig.engine.pool.options import Connected
    from dbconfig.settings.database import DatabaseSettings

_NAMES: Final = ("tx_read_only", "transaction_read_only")
_ON: Final = ("1", "ON", "TRUE")
_QUESTION: Final = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('init_connect', 'tx_read_only', 'transaction_read_only')"
)
_ACCEPTS: Final = "the server accepts writes"
_STATEMENT: Final = re.compile(r"\bread\s+only\b|\b(?:tx|transaction)_read_only\b", re.IGNORECASE)


def reason(settings: DatabaseSettings, connected: Connected) -> str:
    """Return what makes transactions read-only by default; "" if it was a statement of the application."""
    for name, value in settings.variables.items():
        if name.lower() in _NAMES and str(value).upper() in _ON:
            return f"transactions are read-only by default: {name} is set in variables ({settings.origin('variables')})"
    with connected() as connection, closing(connection.cursor()) as cursor:
        cursor.execute(_QUESTION)
        shown = {str(name).lower(): str(value) for name, value in cursor.fetchall()}
    for name in _NAMES:
        if shown.get(name, "OFF").upper() in _ON:
            help = f"SET GLOBAL {name} = OFF"
            return f"{_ACCEPTS}, but transactions are read-only by default: {name} is set globally; to undo it: {help}"
    if not _STATEMENT.search(shown.get("init_connect", "")):
        return ""
    help = "SET GLOBAL init_connect = '', or without its statement"
    return f"{_ACCEPTS}, but its init_connect makes the transactions of new connections read-only; to undo it: {help}"
