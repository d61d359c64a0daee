"""The shards of a database: each is a separate database that inherits everything from the one it is a part of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from dbconfig.settings.replicas import switched_off
from dbconfig.settings.url_parsing import parsed_url
from dbconfig.settings.value_types import plain

KEY: Final = "shards"
SEPARATOR: Final = "/"  # between the name of a database and that of its shard: no other name has one
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)

_PARTS: Final = ("drivername", "username", "password", "host", "port", "database")
_ADDRESS: Final = frozenset({"url", "query", *_PARTS})
# The parts that a URL always sets, even if only by omitting them.
_OF_URL: Final = frozenset({"drivername", "host", "port", "query"})


def named(database: str, shard: str) -> str:
    """Return the name of a shard among the databases of its profile."""
    return f"{database}{SEPARATOR}{shard}"


def grouped(names: Any) -> dict[str, tuple[str, ...]]:
    """Return the shards of each divided database, by the names of all databases."""
    found: dict[str, list[str]] = {}
    for name in names:
        database, separator, shard = name.partition(SEPARATOR)
        if separator:
            found.setdefault(database, []).append(shard)
    return {database: tuple(each) for database, each in found.items()}


def inherited(
    own: Mapping[str, Any],
    says: Mapping[str, Any],
    *,
    node: Callable[[Any], Any] = lambda value: value,
    made: Callable[[Any], Any] = lambda value: value,
) -> dict[str, Any]:
    """Return what a shard inherits from its database.

    Args:
        own: the keys of the database.
        says: the keys of the shard.
        node: returns the value of a key from an entry of `own`.
        made: creates an entry of `own` from a part of the database's URL.
    """
    shared = {key: value for key, value in own.items() if key != KEY and key not in says}
    if "replicas" in shared and not switched_off(node(shared["replicas"])):
        del shared["replicas"]  # they are copies of another server
    url = parsed_url(node(own["url"])) if "url" in own else None
    if ("url" in own and url is None) or not says.keys() & _ADDRESS:
        return shared
    parts = {key: own[key] for key in (*_PARTS, "query") if key in own}
    if url is not None:
        parts = {key: made(getattr(url, key)) for key in _PARTS if getattr(url, key) not in (None, "")} | parts
        query = {**url.query, **(plain(node(own["query"])) if "query" in own else {})}
        parts |= {"query": made(query)} if query else {}
    if "url" in says:
        theirs = parsed_url(node(says["url"]))
        parts = {
            key: value
            for key, value in parts.items()
            if key not in _OF_URL and (theirs is None or getattr(theirs, key) in (None, ""))
        }
    rest = {key: value for key, value in shared.items() if key not in _ADDRESS}
    return {**rest, **{key: value for key, value in parts.items() if key not in says}}


def unfolded(databases: Mapping[str, Any]) -> dict[str, Any]:
    """Return the databases of a profile created in code, with each shard as a database."""
    found: dict[str, Any] = {}
    for name, each in databases.items():
        shards = each.get(KEY) if isinstance(each, Mapping) else None
        if not isinstance(shards, Mapping) or not shards or not all(_is_shard(*one) for one in shards.items()):
            found[name] = each
            continue
        for shard, says in shards.items():
            found[named(name, shard)] = {**inherited(each, says), **says}
    return found


def _is_shard(name: Any, says: Any) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None and isinstance(says, Mapping) and KEY not in says
