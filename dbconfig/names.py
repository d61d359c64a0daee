"""What a person may have meant by a key that is not ours: near misses, and the names that other tools use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from dbconfig.errors import Location, Problem, printable, quoted

_IN_CODE: Final = "it is code, which YAML cannot name: give it as Registry(engine_options={…})"
_OBSOLETE: Final = "SQLAlchemy 2 does not have it any more: remove it"

# Names that people bring from Rails, Django, Spring and Hikari, dbt, compose and the drivers. They are no second spellings.
_FOREIGN: Final = {
    **dict.fromkeys(("user", "user_name", "uid", "login", "role"), "username"),
    **dict.fromkeys(("passwd", "pass", "pwd", "passphrase"), "password"),
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
    **dict.fromkeys(("connection_timeout", "checkout_timeout", "acquire_timeout"), "pool_timeout"),
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
    **dict.fromkeys(("inherit", "inherits", "base", "parent", "include"), "extends"),
    **dict.fromkeys(("pragmas", "session_variables", "init_statements"), "variables"),
}
_ADVICE: Final = {
    "timeout": "write `pool_timeout` (waiting for a connection), `connect_timeout` or `statement_timeout`",
    **dict.fromkeys(
        ("encoding", "charset", "client_encoding"),
        "UTF-8 is set on every database; another one goes into `connect_args`",
    ),
    **dict.fromkeys(("schema", "search_path"), "write `variables: {search_path: …}`"),
    **dict.fromkeys(("sslmode", "ssl", "sslrootcert", "ssl_ca", "ssl_mode"), "write it into `query` or `connect_args`"),
    **dict.fromkeys(
        ("socket", "unix_socket"), "write `host: /folder` for PostgreSQL, `query: {unix_socket: /file}` for MySQL"
    ),
    **dict.fromkeys(("password_file", "passwordfile"), "write `password: {file: PATH}`"),
    **dict.fromkeys(("init_command",), "write `variables: {name: value}`"),
    **dict.fromkeys(("json_serializer", "json_deserializer", "creator", "module", "plugins", "pool_events"), _IN_CODE),
    **dict.fromkeys(
        ("future", "convert_unicode", "case_sensitive", "strategy", "implicit_returning", "autocommit"), _OBSOLETE
    ),
    **dict.fromkeys(("check_same_thread",), "connections are used by one thread at a time without it: remove it"),
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
_PREFIXED = re.compile(r"(?:postgres(?:ql)?|pg|mysql|mariadb|db|database|sqlalchemy)_(\w+)")
_CLUMSY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def unknown_key(path: tuple[str, ...], location: Location, fields: Iterable[str]) -> Problem:
    """Return the problem of a key that is no setting, with the one that was probably meant."""
    written = path[-1]
    known = [*fields, "extends", "databases"]
    notes = []
    if not written.isascii():
        notes.append("it has letters that are not ASCII; some of them look like ASCII letters")
    if "$" in written:
        notes.append("variables are not replaced in keys")
    shown = location.variable or quoted(written)
    help = _meant(written, known)
    if location.variable and help.startswith("did you mean '"):
        help = f"did you mean DBCONFIG_{'__'.join((*path[:-1], help[14:-2])).upper()}?"
    return Problem(
        "unknown-key",
        f"unknown key {shown}",
        location,
        printable(".".join(path)),
        help,
        tuple(notes),
        "not a setting of a database",
    )


def _meant(written: str, known: list[str]) -> str:
    name = re.sub(r"[^a-z0-9_]", "", _CLUMSY.sub("_", written.strip()).lower().replace("-", "_").replace(" ", "_"))
    bare = name.replace("_", "")
    same = next((key for key in known if key.replace("_", "") == bare), None)
    if same is not None:
        return f"did you mean {same!r}?"
    if name in _ADVICE:
        return _ADVICE[name]
    if name in _FOREIGN:
        return f"it is called `{_FOREIGN[name]}` here: did you mean {_FOREIGN[name]!r}?"
    near = get_close_matches(name, known, 1, 0.7) or get_close_matches(written.lower(), known, 1, 0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    prefixed = _PREFIXED.fullmatch(name)
    if prefixed is not None:
        inner = prefixed[1]
        key = inner if inner in known else _FOREIGN.get(inner)
        if key is not None:
            return f"write `{key}: ${{{written}}}`" if written.isupper() else f"did you mean {key!r}?"
    return ""
