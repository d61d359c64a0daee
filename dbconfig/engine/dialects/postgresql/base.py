"""PostgreSQL: timeouts and session variables as startup options, which cost no round trip and survive a rollback."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from dbconfig.engine.dialects.driver_arguments import milliseconds, unknown_argument, variable_names
from dbconfig.engine.dialects.postgresql import asyncpg, interrupted_statements, pgbouncer
from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings import client_defaults, tls
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL, Engine

    from dbconfig.settings.database import DatabaseSettings

READ_ONLY: Final = asyncpg.READ_ONLY
# The parameters of connect() itself, in addition to libpq's keywords.
_OWN: Final = {
    "psycopg2": frozenset({"dsn", "connection_factory", "cursor_factory"}),
    "psycopg": frozenset({"autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"}),
}


_PLACE: Final = ("host", "hostaddr")  # libpq's keywords of an address
# DISCARD ALL without DEALLOCATE ALL: these drivers keep statements prepared, and would execute deallocated ones.
# https://www.postgresql.org/docs/current/sql-discard.html
_DISCARD_BUT_PLANS: Final = "; ".join(
    (
        *("CLOSE ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET ALL", "UNLISTEN *"),
        *("SELECT pg_advisory_unlock_all()", "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES"),
    )
)


def address(settings: DatabaseSettings, drivername: str) -> URL:
    # `options` is merged into the driver's arguments, which would override it.
    elsewhere = asyncpg.TRANSLATED if drivername.endswith("+asyncpg") else ("options",)
    return settings.public_url(drivername).difference_update_query(elsewhere)


def arguments(settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
    driver = drivername.partition("+")[2].removesuffix("_async")
    session = {} if settings.pgbouncer else _session(settings)  # it rejects startup options
    if driver == "asyncpg":
        return asyncpg.arguments(settings, session)
    given = {key: value for key, value in settings.connect_args.items() if not isinstance(value, Secret)}
    _check(settings, driver)
    found: dict[str, Any] = {}
    # libpq accepts whole seconds.
    if "connect_timeout" not in settings.address.query:
        found["connect_timeout"] = math.ceil(settings.connect_timeout)
    guard = session.pop(READ_ONLY, None)
    options = [f"-c {name}={_escaped(value)}" for name, value in session.items()]
    own = [str(one) for one in (*settings.address.query.get("options", ()), given.pop("options", None)) if one]
    if (options or guard is not None) and not own:
        # libpq reads its options from the environment only if none are given.
        found_elsewhere = client_defaults.defaults(settings).get("options")
        options[:0] = [found_elsewhere.value] if found_elsewhere is not None else []
    options += own
    if guard is not None:
        options.append(f"-c {READ_ONLY}={_escaped(guard)}")  # last: the URL must not make a read-only session writable
    if options:
        found["options"] = " ".join(options)
    if driver == "psycopg":
        found |= _server_of_service(settings)
    if driver == "psycopg" and settings.pgbouncer:
        # A statement prepared on one server connection and executed on another one may return another client's rows.
        found["prepare_threshold"] = None
    if settings.sslrootcert == tls.SYSTEM:
        found["sslrootcert"] = tls.bundle(settings)  # supported by libpq since version 16 only
    if driver == "psycopg2" and _has_secrets(settings):
        from dbconfig.engine.dialects.postgresql.psycopg2 import discreet_connection

        found["connection_factory"] = discreet_connection()
    return {**found, **given}


def _server_of_service(settings: DatabaseSettings) -> dict[str, str]:
    """Return the server's address from a service: psycopg itself resolves PGHOST, which libpq uses last."""
    service = client_defaults.service_of(settings)
    if not service or settings.address.host or any(client_defaults.is_written(settings, name) for name in _PLACE):
        return {}
    lines = client_defaults.service(service) or {}
    has_port = settings.address.port is not None or client_defaults.is_written(settings, "port")
    return {name: lines[name].value for name in (*_PLACE, *(() if has_port else ("port",))) if name in lines}


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    """Attach what a pooler or `fast_begin` needs; everything else is a startup option."""
    driver = engine.dialect.driver
    if not settings.pgbouncer:  # which reports IDs of its own
        interrupted_statements.attach(engine)
    if driver == "psycopg":
        from dbconfig.engine.dialects.postgresql import psycopg

        psycopg.forget_stale_plans(engine)
    if driver in _OWN and not settings.pgbouncer:  # there each transaction sets them
        _set_by_statement(engine, _overridden(settings))
    limits = _limits(settings)
    if settings.fast_begin and driver == "psycopg2":
        from dbconfig.engine.dialects.postgresql import fast_begin

        fast_begin.attach(engine, fast_begin.FastBeginConnection, "; ".join(limits))
    elif settings.pgbouncer:
        if settings.isolation_level != "AUTOCOMMIT":  # which has none, except for read-only sessions: attach_to_readers
            pgbouncer.set_in_transactions(engine, limits)
    elif driver == "psycopg" and "prepare_threshold" not in settings.connect_args:
        pgbouncer.distrust(engine)


def set_up_foreign(engine: Engine, settings: DatabaseSettings) -> None:
    """Set the session's variables with a statement: the application's own connections have no startup options."""
    _set_by_statement(engine, _session(settings))


def _overridden(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the variables that libpq reads from the environment, which overrides startup options."""
    environ = client_defaults.variables()
    taken = {key for name, key in client_defaults.SESSION.items() if environ.get(name)}
    return {name: value for name, value in variable_names(settings).items() if name.lower() in taken}


def _set_by_statement(engine: Engine, session: Mapping[str, Any]) -> None:
    if not session:
        return
    calls = ", ".join(f"set_config({_quoted(name)}, {_quoted(_text(value))}, false)" for name, value in session.items())

    def set_session(connection: Any, record: Any) -> None:
        before = connection.autocommit
        connection.autocommit = True  # a rollback would undo it
        cursor = connection.cursor()
        cursor.execute(f"SELECT {calls}")  # quoted
        cursor.close()
        connection.autocommit = before

    on_connect(engine, set_session, session=True)


def session_reset(engine: Engine, settings: DatabaseSettings) -> Callable[[Any, Any], None]:
    """Return what resets a session to its startup options, which contain the limits and the read-only mode."""
    if engine.dialect.driver == "asyncpg":
        return lambda connection, record: asyncpg.execute_script(connection, _DISCARD_BUT_PLANS)
    if engine.dialect.driver.startswith("psycopg") and engine.dialect.driver != "psycopg2":
        from dbconfig.engine.dialects.postgresql import psycopg

        return lambda connection, record: psycopg.execute_script(engine, connection, _DISCARD_BUT_PLANS)

    def discard(connection: Any, record: Any) -> None:
        before = connection.autocommit
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("DISCARD ALL")
        cursor.close()
        connection.autocommit = before

    return discard


def attach_to_readers(engine: Engine, settings: DatabaseSettings) -> None:
    """Attach what read-only sessions in AUTOCOMMIT need; `settings` make connections read-only."""
    if settings.pgbouncer:
        pgbouncer.guard_readers(engine, _limits(settings))
    else:
        hold_cursors(engine)


def hold_cursors(engine: Engine) -> None:
    """Allow streaming of rows outside a transaction: without WITH HOLD, a cursor ends with its statement."""
    if engine.dialect.driver == "psycopg2":
        from dbconfig.engine.dialects.postgresql.psycopg2 import hold_cursors

        hold_cursors(engine)
    elif engine.dialect.driver == "psycopg":

        @event.listens_for(engine, "connect")
        def hold(connection: Any, record: Any) -> None:
            driver = record.driver_connection
            make = driver.server_cursor_factory
            driver.server_cursor_factory = lambda *found, **how: make(*found, **{**how, "withhold": True})
    elif engine.dialect.driver == "asyncpg":
        asyncpg.begin_before_streams(engine)


def _limits(settings: DatabaseSettings) -> list[str]:
    """Return what each transaction sets: a pooler rejects startup options, which would set it once."""
    return pgbouncer.limits_of(_session(settings)) if settings.pgbouncer else []


def _session(settings: DatabaseSettings) -> dict[str, Any]:
    timeouts = {
        "statement_timeout": settings.statement_timeout,
        "lock_timeout": settings.lock_timeout,
        "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout,
    }
    found: dict[str, Any] = {name: milliseconds(value) for name, value in timeouts.items() if value is not None}
    return {**found, **variable_names(settings)}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _escaped(value: Any) -> str:
    text = _text(value)
    # https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
    return re.sub(r"([\s\\])", r"\\\1", text)


def _check(settings: DatabaseSettings, driver: str) -> None:
    """Validate keywords with libpq itself, which would otherwise reject them only at the first connection."""
    problems: list[Problem] = []
    for key, names in (("connect_args", settings.connect_args), ("query", settings.address.query)):
        for name in names:
            if not (key == "connect_args" and name in _OWN.get(driver, ())) and not _is_keyword(driver, name):
                problems.append(unknown_argument(settings, name, driver, key))
    if problems:
        raise ConfigError(problems)


def _is_keyword(driver: str, name: str) -> bool:
    # libpq accepts a number for every keyword here; only the name is checked.
    if driver == "psycopg2":
        import psycopg2
        from psycopg2.extensions import make_dsn

        try:
            make_dsn(**{name: "1"})
        except psycopg2.ProgrammingError:
            return False
        return True
    if driver == "psycopg":
        import psycopg
        from psycopg.conninfo import make_conninfo

        try:
            make_conninfo(**{name: "1"})
        except psycopg.ProgrammingError:
            return False
    return True


def _has_secrets(settings: DatabaseSettings) -> bool:
    query = [one for found in settings.address.query.values() for one in found]
    values = (*settings.connect_args.values(), *settings.variables.values(), *query)
    return any(isinstance(value, Secret) for value in values)
