"""asyncmy and aiomysql: PyMySQL's TLS parameters for drivers that have fewer of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine

from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import printable
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings import driver_parameters

if TYPE_CHECKING:
    from ssl import SSLContext

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from dbconfig.settings.database import DatabaseSettings

DRIVERS: Final = ("asyncmy", "aiomysql")
TIMEOUTS: Final = driver_parameters.TIMEOUTS
NO_TIMEOUT: Final = driver_parameters.NO_TIMEOUT

_TLS: Final = frozenset(
    {"ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"}
)

# For contexts that verify nothing: without a `capath`, `create_default_context` reads the CA certificates of the
# operating system, which takes longer than all other work of creating an engine.
NO_AUTHORITIES: Final = os.devnull

_YES: Final = ("required", "true", "yes", "1")
_NO: Final = ("none", "false", "no", "0")


def parameters(driver: str) -> frozenset[str]:
    """Return the arguments of the driver's `connect`, with the TLS parameters translated for it."""
    from importlib import import_module
    from inspect import signature

    found = signature(import_module(f"{driver}.connection").Connection.__init__).parameters
    return (frozenset(found) | _TLS) - {"self", "loop"}


def with_tls_context(
    settings: DatabaseSettings, given: Mapping[str, Any], driver: str, *, on_socket: bool
) -> dict[str, Any]:
    """Return the arguments with one `ssl` instead of PyMySQL's many, whose meaning it keeps.

    By default, TLS is used if the server offers it, as in PyMySQL; asyncmy can only require it, or not use it.
    """
    found = {name: value for name, value in given.items() if name not in _TLS}
    if given.get("ssl_disabled"):
        return found
    wanted = _in_query(settings) or _in_arguments(given)
    if wanted is None and (on_socket or driver == "asyncmy"):
        return found
    try:
        found["ssl"] = _context(wanted or {})
    except OSError as error:  # ssl.SSLError is one
        key, place = _unusable(settings, wanted or {})
        message = f"{key}: a certificate cannot be used: {error.strerror or error}"
        raise ConfigError([Problem("file-unreadable", message, place, key)]) from error
    return found


def _unusable(settings: DatabaseSettings, wanted: Mapping[str, Any]) -> tuple[str, Location]:
    """Return the key and the place of the file that a context does not take, which the error does not name."""
    found = {key.rpartition(".")[2].removeprefix("ssl_"): (key, place) for key, place, _ in _files(settings)}
    for names in ({"ca", "capath"}, {"cert", "key", "password"}):
        present = next((found[name] for name in ("ca", "capath", "cert", "key") if name in names & found.keys()), None)
        if present is None:
            continue
        try:
            _context({name: value for name, value in wanted.items() if name in names})
        except OSError:
            return present
    return next(iter(found.values()), ("connect_args", settings.origin("url")))


def missing_files(settings: DatabaseSettings) -> Iterator[Problem]:
    """Yield missing certificates: the drivers' error would be that of a server that does not listen."""
    for key, place, path in _files(settings):
        if not Path(path).exists():
            message = f"{key}: {printable(path, 300)}: the file does not exist"
            yield Problem("file-unreadable", message, place, key)


def _files(settings: DatabaseSettings) -> Iterator[tuple[str, Location, str]]:
    """Yield the files and folders of certificates, each with its key and its location."""
    nested = settings.connect_args.get("ssl")
    in_ssl = nested if isinstance(nested, Mapping) else {}
    in_url = {name: values[-1] for name, values in settings.address.query.items()}
    for prefix, values in (("connect_args", settings.connect_args), ("query", in_url), ("connect_args.ssl", in_ssl)):
        for name in ("ca", "capath", "cert", "key"):
            path = values.get(name if values is in_ssl else f"ssl_{name}")
            key = f"{prefix}.{name if values is in_ssl else f'ssl_{name}'}"
            if isinstance(path, str):
                yield key, settings.written_at(prefix if values is in_ssl else key), path


def _context(wanted: Any) -> SSLContext:
    """Return a context with the meaning that PyMySQL gives to its `ssl`, which asyncmy does without PyMySQL."""
    import ssl

    if isinstance(wanted, ssl.SSLContext):
        return wanted
    trusts = wanted.get("ca") is not None or wanted.get("capath") is not None
    mode = str(wanted["verify_mode"]).lower() if wanted.get("verify_mode") is not None else ""
    if mode == "optional":
        verifies = ssl.CERT_OPTIONAL
    else:
        verifies = ssl.CERT_REQUIRED if (mode in _YES or (trusts and mode not in _NO)) else ssl.CERT_NONE
    folder = wanted.get("capath") if trusts or verifies else NO_AUTHORITIES
    found = ssl.create_default_context(cafile=wanted.get("ca"), capath=folder)
    found.check_hostname = trusts and bool(wanted.get("check_hostname", True))
    found.verify_mode = verifies
    if wanted.get("cert") is not None:
        found.load_cert_chain(wanted["cert"], wanted.get("key"), wanted.get("password"))
    if wanted.get("cipher") is not None:
        found.set_ciphers(wanted["cipher"])
    return found


def _in_query(settings: DatabaseSettings) -> dict[str, Any] | None:
    """Return what SQLAlchemy's PyMySQL dialect makes of the parameters of a URL."""
    found: dict[str, Any] = {
        name.removeprefix("ssl_"): str(values[-1])
        for name, values in settings.address.query.items()
        if name.startswith("ssl_")
    }
    if "check_hostname" in found:
        found["check_hostname"] = found["check_hostname"].lower() in ("true", "yes", "on", "1", "t", "y")
    return found or None


def _in_arguments(given: Mapping[str, Any]) -> Any:
    """Return what PyMySQL's `connect` makes of its `ssl_…` arguments."""
    if not any(given.get(name) for name in _TLS - {"ssl", "ssl_disabled"}):
        return given.get("ssl")
    identity = bool(given.get("ssl_verify_identity"))
    found = {
        "ca": given.get("ssl_ca"),
        "check_hostname": identity,
        "verify_mode": identity or given.get("ssl_verify_cert", False),
    }
    return found | {name: given[f"ssl_{name}"] for name in ("cert", "key") if given.get(f"ssl_{name}") is not None}


def insist_on_tls(engine: Engine) -> None:
    """Reject a connection without TLS: aiomysql silently continues in plaintext if the server offers none."""

    driver: Any = engine.dialect.loaded_dbapi

    def refuse(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            row = cursor.fetchone()
        finally:
            cursor.close()
        if not row or not row[1]:
            raise driver.OperationalError(2026, "TLS is required, but the server does not offer it")

    on_connect(engine, refuse)
