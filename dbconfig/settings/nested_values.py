"""Checks of connect_args, execution_options, dialect_options, and variables: names, types, and no code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.settings import driver_parameters
from dbconfig.settings.findings import Finding
from dbconfig.settings.keys import Keys
from dbconfig.settings.known_drivers import family, unknown_argument
from dbconfig.settings.secret_sources import Secret

_Check = Callable[[Any], str]  # returns what a value must be, or ""

_IN_CODE: Final = "pass it in code: Registry(engine_options={…})"
# Arguments whose values are functions, classes, or objects.
_CODE: Final = {
    "connect_args": frozenset(
        {
            "connection_factory",
            "cursor_factory",
            "row_factory",
            "context",
            "factory",
            "connection_class",
            "record_class",
        }
        | {"cursorclass", "cursor_cls", "conv", "auth_plugin_map", "loop", "sock", "password_creator", "query_callback"}
        | {"async_creator_fn", "prepared_statement_name_func"}
    ),
    "execution_options": frozenset({"compiled_cache"}),
    "dialect_options": frozenset({"dbapi", "json_serializer", "json_deserializer", "on_connect"}),
}
_IDENTITY: Final = {
    **dict.fromkeys(("host", "hostaddr", "unix_socket"), "host"),
    **dict.fromkeys(("user", "username"), "username"),
    **dict.fromkeys(("password", "passwd"), "password"),
    **dict.fromkeys(("database", "dbname", "db"), "database"),
    "port": "port",
    "dsn": "url",
}
_NUMBERS: Final = frozenset(
    {"connect_timeout", "read_timeout", "write_timeout", "timeout", "command_timeout", "tcp_user_timeout"}
    | {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "cached_statements", "detect_types"}
    | {"max_allowed_packet", "client_flag", "prepare_threshold", "statement_cache_size", "stmt_cache_size"}
    | {"max_cached_statement_lifetime", "max_cacheable_statement_size", "prepared_statement_cache_size"}
)
# Without a limit, a connect could hang; SQLite's `timeout` is a number to sqlite3.
_ALWAYS_LIMITED: Final = ("connect_timeout", "timeout")
# "false" is true to a driver.
_FLAGS: Final = frozenset(
    {"autocommit", "check_same_thread", "compress", "local_infile", "ssl_disabled", "ssl_verify_cert", "direct_tls"}
    | {"ssl_verify_identity", "ssl_check_hostname", "uri", "use_unicode", "defer_connect", "binary_prefix", "echo"}
)
_TEXTS: Final = frozenset(
    {"charset", "collation", "sql_mode", "init_command", "read_default_file", "read_default_group", "bind_address"}
    | {"program_name", "auth_plugin", "ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher"}
)
_MAPPINGS: Final = frozenset({"server_settings"})
_VARIABLE: Final = late_pattern(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool | None) else "true or false, without quotes"


def _count(value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return "" if whole or value is None else "a whole number greater than 0"


def _text(value: Any) -> str:
    return "" if isinstance(value, str | None) else "text"


def _scalar(value: Any) -> str:
    simple = isinstance(value, str | int | float | None) and not isinstance(value, bool)
    return "" if simple else "text or a number (a switch of libpq is 1 or 0)"


def _texts_by_name(value: Any) -> str:
    good = isinstance(value, Mapping) and all(isinstance(each, str | None) for each in value.values())
    return "" if good or value is None else "a mapping of names to names, or null"


def _settings_by_name(value: Any) -> str:
    good = isinstance(value, Mapping) and not any(isinstance(each, Mapping | list | tuple) for each in value.values())
    return "" if good or value is None else "a mapping of names to values"


def _is_digits(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit()


# https://docs.sqlalchemy.org/en/21/core/connections.html#sqlalchemy.engine.Connection.execution_options
_EXECUTION: Final[Mapping[str, _Check]] = {
    "compiled_cache": lambda value: "",
    "driver_column_names": _flag,
    "insertmanyvalues_page_size": _count,
    "isolation_level": lambda value: "",  # in the system's own terms
    "logging_token": _text,
    "max_row_buffer": _count,
    "no_parameters": _flag,
    "postgresql_deferrable": _flag,
    "postgresql_readonly": _flag,
    "preserve_rowcount": _flag,
    "schema_translate_map": _texts_by_name,
    "stream_results": _flag,
    "yield_per": _count,
}
# Those with the same type in every version of SQLAlchemy; which ones a driver's dialect supports is known with the
# engine.
_DIALECT: Final[Mapping[str, _Check]] = {
    **dict.fromkeys(("use_native_hstore", "native_inet_types", "server_side_cursors", "native_datetime"), _flag),
    **dict.fromkeys(("skip_autocommit_rollback", "supports_native_boolean", "implicit_returning", "is_mariadb"), _flag),
    "executemany_batch_page_size": _count,
    "client_encoding": _text,
    "executemany_mode": lambda value: (
        "" if value in ("values_only", "values_plus_batch", None) else "values_only or values_plus_batch"
    ),
}

_DIALECT_ONLY: Final[Mapping[str, str]] = {
    **dict.fromkeys(("use_native_hstore", "native_inet_types", "client_encoding"), "postgresql"),
    **dict.fromkeys(("executemany_mode", "executemany_batch_page_size"), "postgresql"),
    "native_datetime": "sqlite",
    "is_mariadb": "mysql",
}
# Of every dialect, beside the keys.
_DIALECT_OTHERS: Final = frozenset({"compiler_linting"})


def unusable(settings: Keys, drivername: str, backend: str, levels: tuple[str, ...]) -> Iterator[Finding]:
    """Yield the problems of the nested mappings; `levels` are the system's own."""
    yield from needs_code(settings)
    yield from _connect_args(settings, drivername.lower().partition("+")[2].removesuffix("_async"), backend)
    yield from _execution_options(settings, backend, levels)
    yield from _dialect_options(settings, backend)
    yield from _variables(settings)


def needs_code(settings: Keys) -> Iterator[Finding]:
    for key, names in _CODE.items():
        for name in names & getattr(settings, key).keys():
            if _is_data(getattr(settings, key)[name]):
                message = f"{name!r} in {key} is code, which YAML cannot name"
                yield Finding("not-applicable", message, _IN_CODE, (key, name))


def _is_data(value: Any) -> bool:
    """Return whether YAML can express a value; a profile created in code may contain a class or a function."""
    if isinstance(value, Mapping):
        return bool(value) and all(_is_data(each) for each in value.values())
    return isinstance(value, str | int | float | list | tuple)


def _connect_args(settings: Keys, driver: str, backend: str) -> Iterator[Finding]:
    for name, value in settings.connect_args.items():
        at = ("connect_args", name)
        if name in _IDENTITY:
            message = f"{name!r} in connect_args would override what `url` and its parts say"
            yield Finding("given-twice", message, f"write it as `{_IDENTITY[name]}`", at)
        elif name == "timeout" and backend == "sqlite" and settings.lock_timeout is not None:
            message = "`lock_timeout` is given twice: as a key and as 'timeout' in connect_args"
            yield Finding("given-twice", message, "remove the one in connect_args", at)
        elif wrong := unknown_argument(name, backend, driver):
            yield Finding("unknown-key", *wrong, at)
        elif backend == "sqlite" and name in driver_parameters.OWN_BEGIN:
            yield Finding("not-applicable", *driver_parameters.own_begin(name), at)
        elif not isinstance(value, Secret):
            wanted = _argument(name, value, backend)
            if wanted:
                yield Finding("wrong-type", f"{name!r} in connect_args must be {wanted}", at=at)


def _argument(name: str, value: Any, backend: str) -> str:
    """Return the requirement for the value of a driver's argument, or ""."""
    if name in _NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if number or _is_digits(value) or (value is None and name not in _ALWAYS_LIMITED) else "a number"
    if name in _FLAGS:
        return "" if isinstance(value, bool | int | None) else "true or false, without quotes"
    if name in _MAPPINGS:
        return _settings_by_name(value)
    if name in _TEXTS:
        return _text(value)
    # libpq's keywords; `ssl` is one driver's own, and may be true.
    libpq = backend == "postgresql" and name != "ssl" and name not in _CODE["connect_args"]
    return _scalar(value) if libpq else ""


def _execution_options(settings: Keys, backend: str, levels: tuple[str, ...]) -> Iterator[Finding]:
    for name, value in settings.execution_options.items():
        at = ("execution_options", name)
        check = _EXECUTION.get(name)
        if check is None:
            in_code = "pass your own options in code: Registry(engine_options={'execution_options': …})"
            help = did_you_mean(suggest(name, _EXECUTION)) or in_code
            yield Finding("unknown-key", f"{name!r} is not an execution option of SQLAlchemy", help, at)
        elif name == "isolation_level" and value not in levels:
            message = f"'isolation_level' in execution_options must be one of {', '.join(levels)} on {backend}"
            yield Finding("invalid-value", message, did_you_mean(suggest(str(value), levels)), at)
        elif name.startswith("postgresql_") and backend != "postgresql":
            message = f"{name!r} in execution_options has no effect on {backend}"
            yield Finding("not-applicable", message, "remove it", at, because="url" if settings.url else "drivername")
        elif check(value):
            yield Finding("wrong-type", f"{name!r} in execution_options must be {check(value)}", at=at)


def _dialect_options(settings: Keys, backend: str) -> Iterator[Finding]:
    known = {*_DIALECT, *_DIALECT_OTHERS, *_CODE["dialect_options"]}
    for name, value in settings.dialect_options.items():
        at = ("dialect_options", name)
        if name in type(settings).model_fields:
            yield Finding("given-twice", f"{name!r} is a key of its own", "write it beside `dialect_options`", at)
        elif _DIALECT_ONLY.get(name, family(backend)) != family(backend):
            message = f"{name!r} is not an argument of {backend}'s dialects"
            yield Finding("unknown-key", message, "remove it", at, because="url" if settings.url else "drivername")
        elif name in _DIALECT:
            if _DIALECT[name](value):
                yield Finding("wrong-type", f"{name!r} in dialect_options must be {_DIALECT[name](value)}", at=at)
        elif name not in known and (meant := suggest(name, known)):
            # Only a misspelled one: a newer SQLAlchemy may have others.
            yield Finding(
                "unknown-key", f"{name!r} is not an argument of {backend}'s dialects", did_you_mean(meant), at
            )


def _kind(value: Any) -> str:
    inner = value.read() if isinstance(value, Secret) and value.kind == "text" else value
    return "mapping" if isinstance(inner, Mapping) else "list" if isinstance(inner, list | tuple) else ""


def _variables(settings: Keys) -> Iterator[Finding]:
    for name, value in settings.variables.items():
        at = ("variables", name)
        if not _VARIABLE.fullmatch(name):
            message = f"{quoted(name)} is not the name of a session variable: letters, digits, `_` and dots"
            yield Finding("invalid-value", message, at=at)
        elif (kind := _kind(value)) in ("mapping", "list"):
            help = "write it as the text that follows SET: 'one,two'"
            yield Finding("wrong-type", f"a session variable has one value, not a {kind}", help, at)
