"""URL parameters of other tools, and the keys that replace them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dbconfig.errors.printable import quoted
from dbconfig.settings.choices import LIBPQ_SSL_MODES
from dbconfig.settings.driver_parameters import SQLITE_FILE_URL, SQLITE_URL
from dbconfig.settings.findings import Finding
from dbconfig.settings.keys import Keys
from dbconfig.settings.known_drivers import family, instead_of_parameter, ssl_is_sslmode
from dbconfig.settings.url_parsing import DatabaseURL

_TLS: Final = "tls"
_SSL_MODES: Final = {
    **dict.fromkeys(("disable", "disabled", "false", "0", "off", "no"), "disable"),
    **dict.fromkeys(("prefer", "preferred", "allow"), "prefer"),
    **dict.fromkeys(("verify_ca", "verifyca"), "verify-ca"),
    **dict.fromkeys(("verify_full", "verify_identity", "verifyfull", "strict"), "verify-full"),
}
_REMOVE: Final = "remove it: it has no meaning here"
# By name, without case and separators. From Prisma, JDBC, drivers of Go and Node, and URLs of Django and Rails.
_EVERYWHERE: Final = {
    **dict.fromkeys(("ssl", "sslaccept", "usessl", "tls", "requiressl", "encrypt", "ssldisabled"), _TLS),
    **dict.fromkeys(("connectionlimit", "poolsize", "maxconnections", "poolmaxconns"), "write it as `pool_size`"),
    "maxoverflow": "write it as `max_overflow`",
    "pooltimeout": "write it as `pool_timeout`",
    **dict.fromkeys(("poolrecycle", "poolmaxconnlifetime", "connmaxage"), "write it as `pool_recycle`"),
    **dict.fromkeys(("connecttimeout", "connectiontimeout", "logintimeout"), "write it as `connect_timeout`"),
    **dict.fromkeys(
        ("statementtimeout", "commandtimeout", "sockettimeout", "querytimeout"), "write `statement_timeout`"
    ),
    "locktimeout": "write it as `lock_timeout`",
    "echo": "write it as `echo`",
    **dict.fromkeys(("timezone", "servertimezone"), "write it into `variables`"),
    **dict.fromkeys(("encoding", "characterencoding"), "remove it: UTF-8 is set on every database"),
    **dict.fromkeys(("schemaregistry", "uselibpqcompat", "autoreconnect", "allowpublickeyretrieval"), _REMOVE),
    **dict.fromkeys(("allowmultiqueries", "parsetime", "reconnect", "preparedstatements"), _REMOVE),
}
_POSTGRESQL: Final = {
    **_EVERYWHERE,
    "pgbouncer": "write `pgbouncer: true`",
    **dict.fromkeys(("schema", "currentschema", "searchpath"), "write `variables: {search_path: …}`"),
    "sslca": "write `sslrootcert: FILE`",
    "applicationname": "write `?application_name=…`",
}
_MYSQL: Final = {
    **_EVERYWHERE,
    **dict.fromkeys(("sslmode", "sslidentity"), _TLS),
    "sslrootcert": "write it as the key `sslrootcert`",
    "sslcert": "write it as the key `sslcert`",
    "sslkey": "write it as the key `sslkey`",
    "schema": "write it as `database`",
    "socket": "write it as `host: /file`",
}
_OF_FILES: Final = SQLITE_FILE_URL - SQLITE_URL
_FILE: Final = "write `file:` before the path: sqlite:///file:data/app.db?mode=ro&uri=true"


def unknown(settings: Keys, address: DatabaseURL) -> Iterator[Finding]:
    """Yield the parameters that no driver accepts, those of other tools with the equivalent key."""
    backend, driver = address.backend, address.drivername.lower().partition("+")[2].removesuffix("_async")
    table = {"postgresql": _POSTGRESQL, "mysql": _MYSQL}.get(family(backend), {})
    is_file = (address.database or "").startswith("file:")
    of_url = settings.url.query if settings.url is not None else {}
    for where, query in (("url", of_url), ("query", settings.query)):
        for name, values in query.items():
            at = (where,) if where == "url" else (where, name)
            remedy = instead_of_parameter(name, backend, driver)
            if name == "ssl" and not (ssl_is_sslmode(address.drivername) and values[-1] in LIBPQ_SSL_MODES):
                remedy = _REMOVE  # its meaning differs between the drivers
            if name in _OF_FILES and backend == "sqlite" and not is_file:
                yield Finding("unknown-key", f"{name!r} is a parameter of SQLite's `file:` URLs", _FILE, at)
            elif remedy:
                message = f"{quoted(name)} is not a parameter of {driver or backend}'s URLs"
                yield Finding("unknown-key", message, _help(table, name, values) or remedy, at)


def _help(table: Mapping[str, str], name: str, values: tuple[Any, ...]) -> str:
    found = table.get(_plain(name), "")
    if found != _TLS:
        return found
    mode = _SSL_MODES.get(re.sub(r"[^a-z0-9]", "_", str(values[0]).lower()), "require")
    if _plain(name) == "ssldisabled":
        mode = "prefer" if mode == "disable" else "disable"  # the opposite: true switches TLS off
    if name.lower() == "sslaccept" and mode != "verify-full":
        mode = "require"
    trust = ", and `sslrootcert: system` or the file of your provider's authority" if mode == "verify-full" else ""
    return f"write the key `sslmode: {mode}`{trust}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
