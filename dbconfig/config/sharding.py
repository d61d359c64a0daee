"""`shards:` in files: each shard becomes a separate database, whose values keep their locations."""

from __future__ import annotations

from functools import partial
from typing import Any

from dbconfig.config.layering import reconciled
from dbconfig.errors.light_dataclass import replace
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import shown_name
from dbconfig.settings import shards
from dbconfig.settings.keys import CONNECTION_KEYS
from dbconfig.settings.loaded_profile import DEFAULT
from dbconfig.settings.located_values import Entry, MappingNode, Scalar
from dbconfig.settings.secret_sources import Secret


def unfold(tree: MappingNode, order: list[str]) -> tuple[MappingNode, list[Problem]]:
    """Return a profile with each shard among its `databases`, and the problems of the shards.

    Args:
        tree: the profile's layers as one.
        order: the names of the files, lowest first.
    """
    problems: list[Problem] = []
    entries, root = dict(tree.entries), tree.entries.get(shards.KEY)
    databases = entries.get("databases")
    named: dict[str, Entry] = {}
    if databases is not None and isinstance(databases.node, MappingNode):
        for name, entry in databases.node.entries.items():
            if shards.SEPARATOR in name:
                message = f"{quoted(shown_name(name))} is not a valid database name: use letters, digits, `_`, and `-`"
                problems.append(Problem("invalid-value", message, entry.key, f"databases.{shown_name(name)}"))
            elif isinstance(entry.node, MappingNode) and shards.KEY in entry.node.entries:
                named |= _shards(name, entry.node, f"databases.{name}.{shards.KEY}", order, problems)
            else:
                named[name] = entry
    elif databases is not None:
        return tree, problems  # which is reported when databases are validated
    if root is not None:
        found = _shards(DEFAULT, tree, shards.KEY, order, problems)
        # All other keys are inherited from the profile in any case.
        named |= {
            name: replace(entry, node=_without(entry.node, frozenset(tree.entries) - CONNECTION_KEYS, tree))
            for name, entry in found.items()
        }
        entries = {key: entry for key, entry in entries.items() if key not in CONNECTION_KEYS}
    if named:
        place = databases if databases is not None else root
        assert place is not None
        start = place.node if databases is not None and isinstance(place.node, MappingNode) else tree
        entries["databases"] = Entry(replace(start, entries=named), place.key)
    return replace(tree, entries=entries), problems


def _without(node: object, keys: frozenset[str], of: MappingNode) -> MappingNode:
    assert isinstance(node, MappingNode)
    kept = {key: entry for key, entry in node.entries.items() if key not in keys or entry is not of.entries.get(key)}
    return replace(node, entries=kept)


def _entry(place: Location, value: Any) -> Entry:
    """Return the value of a part of a URL as a separate key."""
    node: Any = value if isinstance(value, Secret) else Scalar(value, place)  # settings accept it as is
    return Entry(node, place)


def _shards(database: str, own: MappingNode, path: str, order: list[str], problems: list[Problem]) -> dict[str, Entry]:
    """Return the shards of one database, by their names among all."""
    written = own.entries[shards.KEY]
    if not isinstance(written.node, MappingNode) or not written.node.entries:
        help = "shards: {eu: {host: db-eu}, us: {host: db-us}}"
        problems.append(
            Problem("wrong-type", f"`{path}` must be a mapping of names to what differs", written.key, path, help)
        )
        return {}
    base = reconciled(own, order)
    found: dict[str, Entry] = {}
    for name, entry in written.node.entries.items():
        here = f"{path}.{shown_name(name)}"
        if not shards.NAME.fullmatch(name):
            message = f"{quoted(shown_name(name))} is not a valid name of a shard: use letters, digits, `_`, and `-`"
            problems.append(Problem("invalid-value", message, entry.key, here))
        elif not isinstance(entry.node, MappingNode):
            message = f"`{here}` must be a mapping of settings"
            problems.append(Problem("wrong-type", message, entry.key, here, f"{name}: {{host: …}}"))
        elif shards.KEY in entry.node.entries:
            message = f"`{here}.shards`: a shard has no shards"
            inner = entry.node.entries[shards.KEY]
            problems.append(Problem("not-applicable", message, inner.key, f"{here}.shards", "remove it"))
        else:
            says = reconciled(entry.node, order)
            url = base.entries.get("url")
            place = url.key if url is not None else entry.key
            both = shards.inherited(
                {key: each for key, each in base.entries.items() if key != "databases" and key != "extends"},
                says.entries,
                node=lambda each: each.node,
                made=partial(_entry, place),
            )
            node = replace(says, entries={**both, **says.entries})
            found[shards.named(database, name)] = replace(entry, node=node)
    return found
