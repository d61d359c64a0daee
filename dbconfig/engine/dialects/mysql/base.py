"""MySQL and MariaDB: UTF-8, timeouts in one SET, one TLS context for all connections of an engine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Engine
from sqlalchemy.exc import NotSupportedError

from dbconfig.engine.dialects.driver_arguments import milliseconds, unknown_argument, variable_names
from dbconfig.engine.dialects.mysql import idle_rollbacks, interrupted_statements, xa
from dbconfig.engine.dialects.mysql import session_reset as session_resets
from dbconfig.engine.dialects.mysql import tls as async_tls
from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import printable, quoted
from dbconfig.errors.problem import Problem
from dbconfig.settings import client_defaults, hosts, small_files, tls
from dbconfig.settings.known_drivers import PORTS
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from dbconfig.settings.database import DatabaseSettings

SEVERAL: Final = frozenset({"host", "port"})  # the hosts of a list, and their ports, as PostgreSQL's URLs write them


def address(settings: DatabaseSettings, drivername: str) -> URL:
    url = settings.public_url(drivername)
    if SEVERAL & url.query.keys():  # with several hosts, each connect uses one
        host, port = hosts.servers(None, None, settings.address.query, PORTS["mysql"])[0]
        url = url.difference_update_query(SEVERAL).set(host=host, port=port)
    if drivername.partition("+")[2] not in async_tls.DRIVERS:
        return url
    # These accept TLS as a context, which is one of the arguments.
    return url.difference_update_query([name for name in url.query if name.startswith("ssl")])


def arguments(settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
    driver = drivername.partition("+")[2]
    given = {key: value for key, value in settings.connect_args.items() if not isinstance(value, Secret)}
    _check(settings, driver)
    if driver in async_tls.DRIVERS and settings.sslmode in (None, "prefer"):
        # Otherwise only `sslmode` determines `ssl`: no other TLS arguments are given.
        given = async_tls.with_tls_context(settings, given, driver, on_socket=_on_socket(settings))
    found: dict[str, Any] = {}
    if "connect_timeout" not in settings.address.query:
        found["connect_timeout"] = math.ceil(settings.connect_timeout)
    if "charset" not in settings.address.query:
        found["charset"] = "utf8mb4"
    if driver == "pymysql" and _on_socket(settings) and not _wants_tls(settings):
        # On a Unix socket, TLS protects nothing and costs PyMySQL 25 ms per connection for reading the CA bundle. On
        # the loopback interface it stays on: MySQL 8 accepts a password without TLS only from a driver with the
        # `cryptography` package.
        found["ssl_disabled"] = True
    if settings.sslmode is not None:
        found |= _tls(settings, driver)
    return {**found, **given, **_option_file(settings)}


def _option_file(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the absolute path of the option file: the drivers resolve a relative one against the working directory.

    Raises:
        ConfigError: it cannot be read; PyMySQL would silently connect without it.
    """
    name = client_defaults.OPTION_FILE
    key = "connect_args" if name in settings.connect_args else "query"
    written = settings.connect_args.get(name) or next(iter(settings.address.query.get(name, ())), None)
    if not isinstance(written, str):
        return {}
    path = client_defaults.option_file(settings, written)
    wrong = small_files.check(path, small_files.LIMIT)
    if wrong:
        message = f"{name}: {printable(str(path), 300)}: {wrong}"
        place = settings.written_at(f"{key}.{name}")
        raise ConfigError([Problem("file-unreadable", message, place, f"{key}.{name}")])
    return {name: str(path)}


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    xa.attach(engine)
    if engine.dialect.driver == "pymysql":
        from dbconfig.engine.dialects.mysql import pymysql

        pymysql.attach(engine, share_tls_context=not _on_socket(settings) or _wants_tls(settings))
        if settings.sslmode not in (None, "disable", "prefer"):
            on_connect(engine, _refuse_plaintext, first=True)
    if engine.dialect.driver in async_tls.DRIVERS:
        idle_rollbacks.skip_idle_rollbacks(engine)
    interrupted_statements.attach(engine)
    if engine.dialect.driver == "aiomysql":
        from dbconfig.engine.dialects.mysql import aiomysql

        aiomysql.take_tls_as_offered(engine)
        if _insists_on_tls(settings):
            async_tls.insist_on_tls(engine)
    variables = dict(variable_names(settings))
    timeouts = settings.statement_timeout, settings.lock_timeout, settings.idle_in_transaction_timeout
    if not variables and timeouts == (None, None, None):
        return

    def set_session_variables(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        # After SQLAlchemy's own SET NAMES, which would undo a collation; MySQL's SET is not undone by a rollback.
        wanted = {**_timeouts(settings, _is_mariadb(connection)), **variables}
        cursor = connection.cursor()
        try:
            assignments = ", ".join(f"SESSION {name} = %s" for name in wanted)
            cursor.execute(f"SET {assignments}", tuple(wanted.values()))
        finally:
            cursor.close()

    on_connect(engine, set_session_variables, session=True)


def set_up_foreign(engine: Engine, settings: DatabaseSettings) -> None:
    """Do nothing: sessions are configured by statements on each new connection."""


def session_reset(engine: Engine, settings: DatabaseSettings) -> Callable[[Any, Any], None]:
    """Return what resets a session."""
    if engine.dialect.driver not in session_resets.DRIVERS:
        key = "pool_reset" if settings.pool_reset == "discard" else "pool_reset_on_return"
        message = f"`{key}: discard` is unsupported with {engine.dialect.driver}"
        help = f"use mysql+{' or mysql+'.join(session_resets.DRIVERS)}"
        raise ConfigError([Problem("not-applicable", message, settings.origin(key), key, help)])
    return session_resets.of_driver(engine, settings.isolation_level)


def _timeouts(settings: DatabaseSettings, mariadb: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.statement_timeout is not None:
        # https://mariadb.com/kb/en/server-system-variables/#max_statement_time (seconds, every statement) and
        # https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html#sysvar_max_execution_time (milliseconds,
        # SELECT only)
        found |= (
            {"max_statement_time": settings.statement_timeout}
            if mariadb
            else {"max_execution_time": milliseconds(settings.statement_timeout)}
        )
    if settings.lock_timeout is not None:
        seconds = max(1, math.ceil(settings.lock_timeout))  # both accept whole seconds, and zero would not wait at all
        found |= {"innodb_lock_wait_timeout": seconds, "lock_wait_timeout": seconds}
    if settings.idle_in_transaction_timeout is not None:
        if not mariadb:
            message = "idle_in_transaction_timeout: MySQL has no such limit (MariaDB does); remove it from the profile"
            raise NotSupportedError(message, None, RuntimeError(message))
        found["idle_transaction_timeout"] = max(1, math.ceil(settings.idle_in_transaction_timeout))
    return found


def _tls(settings: DatabaseSettings, driver: str) -> dict[str, Any]:
    if driver not in ("pymysql", *async_tls.DRIVERS):
        message = f"`sslmode` is not supported with {driver}"
        help = "write the driver's own arguments into `connect_args`, or mysql+pymysql://"
        raise ConfigError([Problem("not-applicable", message, settings.origin("sslmode"), "sslmode", help)])
    if settings.sslmode == "disable":
        return {"ssl_disabled": True} if driver == "pymysql" else {"ssl": None}
    if settings.sslmode != "prefer":
        return {"ssl": tls.context(settings)}
    if driver == "asyncmy":
        message = "asyncmy does not support `sslmode: prefer`: it either requires TLS, or does not use it"
        raise ConfigError([Problem("not-applicable", message, settings.origin("sslmode"), "sslmode", "write require")])
    return {}


def _insists_on_tls(settings: DatabaseSettings) -> bool:
    return _wants_tls(settings) and settings.sslmode != "prefer"


def _refuse_plaintext(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    # Before version 1.2 PyMySQL continues in plaintext if the server, or a man in the middle, offers no TLS.
    if not getattr(connection, "_secure", True):
        raise connection.OperationalError(2026, "TLS is required, but the server does not offer it")


def _is_mariadb(connection: DBAPIConnection) -> bool:
    driver_connection: Any = getattr(
        connection, "driver_connection", connection
    )  # SQLAlchemy adapts an asynchronous one
    return "MariaDB" in str(driver_connection.get_server_info())


def _on_socket(settings: DatabaseSettings) -> bool:
    return "unix_socket" in settings.address.query


def _wants_tls(settings: DatabaseSettings) -> bool:
    if settings.sslmode is not None:
        return settings.sslmode != "disable"
    given = {**settings.address.query, **settings.connect_args}
    return any(name.startswith("ssl") and value is not None for name, value in given.items())


def _check(settings: DatabaseSettings, driver: str) -> None:
    problems: list[Problem] = []
    names = _parameters(driver)
    for name in settings.connect_args:
        if names is not None and name not in names:
            help = async_tls.NO_TIMEOUT if name in async_tls.TIMEOUTS else ""
            problems.append(unknown_argument(settings, name, driver, "connect_args", help))
    for name in settings.address.query:
        if name in async_tls.TIMEOUTS and names is not None and name not in names:
            problems.append(unknown_argument(settings, name, driver, "query", async_tls.NO_TIMEOUT))
    if driver in ("pymysql", *async_tls.DRIVERS):
        problems += [*async_tls.missing_files(settings), *_unknown_charset(settings, driver)]
    if problems:
        raise ConfigError(problems)


def _unknown_charset(settings: DatabaseSettings, driver: str) -> Iterator[Problem]:
    from importlib import import_module

    # asyncmy has its own copy, and needs no PyMySQL.
    charset_by_name = import_module(f"{'asyncmy' if driver == 'asyncmy' else 'pymysql'}.charset").charset_by_name
    in_url = {name: values[-1] for name, values in settings.address.query.items()}
    for key, values in (("connect_args", settings.connect_args), ("query", in_url)):
        name = values.get("charset")
        known: Any = charset_by_name(name) if isinstance(name, str) else True
        if known is None:
            place = settings.written_at(f"{key}.charset")
            message = f"'charset' in {key} is not a MySQL character set: {quoted(str(name))}"
            yield Problem("invalid-value", message, place, f"{key}.charset", "utf8mb4 has every character")


def _parameters(driver: str) -> frozenset[str] | None:
    if driver in async_tls.DRIVERS:
        return async_tls.parameters(driver)
    if driver != "pymysql":
        return None  # mysqlclient is written in C and does not list them
    from inspect import signature

    from pymysql.connections import Connection

    return frozenset(signature(Connection.__init__).parameters) - {"self"}
