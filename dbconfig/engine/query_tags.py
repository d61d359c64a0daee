"""Query tags: a comment behind each statement that says which part of the application sent it, as SQLCommenter does."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Engine

from dbconfig.engine.dialects import application_name
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import family

Tags = tuple[tuple[str, str], ...]
Source = Callable[[], Mapping[str, str]]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LONGEST: Final = 128  # characters of a value
_set: ContextVar[Tags] = ContextVar("dbconfig.query_tags", default=())
# What a framework reports about the request or task, on demand: a route is known only after routing.
supplier: ContextVar[Source | None] = ContextVar("dbconfig.query_tags.source", default=None)
_asked: list[Source] = []  # frameworks that can report the current request or task


@contextmanager
def tagged(tags: Mapping[str, str]) -> Iterator[None]:
    """Tag the statements of this context, of the tasks that it starts, and of `asyncio.to_thread`.

    Raises:
        ValueError: a name is not in lowercase, or a value is not text.
    """
    for name, value in tags.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"the name of a query tag consists of lowercase letters, digits, and _: {name!r}")
        if not isinstance(value, str):
            raise ValueError(f"the value of a query tag must be text: {name}={value!r}")
    token = _set.set(tuple({**dict(_set.get()), **tags}.items()))
    try:
        yield
    finally:
        _set.reset(token)


@contextmanager
def described_by(source: Source) -> Iterator[None]:
    """Let a framework supply the route or the task for the statements of this context."""
    token = supplier.set(source)
    try:
        yield
    finally:
        supplier.reset(token)


def ask(source: Source) -> None:
    """Register a source of the route or task for statements that are tagged with one, from now on."""
    if source not in _asked:
        _asked.append(source)


def current(wanted: frozenset[str]) -> Tags:
    """Return the tags of this context: the requested ones of its framework, and all that the application has set."""
    found = _set.get()
    if not wanted:
        return found
    source = supplier.get()
    said = {**source()} if source is not None else {}
    for each in _asked:
        said.update(each())
    return (*((name, said[name]) for name in said if name in wanted), *found) if said else found


def attach(engine: Engine, settings: DatabaseSettings, label: str) -> None:
    """Tag the statements of an engine, if the settings name any tag."""
    if not settings.query_tags:
        return
    wanted = frozenset(settings.query_tags)
    name = settings.application_name or application_name.default_name(settings, label)
    own: Tags = (("application", name),) if "application" in wanted else ()
    of_frameworks = wanted & {"route", "task"}
    traced = "traceparent" in wanted
    # The driver's placeholder character. SQLAlchemy reports if the driver does not parse placeholders.
    doubled = engine.dialect.paramstyle in ("format", "pyformat")

    dialect: Any = engine.dialect
    execute, plainly, many = dialect.do_execute, dialect.do_execute_no_params, dialect.do_executemany
    # These drivers send many rows in one statement, if nothing precedes INSERT or follows VALUES (…).
    within = family(dialect.name) == "mysql"

    def tags(doubled: bool) -> str:
        found = current(of_frameworks)
        if traced:
            found = (*found, *_trace())
        return comment((*own, *found), doubled)

    # Not events: with one, SQLAlchemy prepares each statement for all kinds of them, which costs ten times as much.
    # SQLCommenter does not change a statement that has a comment.
    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        execute(cursor, statement if "/*" in statement else statement + tags(doubled), parameters, context)

    def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        plainly(cursor, statement if "/*" in statement else statement + tags(False), context)

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if "/*" not in statement:
            verb, blank, rest = statement.partition(" ")
            statement = f"{verb}{tags(doubled)}{blank}{rest}" if within else statement + tags(doubled)
        many(cursor, statement, parameters, context)

    dialect.do_execute, dialect.do_execute_no_params = do_execute, do_execute_no_params  # of this engine alone
    dialect.do_executemany = do_executemany


@lru_cache(maxsize=1024)
def comment(tags: Tags, doubled: bool) -> str:
    """Return tags in the format of https://google.github.io/sqlcommenter/spec/, after a space."""
    if not tags:
        return ""
    # Text that cannot be encoded as UTF-8, such as an undecodable file name, becomes `?` instead of an error.
    pairs = ((name, quote(value[:_LONGEST], safe="", errors="replace")) for name, value in sorted(dict(tags).items()))
    written = ",".join(f"{name}='{value}'" for name, value in pairs)
    return f" /*{written.replace('%', '%%') if doubled else written}*/"


def _trace() -> Tags:
    """Return the span that is current, if it is sampled; nothing where OpenTelemetry is not in use."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ()
    context = trace.get_current_span().get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return ()
    return (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-01"),)
