"""The keys of a profile for type checkers: written by docs/generate.py, never imported at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class ProfileKeys(TypedDict, total=False):
    """The keys of a database, as in a file."""

    url: str | None
    drivername: str | None
    username: str | None
    password: str | Mapping[str, str] | None
    host: str | Sequence[str] | None
    port: int | None
    database: str | None
    query: Mapping[str, Any]
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None
    sslrootcert: str | None
    sslcert: str | None
    sslkey: str | None
    pool_size: int
    max_overflow: int
    pool_timeout: float | str
    pool_recycle: float | str
    pool_pre_ping: float | str | bool
    pool_min_idle: int
    pool_idle_timeout: float | str | Literal[False]
    pool_keepalive: float | str | Literal[False]
    pool_max_waiting: int | None
    pool_queue_target: float | str | Literal[False] | None
    pool_leak_warning: float | str | Literal[False] | None
    engine_idle_timeout: float | str | Literal[False] | None
    pool_use_lifo: bool
    pool_reset: Literal["rollback", "discard"]
    pool_reset_on_return: Literal["rollback", "commit", "discard", "none"] | bool
    poolclass: Literal["QueuePool", "NullPool", "StaticPool", "SingletonThreadPool", "AssertionPool"] | None
    echo: Literal["debug"] | bool
    echo_pool: Literal["debug"] | bool
    hide_parameters: bool
    logging_name: str | None
    pool_logging_name: str | None
    isolation_level: str | None
    execution_options: Mapping[str, Any]
    connect_args: Mapping[str, Any]
    dialect_options: Mapping[str, Any]
    query_cache_size: int
    insertmanyvalues_page_size: int
    use_insertmanyvalues: bool
    enable_from_linting: bool
    label_length: int | None
    max_identifier_length: int | None
    paramstyle: Literal["qmark", "named", "format", "pyformat", "numeric_dollar"] | None
    connect_timeout: float | str
    statement_timeout: float | str | None
    lock_timeout: float | str | None
    idle_in_transaction_timeout: float | str | None
    variables: Mapping[str, Any]
    pgbouncer: bool
    shards: Mapping[str, Any]
    replicas: Sequence[Mapping[str, Any]] | Literal[False]
    read_your_writes: bool
    replica_max_lag: float | str | Literal[False]
    replica_fallback: bool
    application_name: str | None
    slow_statement: float | str | Literal[False] | None
    slow_statement_plan: bool
    query_tags: Sequence[str]
    fast_begin: bool
    expire_on_commit: bool
    autoflush: bool
    protected: bool
