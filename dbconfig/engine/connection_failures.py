"""Why a connection failed: the slug of the catalogue, the stage, the value at fault and where that comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dbconfig.errors import printable
from dbconfig.errors.catalogue import CATALOGUE
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import MASK, PLAIN_PARAMETERS
from dbconfig.settings.known_drivers import PORTS
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbconfig.settings.database import DatabaseSettings

STAGES: Final = ("resolve", "tcp", "tls", "login", "query")


# libpq gives no SQLSTATE for a connection that failed, so its words decide; the first that fits does.
_POSTGRESQL: Final = (
    (r"could not translate host name|Name or service not known|nodename nor servname", "resolve", "host-unknown"),
    (r"Connection refused|No such file or directory", "tcp", "refused"),
    (r"No route to host|Network is unreachable", "tcp", "unreachable"),
    (r"timeout expired|timed out", "tcp", "timed-out"),
    (r"received invalid response to (?:SSL|GSS)|expected authentication request", "tls", "not-a-database"),
    (r"does not support SSL|does not support GSSAPI|SSL was required", "tls", "tls-refused"),
    (r"certificate verify failed|server certificate for|root certificate file|SSL error", "tls", "tls-untrusted"),
    (r"no pg_hba\.conf entry[^\n]*(?:no encryption|SSL off)", "tls", "tls-required"),
    (r"too many clients|connection slots are reserved|too many connections", "login", "too-many-connections"),
    (r"is (?:starting up|shutting down|not yet accepting)|in recovery mode", "login", "starting-up"),
    (r'database "[^"\n]*" does not exist', "login", "database-missing"),
    (r"permission denied for database", "login", "database-denied"),
    (r"authentication failed|no password supplied|no pg_hba\.conf entry", "login", "login-rejected"),
    (r'role "[^"\n]*" does not exist|is not permitted to log in', "login", "login-rejected"),
    (r"session is not read-only|session is read-only|server is (?:not )?in hot standby", "login", "read-only"),
    (r"unsupported startup parameter", "login", "pooler-undeclared"),
    (r"server closed the connection|Connection reset|closed unexpectedly", "login", "connection-lost"),
)
# https://mariadb.com/kb/en/mariadb-error-codes/
_MYSQL: Final = {
    1044: ("login", "database-denied"),
    1142: ("query", "database-denied"),
    1045: ("login", "login-rejected"),
    1130: ("login", "login-rejected"),
    1698: ("login", "login-rejected"),
    4151: ("login", "login-rejected"),
    1049: ("login", "database-missing"),
    1040: ("login", "too-many-connections"),
    1203: ("login", "too-many-connections"),
    1226: ("login", "too-many-connections"),
    3159: ("tls", "tls-required"),
    4149: ("tls", "tls-required"),
    1290: ("query", "read-only"),
    1836: ("query", "read-only"),
    1053: ("login", "starting-up"),
    2006: ("login", "connection-lost"),
    2013: ("login", "connection-lost"),
    2026: ("tls", "tls-refused"),
    1205: ("query", "busy"),
    1969: ("query", "busy"),
}
_SQLITE: Final = (
    (r"unable to open|cannot be made|permission denied", "login", "database-file"),
    (r"not a database|malformed", "login", "not-a-database"),
    (r"locked|busy", "query", "busy"),
    (r"readonly", "query", "read-only"),
)
# Which setting is at fault, in the order of preference.
_AT_FAULT: Final = {
    "host-unknown": ("host",),
    "refused": ("port", "host"),
    "unreachable": ("host",),
    "timed-out": ("connect_timeout", "host"),
    "not-a-database": ("port", "drivername"),
    "tls-refused": ("query", "connect_args"),
    "tls-required": ("query", "connect_args"),
    "tls-untrusted": ("query", "connect_args"),
    "login-rejected": ("password", "username"),
    "database-missing": ("database",),
    "database-denied": ("username",),
    "database-file": ("database",),
    "read-only": ("host",),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed, with the driver's own words."""

    slug: str
    stage: str
    words: str

    @property
    def permanent(self) -> bool:
        """Whether waiting cannot help."""
        return CATALOGUE[self.slug].permanent


def classify(error: BaseException, settings: DatabaseSettings) -> Failure:
    """Return why a connection to a database failed; the error is the driver's, or SQLAlchemy's around it."""
    original: BaseException = getattr(error, "orig", None) or error
    words = scrubbed(" ".join(str(original).split()), settings)
    slug, stage = "connection-failed", "login"
    if settings.backend in ("mysql", "mariadb"):
        stage, slug = _mysql(original)
    else:
        table = _POSTGRESQL if settings.backend == "postgresql" else _SQLITE
        for pattern, where, found in table:
            if re.search(pattern, str(original)):
                stage, slug = where, found
                break
    return Failure(slug, stage, words)


def _mysql(error: BaseException) -> tuple[str, str]:
    import socket  # only where a connection failed

    inner: Any = getattr(error, "original_exception", None)
    if isinstance(inner, socket.gaierror):
        return "resolve", "host-unknown"
    if isinstance(inner, TimeoutError):
        return "tcp", "timed-out"
    if isinstance(inner, ConnectionRefusedError):
        return "tcp", "refused"
    code = error.args[0] if error.args else None
    text = str(error)
    if "Network is unreachable" in text or "No route to host" in text:
        return "tcp", "unreachable"
    if re.search(r"certificate|CERTIFICATE", text):
        return "tls", "tls-untrusted"
    if "timed out" in text:
        return "tcp", "timed-out"
    if "not a valid" in text or "Packet sequence number wrong" in text or "protocol" in text.lower():
        return "tls", "not-a-database"
    if isinstance(code, int) and code in _MYSQL:
        return _MYSQL[code]
    return "login", "connection-failed"


def problem(failure: Failure, settings: DatabaseSettings, database: str = "default", place: str = "") -> Problem:
    """Return a failure as a problem with the place of the value at fault; `place` is one of several servers."""
    key, location = at_fault(failure.slug, settings)
    path = key if database == "default" else f"databases.{database}.{key}"
    notes: tuple[str, ...] = (f"in detail: {printable(failure.words, 300)}",) if failure.words else ()
    if failure.slug == "login-rejected":
        notes += (_password_note(settings),)
    message = _message(failure.slug, settings, place)
    return Problem(failure.slug, message, location, path, CATALOGUE[failure.slug].fix, notes)


def _password_note(settings: DatabaseSettings) -> str:
    password = settings.address.password
    if password is None:
        return "the profile gives no password"
    masked = password.masked()
    if isinstance(masked, dict):
        return "the password is read from " + ", ".join(f"{kind} {quoted(place)}" for kind, place in masked.items())
    written = settings.origin("password" if settings.password is not None else "url")
    return f"the password comes from {written}"


def at_fault(slug: str, settings: DatabaseSettings) -> tuple[str, Location]:
    """Return the key that most likely has to be changed, and where it was written."""
    base = "url" if settings.url is not None else "drivername"
    for key in _AT_FAULT.get(slug, ()):
        location = settings.origin(key)
        if location.line or location.variable:
            return key, location
    return base, settings.origin(base)


def _message(slug: str, settings: DatabaseSettings, place: str = "") -> str:
    address = settings.address
    place = place or f"{address.host or 'localhost'}:{address.port or default_port(settings)}"
    host = quoted(place.rpartition(":")[0])
    user, database = quoted(address.username or ""), quoted(str(settings.path or address.database or ""))
    texts = {
        "host-unknown": f"the host {host} has no address",
        "refused": f"nothing listens on {place}",
        "unreachable": f"there is no way to {place}",
        "timed-out": f"{place} did not answer in time",
        "connection-lost": f"{place} closed the connection",
        "not-a-database": f"what answers on {place} is no {settings.backend} server",
        "tls-refused": f"the server at {place} offers no TLS, and the profile asks for it",
        "tls-required": f"the server at {place} demands TLS",
        "tls-untrusted": f"the certificate of {place} is not trusted",
        "login-rejected": f"the server rejects the login of user {user}",
        "pooler-undeclared": f"a pooler at {place} refuses startup options",
        "database-missing": f"the server has no database {database}",
        "database-denied": f"user {user} may not use the database {database}",
        "too-many-connections": f"{place} has no free connection",
        "starting-up": f"the server at {place} is not ready",
        "database-file": f"the file {database} cannot be opened",
        "read-only": f"{place} takes no writes",
        "busy": f"the database {database} is locked or too slow",
    }
    if settings.backend == "sqlite" and slug == "not-a-database":
        return f"the file {database} is no SQLite database"
    if settings.backend == "sqlite" and slug == "read-only":
        return f"the file {database} takes no writes"
    return texts.get(slug, f"the connection to {place} failed")


def default_port(settings: DatabaseSettings) -> int:
    return PORTS.get(settings.backend, 0)


def scrubbed(text: str, settings: DatabaseSettings) -> str:
    """Return a driver's text without the secrets of the settings, in case it repeats one."""
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        for form in {secret, quote(secret, safe="")}:
            text = text.replace(form, MASK)
    return text


def _secrets(settings: DatabaseSettings) -> Iterator[str]:
    from dbconfig.errors import ConfigError

    address = settings.address
    found: list[Secret] = [address.password] if address.password is not None else []
    for name, values in address.query.items():
        found += [one for one in values if isinstance(one, Secret)]
        if name not in PLAIN_PARAMETERS:
            yield from (one for one in values if isinstance(one, str) and len(one) > 2)
    found += [value for value in settings.connect_args.values() if isinstance(value, Secret)]
    for secret in found:
        try:
            text = secret.read(settings.folder)
        except ConfigError:
            continue  # what cannot be read was not sent, and stands in no message
        if len(text) > 2:
            yield text


def annotate(error: BaseException, settings: DatabaseSettings) -> None:
    """Add to a connection's error which stage failed, where the value at fault comes from, and what to do."""
    failure = classify(error, settings)
    key, location = at_fault(failure.slug, settings)
    error.add_note(f"dbconfig[{failure.slug}]: {_message(failure.slug, settings)} (stage: {failure.stage})")
    error.add_note(f"  {key} comes from {location}; {CATALOGUE[failure.slug].fix}")
