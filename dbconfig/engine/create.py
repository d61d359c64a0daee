"""From settings to `create_engine`'s arguments to an engine."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy
from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool, SingletonThreadPool
from sqlalchemy.util import get_cls_kwargs

from dbconfig.engine import (
    commit_guard,
    connection_failures,
    dialects,
    echo,
    given_options,
    keyboard_interrupts,
    password_rotation,
    pickled_notes,
    pool,
)
from dbconfig.engine.dialects import application_name, driver_protocol, errors, session_reset
from dbconfig.engine.dialects.error_table import TABLE_MISSING
from dbconfig.engine.password_rotation import _prove_secrets, _supply_secrets
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, suggest
from dbconfig.errors.problem import Problem
from dbconfig.settings import tls
from dbconfig.settings.choices import POOL_CLASSES
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.keys import group
from dbconfig.settings.known_drivers import not_its_paramstyle

# Older versions leave a connection checked out when a task is cancelled while its session closes.
ASYNCHRONOUS_FROM: Final = (2, 0, 58)

_log = logging.getLogger("dbconfig.engines")

pickled_notes.keep()

# Fields of the group "engine" that do not go into create_engine under their own name.
_ELSEWHERE: Final = ("connect_args", "dialect_options", "fast_begin")


def build(
    settings: DatabaseSettings,
    name: str,
    extra: Mapping[str, Any] | None = None,
    *,
    asynchronous: bool = False,
    beside: Engine | None = None,
    read_only: bool = False,
    patient: bool = True,
) -> Engine:
    """Return a new engine; nothing is connected.

    Args:
        settings: of the database.
        name: "profile" or "profile/database", the last part of the loggers' names.
        extra: arguments of create_engine that only code can express.
        asynchronous: with an asynchronous driver; the engine is meant for `AsyncEngine(engine)`.
        beside: the engine whose database in memory this one shares.
        read_only: a read-only server is expected.
        patient: wait for a server that cannot be reached, until `pool_timeout`; or fail immediately.

    Raises:
        ConfigError: the driver is not installed, a secret cannot be read, or the driver does not have an argument.
        RuntimeError: the engine is asynchronous, and SQLAlchemy is older than `ASYNCHRONOUS_FROM`.
    """
    if asynchronous:
        check_version()
    drivername = settings.driver(asynchronous=asynchronous)
    _check_paramstyle(settings, drivername)
    _prove_secrets(settings)
    tls.check_files(settings)
    arguments = engine_options(settings, name, drivername, extra, patient=patient)
    dialect = dialects.of(settings.backend)
    url = dialect.address(settings, drivername) if beside is None else beside.url.set(drivername=drivername)
    engine = _created(url, arguments, settings)
    _attach(engine, settings, name, foreign=given_options.makes_connections(extra or {}), read_only=read_only)
    return engine


def _created(url: URL, arguments: dict[str, Any], settings: DatabaseSettings) -> Engine:
    creator = arguments.pop("async_creator", None)
    try:
        engine = sqlalchemy.create_engine(url, **arguments)
    except ImportError as error:
        message = f"the driver {url.drivername} is installed, but cannot be imported: {error}"
        raise ConfigError([Problem("missing-driver", message, settings.origin("url"))]) from error
    if settings.echo or settings.echo_pool:
        echo.print_once(engine)
    if creator is not None:
        given_options.use_async_creator(engine, creator)
    return engine


def _attach(engine: Engine, settings: DatabaseSettings, name: str, *, foreign: bool, read_only: bool) -> None:
    """Attach what the settings require to an engine; `foreign`: the application creates its connections."""
    dialect = dialects.of(settings.backend)
    # In this order: the dialect's listener may open the connection itself. (`insert=True` has no effect on this event.)
    _supply_secrets(engine, settings)
    password_rotation.attach(engine, settings, name)
    errors.read_table(settings.backend)
    judge, driver = connection_failures.Judge(settings), driver_protocol.of(engine.dialect)
    pool.attach(engine, settings, name=name, read_only=read_only, judge=judge, driver=driver)
    dialect.attach(engine, settings)
    if foreign:
        dialect.set_up_foreign(engine, settings)
    session_reset.attach(engine, settings)
    _let_be_seen(engine, settings, name)
    connection_failures.name_errors(engine)
    keyboard_interrupts.attach(engine)
    if not foreign and "host" in settings.address.query:  # else there are not several
        from dbconfig.engine import primary

        primary.attach(engine, settings, name)
    if not read_only:
        commit_guard.attach(engine, settings)
    _explain_failures(engine, settings)
    pool.limit_by_deadlines(engine)


def _let_be_seen(engine: Engine, settings: DatabaseSettings, name: str) -> None:
    """Attach query tags and slow-statement logging; what is not enabled is not even imported."""
    if settings.query_tags:
        from dbconfig.engine import query_tags

        query_tags.attach(engine, settings, name)
    if settings.slow_statement is not None:
        from dbconfig.engine import slow_statements

        slow_statements.attach(engine, settings, name)


def hold_memory(settings: DatabaseSettings) -> Engine:
    """Return an engine that keeps a database in memory alive for asynchronous engines; it is not for sessions."""
    from dbconfig.engine.dialects.sqlite import base

    engine = sqlalchemy.create_engine(base.address(settings, "sqlite"))
    base.keep(engine)
    return engine


def engine_options(
    settings: DatabaseSettings,
    name: str,
    drivername: str,
    extra: Mapping[str, Any] | None = None,
    *,
    patient: bool = True,
) -> dict[str, Any]:
    """Return the keyword arguments of `create_engine` for the settings, without any secret."""
    fields = DatabaseSettings.model_fields
    options = {
        key: getattr(settings, key)
        for key, field in fields.items()
        if group(field) == "engine" and key not in _ELSEWHERE
    }
    options = {key: value for key, value in options.items() if value is not None or key == "pool_reset_on_return"}
    if settings.is_generic and settings.poolclass is None:
        settings = _with_its_pool(settings, drivername)
    if session_reset.is_wanted(settings):
        options["pool_reset_on_return"] = "rollback"
    options.setdefault("logging_name", name)
    options.setdefault("pool_logging_name", name)
    is_async = sqlalchemy.URL.create(drivername).get_dialect().is_async
    given = given_options.checked(extra or {}, settings, is_async=is_async)
    settings = given_options.effective(settings, given)
    judge = connection_failures.Judge(settings)
    options |= pool.pool_arguments(settings, name=name, is_async=is_async, patient=patient, judge=judge)
    if is_async:
        options["poolclass"] = _asynchronous(options["poolclass"], settings)
    arguments = dialects.of(settings.backend).arguments(settings, drivername)
    options["connect_args"] = application_name.named(arguments, settings, drivername, name)
    return given_options.merged(options | _checked_dialect_options(settings, drivername), given)


def _with_its_pool(settings: DatabaseSettings, drivername: str) -> DatabaseSettings:
    """Return settings with the pool that a dialect requires, such as one whose database is in this process."""
    url = settings.public_url(drivername)
    dialect: Any = url.get_dialect()
    wanted: type[Pool] = dialect.get_pool_class(url)
    name = wanted.__name__.removeprefix("AsyncAdapted")
    if issubclass(wanted, QueuePool) or name not in POOL_CLASSES:
        return settings
    return settings.model_copy(update={"poolclass": name})


def _check_paramstyle(settings: DatabaseSettings, drivername: str) -> None:
    """Reject settings that the chosen driver does not support: at load, the choice of driver was not known."""
    wrong = not_its_paramstyle(settings.paramstyle, drivername) if settings.paramstyle else ""
    if wrong:
        help = "remove it to use the driver's own"
        raise ConfigError([Problem("not-applicable", wrong, settings.origin("paramstyle"), "paramstyle", help)])


def check_version() -> None:
    """Reject a SQLAlchemy version that supports synchronous engines only.

    Raises:
        RuntimeError: it is older than `ASYNCHRONOUS_FROM`.
    """
    if tuple(int(part) for part in re.findall(r"\d+", sqlalchemy.__version__)[:3]) < ASYNCHRONOUS_FROM:
        needed = ".".join(map(str, ASYNCHRONOUS_FROM))
        raise RuntimeError(
            f"asynchronous engines need SQLAlchemy {needed} or newer, and {sqlalchemy.__version__} is installed: "
            f"pip install 'sqlalchemy>={needed}'"
        )


def _asynchronous(poolclass: type[Pool], settings: DatabaseSettings) -> type[Pool]:
    """Return the event-loop counterpart of the named pool class for threads."""
    if poolclass is SingletonThreadPool:
        message = f"`poolclass: {settings.poolclass}` keeps a connection for each thread: an event loop has one thread"
        raise ConfigError([Problem("not-applicable", message, settings.origin("poolclass"), "poolclass")])
    return AsyncAdaptedQueuePool if poolclass is QueuePool else poolclass


def _checked_dialect_options(settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
    if not settings.dialect_options:
        return {}
    dialect = sqlalchemy.URL.create(drivername).get_dialect()
    known = set(get_cls_kwargs(dialect)) - {"dbapi"}
    problems = []
    for name in settings.dialect_options:
        if name not in known:
            help = did_you_mean(suggest(name, known))
            message = f"{name!r} is not an argument of {drivername}'s dialect"
            problems.append(
                Problem(
                    "unknown-key", message, settings.origin(f"dialect_options.{name}"), f"dialect_options.{name}", help
                )
            )
    if problems:
        raise ConfigError(problems)
    return dict(settings.dialect_options)


def _explain_failures(engine: Engine, settings: DatabaseSettings) -> None:
    """Add to the error of a failed connection, or of a missing table, how to fix it."""

    @event.listens_for(engine, "handle_error")
    def explain(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if error is None or context.is_pre_ping:  # a ping's error is not shown, and explaining it takes time
            return
        if context.connection is None:
            connection_failures.annotate(error, settings)
        elif errors.of_statement(context.original_exception, settings.backend) is TABLE_MISSING:
            connection_failures.annotate_missing_table(error, settings)
