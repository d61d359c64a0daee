"""Why a connection failed: the catalogue's slug, the stage, the value at fault, and its origin."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError

from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import CONNECTION_LOST, JUDGED, UNKNOWN, Fate, Meaning
from dbconfig.errors import DBConfigError
from dbconfig.errors.catalogue import CATALOGUE  # here, since an error may come when no file can be opened
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.errors.printable import printable, quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import MASK, PLAIN_PARAMETERS
from dbconfig.settings import client_defaults, hosts
from dbconfig.settings.known_drivers import PORTS, family
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from dbconfig.engine.pool.options import Connected
    from dbconfig.settings.database import DatabaseSettings

STAGES: Final = ("resolve", "tcp", "tls", "login", "query")


# The setting at fault, in order of preference.
_AT_FAULT: Final = {
    "host-unknown": ("host",),
    "refused": ("port", "host"),
    "unreachable": ("host",),
    "timed-out": ("connect_timeout", "host"),
    "not-a-database": ("port", "drivername"),
    "tls-refused": ("sslmode", "query", "connect_args"),
    "tls-required": ("sslmode", "query", "connect_args"),
    "tls-untrusted": ("sslrootcert", "query", "connect_args", "sslmode"),
    "login-rejected": ("password", "username"),
    "database-missing": ("database",),
    "database-denied": ("username",),
    "database-file": ("database",),
    "read-only": ("host",),
    "no-primary": ("host",),
    "read-only-by-default": ("variables", "query", "username"),
    "connection-lost": ("host",),
}


_ADDRESS: Final = ("", "url", "drivername")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed, with the driver's own words."""

    slug: str
    stage: str
    words: str
    permanent: bool = True  # whether waiting cannot help


def classify(error: BaseException, settings: DatabaseSettings) -> Failure:
    """Return why a connection to a database failed; the error is the driver's, or SQLAlchemy's around it."""
    original: BaseException = getattr(error, "orig", None) or error
    # libpq retries without the program's name if a parameter is unknown, and repeats the server's message.
    lines = dict.fromkeys(" ".join(line.split()) for line in str(original).splitlines())
    words = scrubbed(" ".join(lines).strip(), settings)
    row = judged(original, settings)
    return Failure(row.slug, row.stage, words, permanent=not row.connects_again)


def judged(error: BaseException, settings: DatabaseSettings) -> Meaning:
    """Return what the error of a connection attempt means; a server whose text is unknown is asked for its code."""
    known: Meaning | None = getattr(error, JUDGED, None)
    if known is not None:
        return known
    row = errors.of_connect(error, settings.backend)
    if settings.backend == "postgresql" and row in (None, CONNECTION_LOST):
        from dbconfig.engine.dialects.postgresql import refusal  # only where a connection failed

        # A driver may close the connection when it cannot decode the server's message.
        row = refusal.ask(settings) or row
    row = row or UNKNOWN
    setattr(error, JUDGED, row)  # valid for this moment only, and asked once
    return row


class Judge:
    """The pool's classifier of errors."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self.full: int = 0

    def connects_again(self, error: BaseException) -> bool:
        """Whether the same connection attempt may succeed in a moment."""
        row = judged(error, self._settings)
        self.full += row.slug == "too-many-connections"
        return row.connects_again

    def ends_connection(self, error: BaseException) -> bool:
        """Whether a statement's error means that its connection can no longer be used."""
        row = errors.of_statement(error, self._settings.backend)
        return row is not None and row.ends_connection

    def refuses_writes(self, error: BaseException) -> bool:
        """Whether a statement was rejected because the server, or the transaction, is read-only."""
        row = errors.of_statement(error, self._settings.backend)
        return row is not None and row.fate is Fate.READ_ONLY

    def read_only_because(self, connected: Connected) -> str:
        """Return what makes transactions read-only by default on a server that accepts writes; "" if nothing does."""
        from dbconfig.engine.dialects import read_only_by_default  # only where a write was rejected

        return read_only_by_default.reason(self._settings, connected)


def name_errors(engine: Engine) -> None:
    """Convert every exception that a driver raises at a connect into a DBAPI error, which SQLAlchemy wraps.

    One raises the system's OSError; another a UnicodeDecodeError where the server's language is not in UTF-8; a third a
    RuntimeError if a package for the server's authentication method is missing.
    """
    dialect: Any = engine.dialect
    connect = dialect.connect

    def connect_or_say(*args: Any, **kwargs: Any) -> Any:
        try:
            return connect(*args, **kwargs)
        except (dialect.loaded_dbapi.Error, SQLAlchemyError, DBConfigError, *_MISTAKES):
            raise
        except Exception as error:
            raise dialect.loaded_dbapi.OperationalError(f"cannot connect: {_text(error)}") from error
        finally:
            kwargs.clear()  # the password, which error reporters print with the local variables of a frame

    dialect.connect = connect_or_say  # on the dialect object of this engine alone


_NO_RSA: Final = "'cryptography' package is required"  # PyMySQL and its descendants, for MySQL 8 without TLS
# Errors of the application's own code, unrelated to the server: a wrong argument in `connect_args`, a broken `creator`.
_MISTAKES: Final = (TypeError, AttributeError, NameError, ImportError, NotImplementedError)


def _text(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):  # the text that could not be decoded is the server's message
        return error.object.decode("utf-8", "replace")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno and error.errno > 0:
        return f"{os.strerror(error.errno)}: {error}"  # SSLError's number is OpenSSL's, not the system's
    if _NO_RSA in str(error):
        return f"{error}: install it (pip install cryptography), or write `sslmode: require`, which needs no package"
    return str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)


def problem(failure: Failure, settings: DatabaseSettings, database: str = "default", place: str = "") -> Problem:
    """Return a failure as a problem with the location of the value at fault; `place` is one of several servers."""
    key, location = at_fault(failure.slug, settings, failure.words)
    path = key if database == "default" else f"databases.{database}.{key}"
    notes: tuple[str, ...] = (f"in detail: {printable(failure.words, 300)}",) if failure.words else ()
    if failure.slug == "login-rejected":
        notes += (_password_note(settings),)
    message = _message(failure.slug, settings, place, key, failure.words)
    return Problem(failure.slug, message, location, path, fix(failure.slug, settings, failure.words), notes)


def fix(slug: str, settings: DatabaseSettings, words: str = "") -> str:
    """Return the remedy, in the database system's terms; `words` is the driver's text."""
    if _NO_RSA in words:
        return "Write `sslmode: require`, or install the package: pip install cryptography."
    return CATALOGUE[slug].advice(family(settings.backend))


def _password_note(settings: DatabaseSettings) -> str:
    password = settings.address.password
    if password is None:
        return "the profile has no password"
    masked = password.masked()
    if isinstance(masked, dict):
        return "the password is read from " + ", ".join(f"{kind} {quoted(place)}" for kind, place in masked.items())
    written = settings.origin("password" if settings.password is not None else "url")
    return f"the password comes from {written}"


def at_fault(slug: str, settings: DatabaseSettings, words: str = "") -> tuple[str, Location]:
    """Return the key that most likely has to be changed, and where it was set; `words` is the driver's text."""
    if slug == "variable-refused":
        refused = _refused_variable(settings, words)
        if refused:
            return f"variables.{refused}", settings.origin(f"variables.{refused}")
        outside = client_defaults.session_parameter(settings, words)
        if outside is not None:
            return outside
        if settings.variables:  # the text may be in any of the server's languages
            return "variables", settings.origin("variables")
    if slug == "client-setting":
        named = client_defaults.refused_setting(settings, words)
        if named is not None:
            return _place_of(settings, *named)
    base = "url" if settings.url is not None else "drivername"
    elsewhere = client_defaults.defaults(settings)
    for key in _AT_FAULT.get(slug, ()):
        location = settings.origin(key)
        if location.line or location.variable:
            return key, location
        if key in elsewhere and client_defaults.is_left_open(settings, key):
            return key, elsewhere[key].location
        if key in ("sslmode", "sslrootcert"):
            place = client_defaults.tls_word(settings, key)
            if place is not None:
                return key, place
    return base, settings.origin(base)


def _place_of(settings: DatabaseSettings, name: str, outside: Location | None) -> tuple[str, Location]:
    """Return the key of a driver's setting, and its location: in the profile, or outside it."""
    for key in (name, f"connect_args.{name}", f"query.{name}"):
        location = settings.origin(key)
        if location.line or location.variable:
            return key, location
    return name, outside or settings.origin("url" if settings.url is not None else "drivername")


def _refused_variable(settings: DatabaseSettings, words: str) -> str:
    """Return the session variable that a server's message is about: it names the variable, or its value."""
    text = words.lower()
    names = [name for name in settings.variables if name.lower() in text]
    values = [name for name, value in settings.variables.items() if str(value).lower() in text]
    return next(iter([*names, *values]), "")


def _message(slug: str, settings: DatabaseSettings, place: str = "", key: str = "", words: str = "") -> str:
    address = settings.address
    place = place or server_of(settings)
    name = place.rpartition(":")[0]
    host = f"host {quoted(name)}" if name and "," not in place else f"a host of {place}"
    user, database = quoted(address.username or ""), quoted(str(address.database or ""))
    if settings.path is not None:
        database = f"'{printable(str(settings.path), 300)}'"  # in full: it is what to search for
    texts = {
        "client-setting": f"the driver rejects {'a setting' if key in _ADDRESS else f'the setting {quoted(key)}'}",
        "host-unknown": f"cannot resolve {host}",
        "refused": f"nothing listens on {place}",
        "unreachable": f"{place} is not reachable",
        "timed-out": f"{place} did not answer in time",
        "connection-lost": f"{place} closed the connection",
        "not-a-database": f"the server at {place} is not a {settings.backend} server",
        "tls-refused": f"the server at {place} does not offer TLS, which `sslmode` requires",
        "tls-required": f"the server at {place} requires TLS",
        "tls-untrusted": f"the certificate of {place} is not trusted",
        "login-rejected": f"the server rejects the login of user {user}",
        "pooler-undeclared": f"a pooler at {place} rejects startup options",
        "database-missing": f"the server has no database {database}",
        "database-denied": f"user {user} may not use the database {database}",
        "too-many-connections": f"{place} has no free connection",
        "starting-up": f"the server at {place} is not ready",
        "database-file": f"the file {database} cannot be opened",
        "read-only": f"{place} does not accept writes",
        "no-primary": f"none of {place} is a primary",
        "read-only-by-default": "the server accepts writes, but transactions are read-only by default",
        "variable-refused": f"the server rejects a session variable: `{key or 'variables'}`",
        "busy": f"the database {database} is locked or too slow",
    }
    if settings.backend == "sqlite" and slug == "not-a-database":
        return f"the file {database} is not a SQLite database"
    if settings.backend == "sqlite" and slug == "read-only":
        return f"the file {database} does not accept writes"
    if _NO_RSA in words:
        return f"the server at {place} accepts the password only over TLS, or encrypted by the package `cryptography`"
    return texts.get(slug, f"the connection to {place} failed")


def server_of(settings: DatabaseSettings) -> str:
    """Return the address of a database's server as one word, for log messages about waiting."""
    if settings.backend == "sqlite":
        return str(settings.path or settings.address.database or ":memory:")
    if settings.is_generic and settings.address.host is None:
        return str(settings.address.database or settings.backend)  # a file, or however its driver interprets it
    address = client_defaults.completed(settings)
    socket = address.query.get("unix_socket", ()) or settings.connect_args.get("unix_socket", ())
    if socket:
        return str(socket[0] if isinstance(socket, tuple) else socket)
    found = hosts.servers(address.host, address.port, address.query, default_port(settings))
    if found[0][0] == "" and settings.backend == "postgresql":
        return "the default socket"  # of libpq, if no host is set
    return ", ".join(
        f"{host}/.s.PGSQL.{port}" if host.startswith("/") else hosts.joined(host or "localhost", port)
        for host, port in found
    )


def default_port(settings: DatabaseSettings) -> int:
    return PORTS.get(settings.backend, 0)


def scrubbed(text: str, settings: DatabaseSettings) -> str:
    """Return a driver's text with the secrets of the settings masked, in case it repeats one."""
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
            continue  # a secret that cannot be read was not sent, and appears in no message
        if len(text) > 2:
            yield text


def annotate(error: BaseException, settings: DatabaseSettings) -> None:
    """Add to a connection's error which stage failed, where the value at fault comes from, and what to do."""
    original = getattr(error, "orig", None)
    failure = classify(error, settings)
    if original is not None and hasattr(original, JUDGED):
        setattr(error, JUDGED, getattr(original, JUDGED))  # a unit of work reads it later
    key, location = at_fault(failure.slug, settings, failure.words)
    message = _message(failure.slug, settings, key=key, words=failure.words)
    error.add_note(f"dbconfig[{failure.slug}]: {message} (stage: {failure.stage})")
    error.add_note(f"  {key} comes from {location}; {fix(failure.slug, settings, failure.words)}")


def annotate_missing_table(error: BaseException, settings: DatabaseSettings) -> None:
    """Add to a statement's error where the table is missing and how to create tables."""
    database = str(settings.path or settings.address.database or "")
    where = f"the database {quoted(database)}" if database else "this database"
    error.add_note(f"dbconfig[missing-table]: {where} does not have this table")
    error.add_note(f"  {fix('missing-table', settings)}")
