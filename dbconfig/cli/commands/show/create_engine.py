"""The `create_engine` call equivalent to a profile, to paste into a program; secrets are masked."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from dbconfig.cli import value_display
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import OK
from dbconfig.errors.redaction import MASK, is_secret_name
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings


def write_calls(context: Context) -> int:
    """Write the calls of the selected profile."""
    calls = {name: call(settings, _label(context, name)) for name, settings in context.databases().items()}
    if context.is_json:
        context.out.json("engine", {"profile": context.selection.name, "reason": context.reason, "calls": calls})
        return OK
    context.out.line(f"# {context.headline()}")
    for name, text in calls.items():
        context.out.line()
        context.out.line(f"# database {name}")
        context.out.block(text)
    return OK


def _label(context: Context, database: str) -> str:
    return context.selection.name if database == "default" else f"{context.selection.name}/{database}"


def call(settings: DatabaseSettings, label: str) -> str:
    """Return Python code that creates an engine with the same arguments, as far as arguments can express it."""
    from dbconfig.engine import connection_failures, dialects
    from dbconfig.engine.create import engine_options

    asynchronous = settings.only_asynchronous()
    drivername = settings.driver(asynchronous=asynchronous)
    options, own_pool = _with_a_pool_of_sqlalchemy(engine_options(settings, label, drivername), settings)
    url = dialects.of(settings.backend).address(settings, drivername)
    function = "create_async_engine" if asynchronous else "create_engine"
    imports = {"from sqlalchemy import URL" + ("" if asynchronous else ", create_engine")}
    if asynchronous:
        imports.add("from sqlalchemy.ext.asyncio import create_async_engine")
    left_out: list[str] = []
    parts = {
        "username": url.username,
        "password": MASK if settings.address.password is not None else None,
        "host": url.host,
        "port": url.port,
        "database": url.database,
        "query": _query(settings, url) or None,
    }
    arguments = [repr(url.drivername), *(f"{key}={value!r}" for key, value in parts.items() if value is not None)]
    lines = [f"    URL.create({', '.join(arguments)}),"]
    for key, value in options.items():
        text = _literal(value, key, imports, left_out)
        if text not in (None, "{}"):
            lines.append(f"    {key}={text},")
    if own_pool:
        left_out.append(f"{own_pool}, dbconfig's own pool: the call uses SQLAlchemy's")
    notes = [f"# not shown: {what}" for what in left_out]
    notes.append(
        "# dbconfig adds what arguments cannot express: secrets read at each connect, session variables, "
        "SQLite's transactions."
    )
    # A parameter of the URL may have become part of an argument.
    written = connection_failures.scrubbed("\n".join(lines), settings)
    return "\n".join([*sorted(imports), "", f"engine = {function}(", written, ")", *notes])


def _with_a_pool_of_sqlalchemy(options: dict[str, Any], settings: DatabaseSettings) -> tuple[dict[str, Any], str]:
    """Return the options without dbconfig's own pool, which a program without dbconfig does not have, and its name."""
    poolclass = options.get("poolclass")
    if poolclass is None or not _is_ours(poolclass):
        return options, ""
    ours = {"poolclass", "pool_events", "line"} | {key for key in options if not _is_plain(options[key])}
    plain = {key: value for key, value in options.items() if key not in ours or key == "connect_args"}
    if not settings.in_memory:  # which would be lost with its last connection
        # Our pool does this on its own; SQLAlchemy's needs the arguments.
        plain |= {"pool_recycle": settings.pool_recycle, "pool_pre_ping": bool(settings.pool_pre_ping)}
    return plain, poolclass.__name__


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("dbconfig.")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, dict, list, tuple))


def _query(settings: DatabaseSettings, url: Any) -> dict[str, Any]:
    """Return the query of the URL; a value that may be a secret is masked."""
    shown = value_display.masked(settings.address).query
    return {key: MASK if shown.get(key) == (MASK,) else value for key, value in url.query.items()}


def _literal(value: Any, key: str, imports: set[str], left_out: list[str]) -> str | None:
    """Return a value as Python source; None if it cannot be written down."""
    if isinstance(value, Secret) or (is_secret_name(key) and isinstance(value, str)):
        return repr(MASK)
    if isinstance(value, dict):
        inner = {name: _literal(item, name, imports, left_out) for name, item in value.items()}
        return "{" + ", ".join(f"{name!r}: {text}" for name, text in inner.items() if text is not None) + "}"
    if isinstance(value, (list, tuple)):
        texts = [text for item in value if (text := _literal(item, key, imports, left_out)) is not None]
        return f"[{', '.join(texts)}]"
    if isinstance(value, type) and "<locals>" not in value.__qualname__ and not _is_ours(value):
        module = "sqlalchemy.pool" if value.__module__.startswith("sqlalchemy.pool") else value.__module__
        imports.add(f"from {module} import {value.__qualname__}")
        return value.__qualname__
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    left_out.append(f"{key}, {'a class' if inspect.isclass(value) else 'an object'} of dbconfig's own")
    return None
