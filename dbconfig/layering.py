"""One document laid over another, and the environment over them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dbconfig.environment import Environment
from dbconfig.errors import Location, Problem
from dbconfig.nodes import Entry, MappingNode, Scalar
from dbconfig.settings import CONNECTION_KEYS

PREFIX: Final = "DBCONFIG_"
_BASES: Final = ("url", "drivername")  # a layer that says one of these describes a connection of its own
_ATOMIC: Final = ("password",)  # `{file: …}` over `{env: …}` is one secret, not both


def lay(documents: Sequence[MappingNode], environment: Environment) -> MappingNode:
    """Return the documents as one, later ones over earlier ones, with `DBCONFIG_…` on top."""
    merged = documents[0]
    for upper in documents[1:]:
        merged = _over(merged, upper, is_database=True)
    return _over(merged, _from_environment(environment, merged), is_database=True)


def without_nulls(tree: MappingNode) -> tuple[MappingNode, list[Problem]]:
    """Return the tree without its null values, and what is wrong with them.

    A null takes back what a lower layer says; where there is nothing to take back, the value was forgotten.
    """
    problems: list[Problem] = []

    def clean(node: MappingNode, path: tuple[str, ...]) -> MappingNode:
        entries = {}
        for name, entry in node.entries.items():
            here = (*path, name)
            if isinstance(entry.node, MappingNode):
                entries[name] = replace(entry, node=clean(entry.node, here))
            elif not (isinstance(entry.node, Scalar) and entry.node.value is None) or entry.node.variables:
                entries[name] = entry
            elif entry.beneath is None and here[-1] != "pool_reset_on_return":
                key = ".".join(here)
                problems.append(
                    Problem(
                        "empty-value",
                        f"`{key}` is empty: null is no value",
                        entry.key,
                        key,
                        "give it a value, or remove the line",
                    )
                )
            elif entry.beneath is None:
                entries[name] = entry
        return replace(node, entries=entries)

    return clean(tree, ()), problems


def _over(
    lower: MappingNode, upper: MappingNode, *, is_database: bool = False, is_databases: bool = False
) -> MappingNode:
    entries = dict(lower.entries)
    if is_database and _has_base(upper) and _has_base(lower):
        # A connection is never mixed from two descriptions: production's password must not reach the host of a test.
        entries = {key: entry for key, entry in entries.items() if key not in CONNECTION_KEYS}
    for key, entry in upper.entries.items():
        below = entries.get(key)
        node = entry.node
        if (
            below is not None
            and isinstance(node, MappingNode)
            and isinstance(below.node, MappingNode)
            and key not in _ATOMIC
        ):
            node = _over(below.node, node, is_database=is_databases, is_databases=is_database and key == "databases")
        entries[key] = replace(entry, node=node, beneath=below)
    return replace(upper, entries=entries)


def _has_base(node: MappingNode) -> bool:
    return any(base in node.entries for base in _BASES)


def _from_environment(environment: Environment, below: MappingNode) -> MappingNode:
    root = MappingNode({}, Location("environment"))
    for name in sorted(environment):
        variable = environment.get(name) if name.startswith(PREFIX) and len(name) > len(PREFIX) else None
        if variable is not None:
            scalar = Scalar(variable.value, variable.location, variables=(name,))
            root = _put(root, name[len(PREFIX) :].split("__"), Entry(scalar, variable.location), below)
    return root


def _put(node: MappingNode, parts: Sequence[str], entry: Entry, below: MappingNode | None) -> MappingNode:
    key = _spelling(parts[0], below.entries if below is not None else ())
    if len(parts) > 1:
        inner = node.get(key)
        lower = below.get(key) if below is not None else None
        start = inner.node if inner is not None and isinstance(inner.node, MappingNode) else MappingNode({}, entry.key)
        entry = Entry(
            _put(
                start,
                parts[1:],
                entry,
                lower.node if lower is not None and isinstance(lower.node, MappingNode) else None,
            ),
            entry.key,
        )
    return replace(node, entries={**node.entries, key: entry})


def _spelling(part: str, known: Iterable[str]) -> str:
    """Return a name as the documents spell it: variables are in capitals, keys are not."""
    return next((name for name in known if name.lower() == part.lower()), part.lower())
