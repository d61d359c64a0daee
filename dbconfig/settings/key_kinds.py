"""The notation of each key: its kind, limits, and default, for the schema, the reference, and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from dbconfig.settings import durations, url_parsing, value_types
from dbconfig.settings.choices import Choice, FlagOr
from dbconfig.settings.hosts import hosts
from dbconfig.settings.keys import group
from dbconfig.settings.tags import tags

_LINKS: Final = {
    "engine": "https://docs.sqlalchemy.org/en/21/core/engines.html#sqlalchemy.create_engine.params.",
    "pool": "https://docs.sqlalchemy.org/en/21/core/engines.html#sqlalchemy.create_engine.params.",
}
# Keys of the pool and of the engine that SQLAlchemy does not have.
_OURS: Final = frozenset(
    {
        "dialect_options",
        "engine_idle_timeout",
        "fast_begin",
        "pool_idle_timeout",
        "pool_keepalive",
        "pool_leak_warning",
        "pool_max_waiting",
        "pool_min_idle",
        "pool_queue_target",
        "pool_reset",
    }
)
_DURATION_UNITS: Final = "Seconds, or a duration: 500ms, 5s, 30m, 1h, 1d."
_WORDS: Final = {
    "integer": "whole number",
    "seconds": "duration",
    "seconds or false": "duration, or false",
    "seconds or flag": "duration, true or false",
    "flag": "true or false",
    "choice": "a word",
    "level": "a word",
    "text": "text",
    "hosts": "text, or a list",
    "url": "URL",
    "secret": "secret",
    "mapping": "mapping",
    "list": "list of mappings",
    "names": "list of names",
}


def description(name: str, field: FieldInfo) -> str:
    """Return the description of a setting: its meaning, its unit, and a link to SQLAlchemy's documentation."""
    text = f"{field.description}."
    if kind(field).startswith("seconds"):
        text += f" {_DURATION_UNITS}"
    link = _LINKS.get(group(field))
    return f"{text} SQLAlchemy: {link}{name}" if link and is_create_engine_argument(name) else text


def is_create_engine_argument(name: str) -> bool:
    """Return whether `create_engine` documents an argument of this name; the keys below are only ours."""
    return name not in _OURS


def validators(annotation: Any) -> Iterator[Any]:
    """Yield the functions that validate a field, those within `X | None` too."""
    for item in getattr(annotation, "__metadata__", ()) or getattr(annotation, "metadata", ()) or ():
        if hasattr(item, "func"):
            yield item.func
    for part in get_args(annotation) or (getattr(annotation, "annotation", None),):
        if part is not None and not isinstance(part, (str, int)):
            yield from validators(part)


def kind(field: FieldInfo) -> str:
    """Return how a setting is written: integer, seconds, flag, choice, text, hosts, url, secret, mapping or list."""
    names = {
        value_types.whole_number: "integer",
        durations.seconds: "seconds",
        durations.seconds_or_off: "seconds or false",
        durations.check: "seconds or flag",
        value_types.flag: "flag",
        value_types.secret: "secret",
        value_types.options: "mapping",
        value_types.mapping: "mapping",
        url_parsing.query: "mapping",
        url_parsing.database_url: "url",
        value_types.isolation_level: "level",
        hosts: "hosts",
        tags: "names",
    }
    for function in validators(field):
        if isinstance(function, (Choice, FlagOr)):
            return "choice"
        if function in names:
            return names[function]
    return "list" if field.default == () else "text"


def default(field: FieldInfo) -> Any:
    """Return the default as YAML."""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return durations.written(value) if isinstance(value, float) and kind(field).startswith("seconds") else value


def shown_default(field: FieldInfo) -> str:
    """Return the default for display; "-" if there is none."""
    value = default(field)
    return "-" if value is None or value == {} else str(value).lower() if isinstance(value, bool) else str(value)


def limits(field: FieldInfo) -> dict[str, Any]:
    """Return the bounds of a number, under their names in JSON Schema."""
    names = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    return {
        key: getattr(item, attribute)
        for item in field.metadata
        for attribute, key in names.items()
        if getattr(item, attribute, None) is not None
    }


def words(field: FieldInfo) -> str:
    """Return the type of a setting and its limits, for display."""
    found = limits(field)
    low, high = found.get("minimum", found.get("exclusiveMinimum")), found.get("maximum")
    if low is None:
        return _WORDS[kind(field)]
    word = "more than" if "exclusiveMinimum" in found else "from"
    return f"{_WORDS[kind(field)]}, {word} {low:g}" + (f" to {high:g}" if high is not None else "")
