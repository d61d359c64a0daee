"""What makes every transaction read-only on a server that accepts writes: the configuration, a role, or a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from dbconfig.errors.printable import printable
from dbconfig.settings import client_defaults

if TYPE_CHECKING:
    from dbconfig.engine.pool.options import Connected
    from dbconfig.settings.database import DatabaseSettings

_NAME: Final = "default_transaction_read_only"
_OPTION: Final = re.compile(rf"{_NAME}\s*=\s*(\w+)", re.IGNORECASE)
_ON: Final = ("on", "true", "yes", "1", "t", "y")  # https://www.postgresql.org/docs/current/config-setting.html

_QUESTION: Final = (
    "SELECT pg_catalog.pg_is_in_recovery(), setting, source, current_user, pg_catalog.current_database() "
    "FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'"
)
# By pg_settings.source; those that are missing here are the server's own: the configuration file, the command line.
_SOURCES: Final = {
    "global": ("set for all roles", "ALTER ROLE ALL RESET"),
    "user": ("set for the role {role}", "ALTER ROLE {role} RESET"),
    "database": ("set for the database {database}", "ALTER DATABASE {database} RESET"),
    "database user": (
        "set for the role {role} in the database {database}",
        "ALTER ROLE {role} IN DATABASE {database} RESET",
    ),
    "client": ("set by the client when it connects", ""),
    "session": ("set by a statement on each new connection", ""),
}


def reason(settings: DatabaseSettings, connected: Connected) -> str:
    """Return what makes transactions read-only by default on a server that accepts writes; "" if nothing does."""
    place = _declared(settings)
    if place:
        return f"transactions are read-only by default: {_NAME} is set in {place}"
    with connected() as connection, closing(connection.cursor()) as cursor:
        cursor.execute(_QUESTION)
        standby, value, source, role, database = cursor.fetchone()
    if standby or value != "on" or source not in _SOURCES:
        return ""
    names = {"role": _name(role), "database": _name(database)}
    words, remedy = (part.format(**names) for part in _SOURCES[source])
    help = f"; to undo it: {remedy} {_NAME}" if remedy else ""
    return f"the server accepts writes, but transactions are read-only by default: {_NAME} is {words}{help}"


def _name(of_server: str) -> str:
    return '"' + printable(of_server.replace('"', '""')) + '"'


def _declared(settings: DatabaseSettings) -> str:
    """Return where the profile, or PGOPTIONS, sets default_transaction_read_only; "" if none does."""
    of_asyncpg: Any = settings.connect_args.get("server_settings")
    given: dict[str, Any] = {"variables": settings.variables, "connect_args": of_asyncpg}
    for key, values in given.items():
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if str(name).lower() == _NAME:
                return f"{key} ({settings.origin(key)})" if str(value).lower() in _ON else ""
    outside = client_defaults.defaults(settings).get("options")
    own = (*settings.address.query.get("options", ()), settings.connect_args.get("options"))
    words = _OPTION.findall(" ".join(str(one) for one in (outside and outside.value, *own) if one))
    return "PGOPTIONS or the options of the connection" if words and words[-1].lower() in _ON else ""
