"""Keys that contradict each other, or have no effect on a database system or a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dbconfig.errors.printable import did_you_mean, suggest
from dbconfig.settings import generic_rules, hosts, nested_values, url_parameters
from dbconfig.settings.findings import Finding
from dbconfig.settings.keys import Keys, system_key
from dbconfig.settings.known_drivers import DRIVERS, backend_of, family, is_generic, not_its_paramstyle
from dbconfig.settings.tls import applicable_tls
from dbconfig.settings.url_assembly import compose
from dbconfig.settings.url_parsing import DatabaseURL

_PARTS: Final = ("drivername", "username", "password", "host", "port", "database")
_SIZES: Final = ("pool_size", "max_overflow", "pool_timeout", "pool_use_lifo")
_CARE: Final = ("pool_recycle", "pool_pre_ping")
# Features of our own pool's queue and idle maintenance that SQLAlchemy's pools lack.
_OWN: Final = ("pool_min_idle", "pool_idle_timeout", "pool_keepalive", "pool_max_waiting", "pool_queue_target")
# Keys that would close connections in use if a pool does not distinguish them from idle ones.
_WHOLE: Final = ("engine_idle_timeout",)
# Arguments that a pool class does not accept (SQLAlchemy raises TypeError), or that have no effect with it.
NOT_FOR_POOL: Final[Mapping[str, tuple[str, ...]]] = {
    "QueuePool": _OWN,
    "NullPool": (*_SIZES, *_CARE, *_OWN),
    "StaticPool": (*_SIZES, *_OWN, *_WHOLE),
    "AssertionPool": (*_SIZES, *_OWN, *_WHOLE),
    "SingletonThreadPool": (*(key for key in _SIZES if key != "pool_size"), *_OWN, *_WHOLE),
}
LONGEST_APPLICATION_NAME: Final = 63  # bytes, of every name in PostgreSQL
_LEVELS: Final = ("AUTOCOMMIT", "READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE")
_SQLITE_LEVELS: Final = ("AUTOCOMMIT", "READ UNCOMMITTED", "SERIALIZABLE")
# The session variables that a key sets, by database system.
_VARIABLES: Final = {
    "postgresql": {
        "statement_timeout": "statement_timeout",
        "lock_timeout": "lock_timeout",
        "idle_in_transaction_session_timeout": "idle_in_transaction_timeout",
    },
    "mysql": {
        "max_statement_time": "statement_timeout",
        "max_execution_time": "statement_timeout",
        "innodb_lock_wait_timeout": "lock_timeout",
        "lock_wait_timeout": "lock_timeout",
        "idle_transaction_timeout": "idle_in_transaction_timeout",
    },
    "sqlite": {"busy_timeout": "lock_timeout"},
}


def contradictions(settings: Keys) -> list[Finding]:
    """Return the problems of settings that are valid individually but not together."""
    if not settings.url and not settings.drivername:
        return [
            Finding(
                "missing-value",
                "no database: set `url` or `drivername`",
                "write `url: sqlite:///data/app.db`, `url: ${DATABASE_URL}`, or the parts",
            )
        ]
    address = compose(settings)
    if is_generic(address.backend):
        return [*_given_twice(settings), *generic_rules.unusable(settings, address), *_for_pool(settings, address)]
    return [
        *_given_twice(settings),
        *_shards(settings),
        *_for_system(settings, address),
        *applicable_tls(settings, address.backend),
        *applicable_to_pgbouncer(settings, address.backend),
        *_for_pool(settings, address),
        *_reset(settings),
        *nested_values.unusable(settings, address.drivername, address.backend, _levels(address.backend)),
        *url_parameters.unknown(settings, address),
        *_variables(settings, address.backend),
        *_mismatches(settings, address.backend),
        *_fast_begin(settings, address),
        *_paramstyle(settings, address),
        *_application_name(settings),
        *_slow_statement(settings),
    ]


def _given_twice(settings: Keys) -> Iterator[Finding]:
    if settings.url is None:
        return
    for part in _PARTS:
        if getattr(settings, part) is not None and getattr(settings.url, part) not in (None, ""):
            yield Finding(
                "given-twice",
                f"`{part}` is given both by `url` and by `{part}`",
                "remove one of the two",
                (part,),
                against="url",
            )
    for name in settings.query.keys() & settings.url.query.keys():
        yield Finding(
            "given-twice", f"{name!r} is given both by `url` and by `query`", "remove one of the two", ("query", name)
        )


def _shards(settings: Keys) -> Iterator[Finding]:
    """Yield remaining `shards`, which have become databases by now: of a replica, or an invalid value."""
    if settings.shards:
        message = "`shards` must be a mapping of names to what differs from their database"
        help = "shards: {eu: {host: db-eu}, us: {host: db-us}}; neither a replica nor a shard has any"
        yield Finding("not-applicable", message, help, ("shards",))


def _for_system(settings: Keys, address: DatabaseURL) -> Iterator[Finding]:
    backend = address.backend
    levels = _levels(backend)
    if settings.isolation_level is not None and settings.isolation_level not in levels:
        yield Finding(
            "invalid-value",
            f"`isolation_level` must be one of {', '.join(levels)} on {backend}",
            did_you_mean(suggest(settings.isolation_level, levels)),
            at=("isolation_level",),
        )
    if isinstance(settings.host, tuple) and family(backend) == "mysql" and _has_socket(settings.host):
        message = "a list of hosts cannot contain sockets on MySQL"
        yield Finding("invalid-value", message, "name the host and the port of each server", ("host",))
    written = {**(settings.url.query if settings.url is not None else {}), **settings.query}
    if family(backend) in ("postgresql", "mysql") and (wrong := hosts.ports_at_fault(written)):
        where = next((("query", name) for name in ("port", "host") if name in settings.query), None)
        help = "write one port for all hosts, or one for each: ?host=one,two&port=5432,5433"
        yield Finding("invalid-value", wrong, help, where or ("url",))
    host = settings.host or (settings.url.host if settings.url is not None else None)
    socket = host if family(backend) == "mysql" and isinstance(host, str) and host.startswith("/") else None
    if socket is not None and address.query["unix_socket"] != (socket,):
        message = "the socket is given both as the host and as 'unix_socket'"
        key = "host" if settings.host is not None else "url"
        yield Finding("given-twice", message, "remove one of the two", (key,))
    if backend == "sqlite":
        for part in ("username", "password", "host", "port"):
            if getattr(address, part) is not None:
                at = part if getattr(settings, part) is not None else "url"
                why = f"`{part}` has no effect on SQLite: it is a file"
                yield Finding("not-applicable", why, "remove it", (at,), because=system_key(settings))
        if (address.database or "").startswith("~"):
            at = "database" if settings.database is not None else "url"
            help = "write the absolute path: sqlite:////home/…"
            yield Finding("invalid-value", "`~` is not expanded in the path of a database", help, (at,))
        unable = {
            "connect_timeout": "it does not connect to a server",
            "idle_in_transaction_timeout": "nothing ends an idle SQLite transaction",
        }
        for key, why in unable.items():
            if key in settings.model_fields_set and getattr(settings, key) is not None:
                message = f"`{key}` has no effect on SQLite: {why}"
                yield Finding("not-applicable", message, "remove it", (key,), because=system_key(settings))


def _has_socket(names: tuple[str, ...]) -> bool:
    return any(host.startswith("/") for host in names)


def _levels(backend: str) -> tuple[str, ...]:
    return _SQLITE_LEVELS if backend == "sqlite" else _LEVELS


def _mismatches(settings: Keys, backend: str) -> Iterator[Finding]:
    for number, replica in enumerate(settings.replicas):
        other = compose(replica).backend
        if family(other) != family(backend):
            message = f"a replica of {backend} cannot be {other}"
            at = "url" if replica.url is not None else "drivername"
            yield Finding("invalid-value", message, at=("replicas", str(number), at))


def _fast_begin(settings: Keys, address: DatabaseURL) -> Iterator[Finding]:
    system, _, driver = address.drivername.lower().partition("+")
    able = [each.name for each in DRIVERS["postgresql"] if each.fast_begin]
    if settings.fast_begin and (backend_of(system) != "postgresql" or driver not in ("", *able)):
        why = f"only {', '.join(able)} supports it"
        yield Finding("not-applicable", f"`fast_begin` has no effect here: {why}", "remove it", ("fast_begin",))


def _paramstyle(settings: Keys, address: DatabaseURL) -> Iterator[Finding]:
    wrong = not_its_paramstyle(settings.paramstyle, address.drivername) if settings.paramstyle else ""
    if wrong:
        help = "remove it to use the driver's own"
        yield Finding("not-applicable", wrong, help, ("paramstyle",), because=system_key(settings))


def _slow_statement(settings: Keys) -> Iterator[Finding]:
    if settings.slow_statement_plan and settings.slow_statement is None:
        message = "`slow_statement_plan` has no effect without `slow_statement`"
        yield Finding("not-applicable", message, "write `slow_statement: 500ms` as well", ("slow_statement_plan",))


def _application_name(settings: Keys) -> Iterator[Finding]:
    length = len((settings.application_name or "").encode())
    if length > LONGEST_APPLICATION_NAME:
        message = f"`application_name` must be at most {LONGEST_APPLICATION_NAME} bytes long, not {length}"
        yield Finding("out-of-range", message, "shorten it: PostgreSQL would cut it", ("application_name",))


def _for_pool(settings: Keys, address: DatabaseURL) -> Iterator[Finding]:
    if address.in_memory and settings.poolclass is None:
        for key in (*_SIZES, *_CARE, *_OWN, *_WHOLE):
            if key in settings.model_fields_set:
                why = "an in-memory SQLite database lives as long as its engine, whatever the pool"
                at = "database" if settings.database is not None else system_key(settings)
                yield Finding("not-applicable", f"`{key}` has no effect here: {why}", "remove it", (key,), because=at)
        return
    for key in NOT_FOR_POOL.get(settings.poolclass or "", ()):
        if key in settings.model_fields_set:
            yield Finding(
                "not-applicable",
                f"`{key}` has no effect with `poolclass: {settings.poolclass}`",
                "remove one of the two",
                (key,),
                because="poolclass",
            )
    if -1 < settings.pool_recycle <= 0:
        yield Finding("out-of-range", "`pool_recycle` must be greater than 0, or -1 for never", at=("pool_recycle",))


def _variables(settings: Keys, backend: str) -> Iterator[Finding]:
    system = family(backend)
    for name in settings.variables:
        key = _VARIABLES[system].get(name.lower(), "")
        if key and key in settings.model_fields_set and getattr(settings, key) is not None:
            message = f"`{key}` is given twice: as a key and by the variable {name!r}"
            yield Finding("given-twice", message, "remove one of the two", ("variables", name))


# Arguments that would prepare statements on a server connection that the next transaction may not get.
_PREPARING: Final = ("prepare_threshold", "statement_cache_size", "prepared_statement_cache_size")


_NEVER: Final = ("prepare_threshold", None)


_IN_TRANSACTION: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_timeout", "variables")


def applicable_to_pgbouncer(settings: Keys, backend: str) -> Iterator[Finding]:
    """Yield settings that cannot work if each transaction may run on another server connection."""
    if not settings.pgbouncer:
        return
    if backend != "postgresql":
        message = f"`pgbouncer` has no effect on {backend}: it is a pooler for PostgreSQL"
        yield Finding("not-applicable", message, "remove it", ("pgbouncer",), because=system_key(settings))
        return
    for key in ("connect_args", "query"):
        if "options" in getattr(settings, key):
            yield _refused(f"{key}.options", "PgBouncer rejects startup options", "write them into `variables`")
    if settings.url is not None and "options" in settings.url.query:
        yield _refused("url", "PgBouncer rejects startup options, and the URL has `options`", "write `variables`")
    for name in _PREPARING:
        if name in settings.connect_args and (name, settings.connect_args[name]) != _NEVER:
            why = f"{name!r} would prepare statements on a server connection that the next transaction does not have"
            yield _refused(f"connect_args.{name}", why, "remove it")
    for key in _resets(settings):
        why = f"`{key}: discard` would reset whichever server connection is free, and nothing outlives a transaction"
        yield _refused(key, why, "remove it; PgBouncer has server_reset_query for session pooling")
    for name in settings.variables:
        if name.lower() == "default_transaction_isolation":
            why = f"{name!r} is for the next transaction, and behind PgBouncer it would be set inside each"
            yield _refused(f"variables.{name}", why, "write it as `isolation_level`")
    if settings.isolation_level == "AUTOCOMMIT" or settings.execution_options.get("isolation_level") == "AUTOCOMMIT":
        for key in _IN_TRANSACTION:
            if getattr(settings, key):
                why = f"`{key}` is set in each transaction behind PgBouncer, and AUTOCOMMIT has none"
                yield _refused(key, why, "let the server's administrator set it: ALTER ROLE … SET …")


def _resets(settings: Keys) -> list[str]:
    return [key for key in ("pool_reset", "pool_reset_on_return") if getattr(settings, key) == "discard"]


def _reset(settings: Keys) -> Iterator[Finding]:
    if not _resets(settings):
        return
    if settings.pool_reset == "discard" and settings.pool_reset_on_return in ("commit", None):
        message = "`pool_reset: discard` rolls back open transactions, which contradicts `pool_reset_on_return`"
        yield Finding("given-twice", message, "remove one of the two", ("pool_reset",), because="pool_reset_on_return")
    if settings.poolclass == "NullPool":
        message = "`pool_reset` has no effect with `poolclass: NullPool`: each connection is used once"
        yield Finding("not-applicable", message, "remove it", (_resets(settings)[0],), because="poolclass")


def _refused(path: str, message: str, help: str) -> Finding:
    return Finding("not-applicable", message, help, tuple(path.split(".")), because="pgbouncer")
