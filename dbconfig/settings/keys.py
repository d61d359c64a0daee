"""Every YAML key: its type, default, limits, group, and description; and where each was written."""

# Annotations are not texts here, as elsewhere: pydantic would compile each of them, and all of it takes twice as long.

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.fields import FieldInfo

from dbconfig.errors.problem import BUILT_IN, Location
from dbconfig.settings import choices, driver_timeouts, durations, hosts, tags, url_parsing, value_types

# Where each key was written, by its path: the effective location first, then the overridden ones.
Origins = Mapping[tuple[str, ...], tuple[Location, ...]]


def setting(default: Any, group: str, description: str, **constraints: Any) -> Any:
    """Return a field; `group` is its topic, such as connection, tls, pool, or observability."""
    return Field(default, description=description, json_schema_extra={"group": group}, **constraints)


def group(field: FieldInfo) -> str:
    """Return the group of a setting."""
    extra = field.json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else ""


# Defaults of a single profile.
FOR_PROFILE: Final[Mapping[str, Mapping[str, Any]]] = {
    "production": {"protected": True},
    "development": {"pool_leak_warning": 30.0},
    "testing": {"pool_leak_warning": 30.0},
}
# Keys of a file that are not settings of a database.
EXTENDS: Final = "Profile that this one builds on, such as production for staging"
DATABASES: Final = "Further databases by name; they inherit the engine options, but not the connection"
SCHEMA: Final = "Path of this schema, for editors that read the key: schema.json"
SHARDS: Final[Any] = setting(
    {},
    "connection",
    "Shards, by name: databases that each hold a part of the data, with what differs. Each session names one",
)
REPLICAS: Final[Any] = setting(
    (),
    "connection",
    "Servers for read-only sessions: a list of the settings that differ from the primary; off disables them",
)


class Keys(BaseModel):
    """Every key of a database; `ReplicaKeys` adds the one that only replicas have."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True, defer_build=True
    )

    url: url_parsing.URL | None = setting(
        None, "connection", "Complete address: scheme://user:password@host:port/database?query"
    )
    drivername: choices.DriverName | None = setting(
        None, "connection", "Database system, with or without `+driver`: postgresql, mysql+pymysql, sqlite"
    )
    username: value_types.Name | None = setting(None, "connection", "User that logs in")
    password: value_types.Password | None = setting(
        None,
        "connection",
        "Password: text, ${VAR}, {file: PATH}, {env: NAME}, or {provider: NAME}; the mappings are read "
        "again for each new connection",
    )
    host: hosts.Hosts | None = setting(
        None,
        "connection",
        "Host name, IP address, the folder of PostgreSQL's socket, or MySQL's socket; or a list, [one, two:5433], "
        "in which the primary is found, and found again after a failover",
    )
    port: value_types.WholeNumber | None = setting(None, "connection", "TCP port", ge=1, le=65535)
    database: value_types.Name | None = setting(
        None, "connection", "Name of the database; for SQLite the file, relative to the project folder, or `:memory:`"
    )
    query: url_parsing.Query = setting({}, "connection", "Parameters that would follow the `?` of a URL")

    sslmode: choices.SSLMode | None = setting(
        None,
        "tls",
        "TLS: disable, prefer, require, verify-ca, or verify-full; only the last two verify the server, "
        "`require` encrypts and verifies nothing",
    )
    sslrootcert: value_types.Name | None = setting(
        None,
        "tls",
        "File with the authorities that verify-ca and verify-full trust; `system` uses the operating system's",
    )
    sslcert: value_types.Name | None = setting(None, "tls", "File of the client certificate")
    sslkey: value_types.Name | None = setting(None, "tls", "File of the client key")

    pool_size: value_types.WholeNumber = setting(
        5, "pool", "Number of connections to keep open; 0 removes the limit", ge=0, le=10_000
    )
    max_overflow: value_types.WholeNumber = setting(
        10, "pool", "Number of connections beyond pool_size; -1 removes the limit", ge=-1, le=10_000
    )
    pool_timeout: durations.Seconds = setting(30.0, "pool", "How long a caller waits for a connection", ge=0, le=86_400)
    pool_recycle: durations.Seconds = setting(
        1800.0, "pool", "Age at which a connection is replaced; -1 disables it", ge=-1, le=31_536_000
    )
    pool_pre_ping: durations.Check = setting(
        1.0,
        "pool",
        "Check the socket on every checkout, and ping connections that have been idle for longer than "
        "this; true pings every time, false never",
    )
    pool_min_idle: value_types.WholeNumber = setting(
        0, "pool", "Minimum number of idle connections to keep open, ahead of demand", ge=0, le=10_000
    )
    pool_idle_timeout: durations.SecondsOrOff = setting(
        600.0,
        "pool",
        "Close connections above pool_min_idle that have been idle for this long; false disables it",
        gt=0,
        le=31_536_000,
    )
    pool_keepalive: durations.SecondsOrOff = setting(
        120.0, "pool", "Ping connections that have been idle for this long; false disables it", gt=0, le=31_536_000
    )
    pool_max_waiting: value_types.WholeNumber | None = setting(
        None,
        "pool",
        "Maximum number of callers that may wait for a connection; further callers fail immediately",
        ge=0,
        le=1_000_000,
    )
    pool_queue_target: durations.SecondsOrOff = setting(
        None,
        "pool",
        "Target for the wait: while no caller is served within it, callers that wait twice as long fail, which "
        "keeps the wait of the others short; false disables it",
        ge=0.001,
        le=3600,
    )
    pool_leak_warning: durations.SecondsOrOff = setting(
        None,
        "pool",
        "Log a warning, with the call site, when a connection is held for longer than this; 30 s in "
        "profiles named development and testing unless set",
        gt=0,
        le=31_536_000,
    )
    engine_idle_timeout: durations.SecondsOrOff = setting(
        None,
        "pool",
        "Close the engines of a database that has been unused for this long, with all of their connections; "
        "the next use creates them again. false disables it",
        ge=0.1,
        le=31_536_000,
    )
    pool_use_lifo: value_types.Flag = setting(
        False, "pool", "Hand out the most recently returned connection first, so that the others can become idle"
    )
    pool_reset: choices.SessionReset = setting(
        "rollback",
        "pool",
        "Session state when a connection is returned: rollback keeps it for the next user, discard resets it",
    )
    pool_reset_on_return: choices.Reset = setting(
        "rollback",
        "engine",
        "What to do with an open transaction when a connection is returned: rollback, commit, or none; "
        "discard is `pool_reset: discard`",
    )
    poolclass: choices.PoolClass | None = setting(None, "pool", f"The pool: {', '.join(choices.POOL_CLASSES)}")

    echo: choices.Echo = setting(False, "engine", "Log every statement; `debug` logs the rows too")
    echo_pool: choices.Echo = setting(False, "engine", "Log pool events; `debug` logs every checkout")
    hide_parameters: value_types.Flag = setting(
        False, "engine", "Keep the parameters of statements out of logs and errors"
    )
    logging_name: value_types.Name | None = setting(
        None, "engine", "Last part of the logger's name, sqlalchemy.engine.Engine.NAME; the profile's name unless set"
    )
    pool_logging_name: value_types.Name | None = setting(
        None,
        "engine",
        "Last part of the logger's name, sqlalchemy.pool.impl.QueuePool.NAME; the profile's name unless set",
    )
    isolation_level: value_types.IsolationLevel | None = setting(
        None, "engine", "READ COMMITTED, REPEATABLE READ, SERIALIZABLE, READ UNCOMMITTED, or AUTOCOMMIT"
    )
    execution_options: value_types.Options = setting(
        {}, "engine", "Execution options of every statement of the engine; null is None"
    )
    connect_args: value_types.Options = setting({}, "engine", "Arguments of the driver's connect(); null is None")
    dialect_options: value_types.Options = setting(
        {}, "engine", "Arguments of SQLAlchemy's dialect, such as use_native_hstore or executemany_mode; null is None"
    )
    query_cache_size: value_types.WholeNumber = setting(
        500, "engine", "Number of compiled statements to cache; 0 disables the cache", ge=0, le=1_000_000
    )
    insertmanyvalues_page_size: value_types.WholeNumber = setting(
        1000, "engine", "Number of rows per INSERT with many values", ge=1, le=1_000_000
    )
    use_insertmanyvalues: value_types.Flag = setting(
        True, "engine", "Send the rows of an INSERT that returns values together"
    )
    enable_from_linting: value_types.Flag = setting(
        True, "engine", "Warn about a SELECT that joins tables without a condition"
    )
    label_length: value_types.WholeNumber | None = setting(
        None, "engine", "Maximum length of a column label in generated SQL", ge=6, le=255
    )
    max_identifier_length: value_types.WholeNumber | None = setting(
        None, "engine", "Maximum length of a name in the database", ge=1, le=1024
    )
    paramstyle: choices.ParamStyle | None = setting(
        None, "engine", "Style of the parameters in generated SQL, for drivers that support several"
    )

    connect_timeout: durations.Seconds = setting(
        5.0,
        "timeout",
        "Time limit for opening a connection; `?connect_timeout=` of a URL means the same, in whole seconds",
        gt=0,
        le=durations.LONGEST_CONNECT,
    )
    statement_timeout: durations.Seconds | None = setting(
        None, "timeout", "Time limit for a statement, enforced by the server", gt=0, le=604_800
    )
    lock_timeout: durations.Seconds | None = setting(
        None, "timeout", "Time limit for acquiring a lock", gt=0, le=604_800
    )
    idle_in_transaction_timeout: durations.Seconds | None = setting(
        None,
        "timeout",
        "Time limit for a transaction that is idle between statements, enforced by the server",
        gt=0,
        le=604_800,
    )
    variables: value_types.Variables = setting(
        {}, "timeout", "Session variables (SET) or SQLite PRAGMAs, set on each new connection outside a transaction"
    )

    pgbouncer: value_types.Flag = setting(
        False,
        "timeout",
        "Whether PgBouncer in transaction mode is in front of PostgreSQL: timeouts and variables are then set "
        "in each transaction, and no statement is prepared",
    )

    shards: value_types.Named = SHARDS
    replicas: tuple["Keys", ...] = REPLICAS
    read_your_writes: value_types.Flag = setting(
        True,
        "replica",
        "After a commit, read-only sessions of the same task or thread see it, on whichever server they read from",
    )
    replica_max_lag: durations.SecondsOrOff = setting(
        30.0,
        "replica",
        "Take a replica out of rotation when it lags by more than this; false disables the check",
        gt=0,
        le=604_800,
    )
    replica_fallback: value_types.Flag = setting(
        True, "replica", "Read from the primary when no replica is available; false raises an error instead"
    )

    application_name: value_types.Name | None = setting(
        None,
        "observability",
        "Name of this program in pg_stat_activity and session_connect_attrs; the project folder and the "
        "profile unless set. A name in the URL takes precedence; no effect on SQLite",
    )
    slow_statement: durations.SecondsOrOff = setting(
        None,
        "observability",
        "Log a warning, with the call site, for a statement that takes longer than this",
        gt=0,
        le=604_800,
    )
    slow_statement_plan: value_types.Flag = setting(
        False,
        "observability",
        "Log the plan of a slow statement too, by EXPLAIN on another connection, at most once a minute per statement",
    )
    query_tags: tags.Tags = setting(
        (),
        "observability",
        "Append a comment to each statement that names its origin (application, route, task, traceparent), "
        "and what db.tags() has set",
    )

    fast_begin: value_types.Flag = setting(
        False,
        "engine",
        "Send BEGIN together with the first statement, which saves one round trip per transaction; psycopg2 only",
    )
    expire_on_commit: value_types.Flag = setting(True, "session", "Expire the attributes of loaded objects at commit")
    autoflush: value_types.Flag = setting(True, "session", "Flush pending changes before each query")
    protected: value_types.Flag = setting(
        False,
        "session",
        "Reject drop_tables and every other destructive command; true in a profile named production unless set",
    )

    _origins: Origins = PrivateAttr(default_factory=dict)
    _prefix: tuple[str, ...] = PrivateAttr(())
    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """The project folder, which relative paths are relative to."""
        return self._folder

    def origin(self, key: str) -> Location:
        """Return where the effective value of a key was written: ``config/production.yaml:4:1``, or ``default``."""
        return next(iter(self.layers(key)), BUILT_IN)

    def written_at(self, *keys: str) -> Location:
        """Return where the first of these keys was written, else where the address was."""
        address = "url" if self.url is not None else "drivername"
        found = map(self.origin, keys)
        return next((place for place in found if place.line or place.variable), self.origin(address))

    def layers(self, key: str) -> tuple[Location, ...]:
        """Return every place where a key was written, the effective one first."""
        path = driver_timeouts.path(key, self.__dict__)
        found = self._origins.get((*self._prefix, *path), ())
        # Engine options are inherited from the profile's own database, the connection is not.
        return found or (() if path[0] in CONNECTION_KEYS else self._origins.get(path, ()))


class ReplicaKeys(BaseModel):
    """The keys of a replica in addition to those of a database."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    weight: value_types.WholeNumber = setting(
        1, "replica", "Share of the reads, in proportion to the other replicas; 0 receives none", ge=0, le=1000
    )


CONNECTION_KEYS: Final = frozenset(name for name, field in Keys.model_fields.items() if group(field) == "connection")


def system_key(settings: Keys) -> str:
    """Return the key that determines the database system."""
    return "drivername" if settings.drivername is not None else "url"
