"""Suggestions for unknown keys: near misses, and the names that other tools use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.printable import did_you_mean, printable, quoted, suggest
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import MASK, shown_name

_IN_CODE: Final = "it is code, which YAML cannot name: pass it in code, as Registry(engine_options={…})"
_OBSOLETE: Final = "remove it: SQLAlchemy 2 no longer has it"

# Names from Rails, Django, Spring and Hikari, dbt, Compose, and the drivers; they are not accepted as aliases.
_FOREIGN: Final = {
    **dict.fromkeys(("user", "user_name", "uid", "login", "role"), "username"),
    **dict.fromkeys(("passwd", "pass", "pw", "pwd", "passphrase", "secret"), "password"),
    **dict.fromkeys(("dbname", "db", "db_name", "name", "database_name", "catalog", "file", "filename"), "database"),
    **dict.fromkeys(
        ("adapter", "type", "driver", "dialect", "engine", "backend", "driver_name", "provider"), "drivername"
    ),
    **dict.fromkeys(("server", "hostname", "address", "endpoint"), "host"),
    **dict.fromkeys(
        (
            "uri",
            "dsn",
            "connection_string",
            "connection_url",
            "jdbc_url",
            "database_url",
            "database_uri",
            "db_url",
            "sqlalchemy_database_uri",
            "sqlalchemy_database_url",
            "postgres_url",
        ),
        "url",
    ),
    **dict.fromkeys(
        (
            "pool",
            "size",
            "maximum_pool_size",
            "max_pool_size",
            "max_connections",
            "max_size",
            "threads",
            "connection_limit",
        ),
        "pool_size",
    ),
    **dict.fromkeys(("overflow", "pool_max_overflow"), "max_overflow"),
    **dict.fromkeys(("checkout_timeout", "acquire_timeout"), "pool_timeout"),
    **dict.fromkeys(("max_lifetime", "recycle", "conn_max_age", "max_age", "pool_max_lifetime"), "pool_recycle"),
    **dict.fromkeys(("pre_ping", "conn_health_checks", "test_on_borrow", "health_check"), "pool_pre_ping"),
    **dict.fromkeys(("echo_sql", "log_queries", "debug", "verbose", "show_sql"), "echo"),
    **dict.fromkeys(("login_timeout", "connect_timeout_seconds"), "connect_timeout"),
    **dict.fromkeys(
        ("max_execution_time", "max_statement_time", "command_timeout", "query_timeout"), "statement_timeout"
    ),
    **dict.fromkeys(("busy_timeout", "lock_wait_timeout"), "lock_timeout"),
    **dict.fromkeys(("idle_in_transaction_session_timeout", "idle_transaction_timeout"), "idle_in_transaction_timeout"),
    **dict.fromkeys(("transaction_isolation", "default_isolation"), "isolation_level"),
    **dict.fromkeys(("ssl_ca", "sslca", "ssl_root_cert", "ca_cert", "ca_file"), "sslrootcert"),
    **dict.fromkeys(("ssl_cert", "client_cert"), "sslcert"),
    **dict.fromkeys(("ssl_key", "client_key"), "sslkey"),
    **dict.fromkeys(("inherit", "inherits", "base", "parent", "include"), "extends"),
    **dict.fromkeys(("pragmas", "session_variables", "init_statements"), "variables"),
}
_ADVICE: Final = {
    "timeout": "write `pool_timeout` (waiting for a connection), `connect_timeout` or `statement_timeout`",
    **dict.fromkeys(
        ("encoding", "charset", "client_encoding"),
        "remove it: UTF-8 is always set; put another character set into `connect_args`",
    ),
    **dict.fromkeys(("schema", "search_path"), "write `variables: {search_path: …}`"),
    **dict.fromkeys(("ssl", "ssl_mode", "tls", "use_ssl", "require_ssl"), "write `sslmode: verify-full`"),
    **dict.fromkeys(("timezone", "time_zone"), "write `variables: {timezone: …}`, on MySQL `{time_zone: …}`"),
    **dict.fromkeys(("read_only", "readonly"), "sessions are read-only, not databases: db.session(read_only=True)"),
    **dict.fromkeys(
        ("reconnect", "auto_reconnect"),
        "remove it: each connection is checked before it is handed out, and replaced if it is dead",
    ),
    "connection_timeout": "write `connect_timeout` (opening a connection) or `pool_timeout` (waiting for one)",
    **dict.fromkeys(("socket", "unix_socket"), "write `host: /folder` for PostgreSQL, `host: /file` for MySQL"),
    **dict.fromkeys(("password_file", "passwordfile"), "write `password: {file: PATH}`"),
    **dict.fromkeys(("init_command",), "write `variables: {name: value}`"),
    **dict.fromkeys(("json_serializer", "json_deserializer", "creator", "module", "plugins", "pool_events"), _IN_CODE),
    **dict.fromkeys(
        ("future", "convert_unicode", "case_sensitive", "strategy", "implicit_returning", "autocommit"), _OBSOLETE
    ),
    **dict.fromkeys(("check_same_thread",), "remove it: connections are used by one thread at a time anyway"),
    **dict.fromkeys(
        (
            "use_native_hstore",
            "executemany_mode",
            "native_datetime",
            "skip_autocommit_rollback",
            "supports_native_boolean",
        ),
        "write it into `dialect_options`",
    ),
}
_PREFIXED = late_pattern(r"(?:postgres(?:ql)?|pg|mysql|mariadb|db|database|sqlalchemy)_(\w+)")
# Groups into which other tools put their settings.
_GROUPS: Final = frozenset(
    {"database", "db", "connection", "connections", "settings", "config", "options", "default", "profile", "profiles"}
    | {
        "environments",
        "outputs",
        "engine",
        "sqlalchemy",
        "datasource",
        "spring",
        "postgres",
        "postgresql",
        "mysql",
        "pool",
    }
)
_CLUMSY = late_pattern(r"(?<=[a-z0-9])(?=[A-Z])")


_ADDRESS: Final = ("url", "drivername")


def unknown_key(
    path: tuple[str, ...],
    location: Location,
    fields: Iterable[str],
    *,
    profiles: Iterable[str] = (),
    nested: bool = False,
) -> Problem:
    """Return the problem of a key that is not a setting, with the one that was probably meant.

    Args:
        path: the key and its parents.
        location: its position.
        fields: the names of the settings.
        profiles: the names of the profiles that exist.
        nested: whether it contains a mapping.
    """
    written = path[-1]
    known = [*fields, *(["weight"] if "replicas" in path[:-1] else ["extends", "databases"])]
    notes = []
    if not written.isascii():
        notes.append("it contains non-ASCII letters, some of which look like ASCII letters")
    if "$" in written:
        notes.append("variables are not replaced in keys")
    shown = location.variable or (MASK if shown_name(written) == MASK else quoted(written))
    key = printable(".".join(shown_name(part) for part in path))
    help = _help(path, location.variable, known)
    if nested and not location.variable and (written in profiles or _normal(written) in _GROUPS):
        help = "do not indent settings: they go to the top of the file, and each profile has its own file"
    elif written.startswith("x-"):
        help = "extension keys are not supported: put what profiles share into default.yaml"
    return Problem(
        "unknown-key", f"unknown key {shown}", location, key, help, tuple(notes), "not a setting of a database"
    )


def stands_for_address(key: str) -> bool:
    """Return whether an unknown key was probably meant to be `url` or `drivername`."""
    name = _normal(key)
    return _FOREIGN.get(name) in _ADDRESS or _similar(name, key, list(_ADDRESS)) in _ADDRESS


def _help(path: tuple[str, ...], variable: str, known: list[str]) -> str:
    if not variable:
        return _meant(path[-1], known)
    if path == ("extends",):
        return "`extends` is allowed in files only"
    # DBCONFIG_POOL__SIZE is pool.size; pool_size was meant.
    before = path[:-1] if path[:1] == ("databases",) else ()
    name = variable.lower().split("__", len(before))[-1].removeprefix("dbconfig_")
    meant = _key_meant(name.replace("__", "_"), known) or _key_meant(path[-1], known)
    return f"did you mean DBCONFIG_{'__'.join((*before, meant)).upper()}?" if meant else _meant(path[-1], known)


def _meant(written: str, known: list[str]) -> str:
    name = _normal(written)
    if name in _ADVICE:
        return _ADVICE[name]
    inner = _inner(name, known)
    if written.isupper() and "_" in written and (name in _FOREIGN or inner):
        return f"write `{_FOREIGN.get(name, inner)}: ${{{written}}}`"  # the name of a variable, as in compose
    key = _key_meant(written, known)
    if name in _FOREIGN and key == _FOREIGN[name]:
        return f"it is called {key!r} here"
    return did_you_mean(key)


def _key_meant(written: str, known: list[str]) -> str:
    name = _normal(written)
    if name in _ADVICE:
        return ""
    same = next((key for key in known if key.replace("_", "") == name.replace("_", "")), "")
    return same or _FOREIGN.get(name, "") or _similar(name, written, known) or _inner(name, known)


def _inner(name: str, known: list[str]) -> str:
    """Return the key for a name with a prefix: `username` for postgres_user."""
    prefixed = _PREFIXED.fullmatch(name)
    if prefixed is None:
        return ""
    return prefixed[1] if prefixed[1] in known else _FOREIGN.get(prefixed[1], "")


def _normal(written: str) -> str:
    return re.sub(r"[^a-z0-9_]", "", _CLUMSY.sub("_", written.strip()).lower().replace("-", "_").replace(" ", "_"))


def _similar(name: str, written: str, known: list[str]) -> str:
    return suggest(name, known, 0.7) or suggest(written.lower(), known)
