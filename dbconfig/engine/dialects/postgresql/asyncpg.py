"""asyncpg: translates libpq's parameters for a driver that does not use libpq."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.util import await_only

from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.driver_arguments import unknown_argument
from dbconfig.engine.dialects.postgresql import asyncpg_environment
from dbconfig.engine.dialects.postgresql.driver import PostgreSQLDriver
from dbconfig.engine.pool.driver import Parameters, in_time
from dbconfig.errors import ConfigError, Location, Problem
from dbconfig.errors.late_pattern import late_pattern
from dbconfig.settings import driver_parameters
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from ssl import SSLContext

    from sqlalchemy import Engine

    from dbconfig.settings.client_defaults import Default
    from dbconfig.settings.database import DatabaseSettings

READ_ONLY: Final = "default_transaction_read_only"
_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl")
# asyncpg's name for `sslmode` in a URL; as an argument it may be a context.
_SSL: Final = "ssl"
# libpq's parameters that have another name or form here; they are removed from the URL.
TRANSLATED: Final = driver_parameters.ASYNCPG_TRANSLATED
_LIBPQ: Final = TRANSLATED - {_SSL, "service"}
# Read by SQLAlchemy's dialect, which parses them in a URL.
_DIALECT: Final = frozenset({"prepared_statement_cache_size", "prepared_statement_name_func", "async_creator_fn"})
# One `-c name=value` or `--name=value`; a backslash escapes a space in the value.
_OPTION: Final = late_pattern(r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|[^\\\s])*)")


def arguments(settings: DatabaseSettings, session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `asyncpg.connect`; `session` has the server's parameters of each connection."""
    _check(settings)
    given = {
        key: value for key, value in settings.connect_args.items() if not isinstance(value, Secret) and key != "timeout"
    }
    elsewhere = asyncpg_environment.look(settings)
    given.pop("service", None)
    libpq = {key: str(found[-1]) for key, found in settings.address.query.items() if key in TRANSLATED}
    if _SSL in libpq:
        libpq["sslmode"] = _mode(settings, libpq)
    libpq |= {key: value for key in list(given) if key in _LIBPQ and (value := given.pop(key)) is not None}
    libpq = {name: one.value for name, one in elsewhere.words.items()} | libpq
    options = str(libpq.get("options", ""))
    parameters = dict(elsewhere.session)
    if elsewhere.options is not None and not options:  # libpq uses those of the environment only if no others are given
        parameters |= _options(elsewhere.options.value, elsewhere.options.location)
    parameters |= {name: _text(value) for name, value in session.items()}
    parameters |= _options(options, _place(settings, "options"))
    if "application_name" in libpq:
        parameters["application_name"] = str(libpq["application_name"])
    parameters |= {name: _text(value) for name, value in (given.pop("server_settings", None) or {}).items()}
    if READ_ONLY in session:  # the URL must not make a read-only session writable
        parameters[READ_ONLY] = _text(session[READ_ONLY])
    found: dict[str, Any] = {"timeout": settings.connect_timeout}
    if parameters:
        found["server_settings"] = parameters
    if "target_session_attrs" in libpq:
        found["target_session_attrs"] = libpq["target_session_attrs"]
    if libpq.keys() & set(_TLS):
        places = {name: _place(settings, name, elsewhere.words.get(name)) for name in _TLS}
        found["ssl"] = _tls(settings, {name: str(libpq[name]) for name in _TLS if name in libpq}, places)
    if settings.pgbouncer:
        # No statements stay prepared. An unnamed one is parsed again in the message that executes it; a named one would
        # stay on the server connection, since the message that closes it may go to another one.
        found |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        found["prepared_statement_name_func"] = str
    return {**elsewhere.address, **found, **given}


def begin_before_streams(engine: Engine) -> None:
    """Allow streaming of rows in AUTOCOMMIT: without WITH HOLD, a transaction lasts until the rollback."""

    @event.listens_for(engine, "before_cursor_execute")
    def begin(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if getattr(cursor, "server_side", False):
            driver = driver_protocol.own_of(connection)
            if not driver.is_in_transaction():
                await_only(driver.execute("BEGIN READ ONLY"))


def execute_script(connection: Any, script: str) -> None:
    """Execute statements without parameters or rows, in one message and outside of a transaction."""
    await_only(connection.driver_connection.execute(script))


def _text(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _options(text: str, location: Location) -> dict[str, str]:
    found = {
        match["name"].replace("-", "_"): re.sub(r"\\(.)", r"\1", match["value"]) for match in _OPTION.finditer(text)
    }
    if _OPTION.sub("", text).strip():
        message = "`options` has something else than `-c name=value`, and asyncpg takes nothing else"
        help = "write server parameters into `variables`"
        raise ConfigError([Problem("invalid-value", message, location, "options", help)])
    return found


def _tls(settings: DatabaseSettings, wanted: Mapping[str, str], places: Mapping[str, Location]) -> SSLContext | str:
    """Return the TLS argument for `sslmode` and the certificates.

    https://www.postgresql.org/docs/current/libpq-ssl.html
    """
    import ssl

    root = wanted.get("sslrootcert")
    # With the system's certificates, only the host name identifies the server: libpq's mode is then verify-full.
    mode = wanted.get("sslmode", "verify-full" if root == "system" else "prefer")
    own_certificate = "sslcert" in wanted and not places["sslcert"].variable.startswith("PG")
    if wanted.keys() == {"sslmode"} or (mode in ("disable", "allow", "prefer") and not own_certificate):
        return mode  # in which asyncpg tries both, with the certificate of the environment; a context requires TLS
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    # In libpq, `require` with a root certificate verifies like `verify-ca`.
    verified = mode in ("verify-ca", "verify-full") or (mode == "require" and root)
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    name = "sslrootcert"
    try:
        if root == "system":
            context.load_default_certs()
        elif root and verified:  # else it is optional, and may be missing
            context.load_verify_locations(root)
        name = "sslcrl"
        if "sslcrl" in wanted:
            context.load_verify_locations(wanted["sslcrl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        name = "sslcert"
        if "sslcert" in wanted:
            context.load_cert_chain(wanted["sslcert"], wanted.get("sslkey"))
    except OSError as error:  # ssl.SSLError is one
        message = f"{name}: the certificate cannot be used: {error.strerror or error}"
        raise ConfigError([Problem("file-unreadable", message, places[name], name)]) from error
    return context


def _mode(settings: DatabaseSettings, libpq: Mapping[str, Any]) -> str:
    """Return the `sslmode` that `?ssl=` of a URL means: one of libpq's words, or the profile would not have loaded."""
    if "sslmode" in libpq:
        message = "'ssl' and 'sslmode' of the URL are the same setting"
        place = _place(settings, _SSL)
        raise ConfigError([Problem("given-twice", message, place, "query.ssl", "remove one of the two")])
    return str(libpq[_SSL])


def _place(settings: DatabaseSettings, name: str, elsewhere: Default | None = None) -> Location:
    """Return where a parameter was set: in the arguments, the query, the URL, or outside the profile."""
    keys = (f"connect_args.{name}", f"query.{name}")
    if elsewhere is not None and name not in settings.address.query and not any(map(settings.layers, keys)):
        return elsewhere.location
    return settings.written_at(*keys)


def _check(settings: DatabaseSettings) -> None:
    from inspect import signature

    import asyncpg

    known = {*signature(asyncpg.connect).parameters} - {"servicefile"} | _LIBPQ | _DIALECT | {"service"}
    problems: list[Problem] = []
    for key, names in (("connect_args", settings.connect_args), ("query", settings.address.query)):
        for name in names:
            if name not in (known if key == "connect_args" else driver_parameters.ASYNCPG_URL):
                help = (
                    "write it into `connect_args`, where a number is a number"
                    if name in known
                    else "psycopg accepts every keyword of libpq, for both kinds of engine: use postgresql+psycopg://"
                )
                problems.append(unknown_argument(settings, name, "asyncpg", key, help))
    if problems:
        raise ConfigError(problems)


class Asyncpg(PostgreSQLDriver):
    """The driver asyncpg, which does not use libpq."""

    package = "asyncpg"
    tells_tags = True
    statement_methods = ("execute", "executemany", "prepare", "fetch", "fetchrow", "fetchval", "fetchmany", "cursor")

    def transport(self, connection: Any) -> asyncio.WriteTransport | None:
        found: asyncio.WriteTransport | None = connection._transport
        return found

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        connect = parameters.written("async_creator_fn") or dialect.loaded_dbapi.asyncpg.connect
        parameters.set("async_creator_fn", in_time(connect, seconds))

    def number(self, connection: Any) -> int:
        return int(connection.get_server_pid())

    def ask_unprepared(self, pooled: Any, question: str) -> None:
        execute_script(pooled, question)

    def parameter(self, connection: Any, key: str) -> str | None:
        found: str | None = getattr(connection.get_settings(), key, None)
        return found

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.is_in_transaction())

    def failed_transaction(self) -> Exception:
        from asyncpg.exceptions import InFailedSQLTransactionError

        words = "a statement of this transaction has failed, so COMMIT has rolled it back"
        found: Exception = InFailedSQLTransactionError(words)
        return found

    def has_begun(self, connection: Any, adapted: Any) -> bool:
        return getattr(adapted, "_transaction", None) is not None


DRIVER = Asyncpg()
