"""`engine_options` that replace the pool or the way to connect: which keys still take effect, and which do not."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy.pool
from sqlalchemy import Engine
from sqlalchemy.pool import Pool

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings import choices
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.rules import NOT_FOR_POOL

# Settings that a finished pool has already fixed.
_OF_POOL: Final = (
    *("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "pool_reset_on_return", "poolclass"),
    *(
        "pool_min_idle",
        "pool_idle_timeout",
        "pool_keepalive",
        "pool_max_waiting",
        "pool_queue_target",
        "engine_idle_timeout",
        "echo_pool",
        "pool_logging_name",
    ),
)
# Settings that only our own call of the driver can pass.
_OF_CONNECT: Final = (
    *("connect_timeout", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_args"),
    *("fast_begin", "pgbouncer"),
)
_ARGUMENTS: Final = (
    *("poolclass", "pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "line", "pool_reset_on_return"),
    *("echo_pool", "pool_logging_name"),
)


def makes_connections(extra: Mapping[str, Any]) -> bool:
    """Return whether the application creates the connections, so that our arguments do not reach the driver."""
    return bool({"creator", "async_creator", "pool"} & extra.keys())


def checked(extra: Mapping[str, Any], settings: DatabaseSettings, *, is_async: bool) -> dict[str, Any]:
    """Return the options that apply to this kind of engine.

    Raises:
        ConfigError: the profile sets the same, or something that has no effect with one of them.
    """
    fields = DatabaseSettings.model_fields
    allowed = {"execution_options", "poolclass"}
    twice = [key for key in extra if key in fields and key not in allowed]
    twice += ["poolclass"] if "poolclass" in extra and "poolclass" in settings.model_fields_set else []
    if twice:
        message = f"engine_options must not contain what the profile has a key for: {', '.join(twice)}"
        raise ConfigError([Problem("given-twice", message, help="set it in the profile")])
    found = dict(extra)
    ours, other = ("async_creator", "creator") if is_async else ("creator", "async_creator")
    if found.pop(other, None) is not None and ours not in found:
        kind = "asynchronous" if is_async else "synchronous"
        message = f"engine_options has `{other}`, which cannot create the connections of {kind} engines"
        raise ConfigError([Problem("not-applicable", message, help=f"pass `{ours}` as well")])
    _refuse_without_effect(found, settings)
    return found


def _refuse_without_effect(extra: Mapping[str, Any], settings: DatabaseSettings) -> None:
    by = next((name for name in ("creator", "async_creator", "pool") if name in extra), None)
    idle: dict[str, str] = {}
    if by is not None:
        if settings.backend == "sqlite":
            message = f"engine_options has `{by}`: on SQLite, dbconfig depends on connections of its own"
            help = "pass a connection class as `connect_args: {factory: …}`, or another driver as `module`"
            raise ConfigError([Problem("not-applicable", message, help=help)])
        idle |= dict.fromkeys(_OF_CONNECT, f"`{by}` of engine_options creates the connections")
    if "pool" in extra:
        idle |= dict.fromkeys(_OF_POOL, "engine_options passes a finished pool")
    elif "poolclass" in extra:
        named = known_class(extra["poolclass"])
        idle |= dict.fromkeys(NOT_FOR_POOL.get(named, ()), f"engine_options has `poolclass` {named}")
    problems = [
        Problem("not-applicable", f"`{key}` has no effect: {why}", settings.origin(key), key, "remove one of the two")
        for key, why in idle.items()
        if key in settings.model_fields_set and getattr(settings, key)
    ]
    if problems:
        raise ConfigError(problems)


def known_class(given: Any) -> str:
    """Return the name of the SQLAlchemy pool class that a class is, or is derived from."""
    parents: list[str] = [kind.__name__.removeprefix("AsyncAdapted") for kind in getattr(given, "__mro__", ())]
    found = next((name for name in parents if name in choices.POOL_CLASSES), None)
    if found is None:
        message = "`poolclass` of engine_options must be a class of SQLAlchemy's pools"
        raise ConfigError([Problem("invalid-value", message)])
    return found


def effective(settings: DatabaseSettings, extra: Mapping[str, Any]) -> DatabaseSettings:
    """Return settings with the pool that the options name, for code that depends on its kind."""
    given = extra["poolclass"] if "poolclass" in extra else type(extra["pool"]) if "pool" in extra else None
    return settings if given is None else settings.model_copy(update={"poolclass": known_class(given)})


def merged(options: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `create_engine`, those of the application over ours."""
    found = {**options, **extra}
    given = extra.get("poolclass")
    if given is not None and given is getattr(sqlalchemy.pool, known_class(given)):
        found["poolclass"] = options["poolclass"]  # the same, or its event-loop counterpart
    if "execution_options" in extra:
        found["execution_options"] = {**options["execution_options"], **extra["execution_options"]}
    if "pool" in extra:
        for name in _ARGUMENTS:
            found.pop(name, None)
        found["pool"] = _own_pool(extra["pool"])
    return found


# Given pools, as they were before an engine attached its listeners.
_pristine: weakref.WeakKeyDictionary[Pool, Pool] = weakref.WeakKeyDictionary()


def _own_pool(given: Pool) -> Pool:
    """Return the pool for the first engine that uses it, and a copy for each other engine.

    Connection setup differs between engines: read-only sessions have their own engine.
    """
    known = _pristine.get(given)
    if known is None:
        _pristine[given] = given.recreate()
        return given
    return known.recreate()


def use_async_creator(engine: Engine, creator: Callable[..., Any]) -> None:
    """Make an asynchronous engine create connections with a coroutine function, as `create_async_engine` does."""
    dialect: Any = engine.dialect
    engine.pool._creator = lambda: dialect.loaded_dbapi.connect(async_creator_fn=creator)
