"""Merges the layers of a profile, with `DBCONFIG_…` variables on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dbconfig.errors.light_dataclass import replace
from dbconfig.errors.printable import printable
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings.environment_variables import Environment, Variable
from dbconfig.settings.keys import CONNECTION_KEYS
from dbconfig.settings.known_drivers import backend_of
from dbconfig.settings.located_values import Entry, MappingNode, Node, Scalar
from dbconfig.settings.url_parsing import InvalidURL, parse_url

PREFIX: Final = "DBCONFIG_"
_BASES: Final = ("url", "drivername")  # a layer with one of these keys describes a separate connection
_PARTS: Final = ("drivername", "username", "password", "host", "port", "database")
# Arguments of other packages' functions, for which None may have a meaning: psycopg's `prepare_threshold`.
_NULLABLE: Final = ("connect_args", "dialect_options", "execution_options")
_NAMED: Final = ("databases", "shards")  # mappings of names to databases
_ATOMIC: Final = ("password",)  # `{file: …}` over `{env: …}` is one secret, not both


def lay(documents: Sequence[MappingNode], environment: Environment) -> tuple[MappingNode, list[Problem]]:
    """Merge the documents, later ones over earlier ones, and `DBCONFIG_…` on top; return also the latter's problems."""
    merged = documents[0]
    for upper in documents[1:]:
        merged = _over(merged, upper, is_database=True)
    variables, problems = _from_environment(environment, merged)
    return _over(merged, variables, is_database=True), problems


def without_nulls(tree: MappingNode) -> tuple[MappingNode, list[Problem]]:
    """Return the tree without its null values, and their problems.

    A null removes a value of a lower layer; if there is none, the value was forgotten. In the arguments of a driver, it
    is a value.
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
            elif _is_argument(path):
                entries[name] = entry  # null is a value there; missing values are checked later
            elif entry.beneath is None and here[-1] != "pool_reset_on_return":
                key = ".".join(here)
                problems.append(
                    Problem(
                        "empty-value",
                        f"`{key}` is empty: null is not a value",
                        entry.key,
                        key,
                        "give it a value, or remove the line",
                    )
                )
            elif entry.beneath is None:
                entries[name] = entry
        return replace(node, entries=entries)

    return clean(tree, ()), problems


def _is_argument(path: tuple[str, ...]) -> bool:
    """Return whether a path leads to an argument of another package's function."""
    inside = path[2:] if path[:1] == ("databases",) else path
    return bool(inside) and inside[0] in _NULLABLE


def _over(lower: MappingNode, upper: MappingNode, *, is_database: bool, is_databases: bool = False) -> MappingNode:
    entries = dict(lower.entries)
    if is_database and _describes_another(upper, lower):
        # A connection is never combined from two descriptions: production's password must not reach a test's host.
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
            node = _over(below.node, node, is_database=is_databases, is_databases=is_database and key in _NAMED)
        entries[key] = replace(entry, node=node, beneath=below)
    return replace(upper, entries=entries)


def _describes_another(upper: MappingNode, lower: MappingNode) -> bool:
    """Return whether a layer describes a complete connection, not only a part of the one below it."""
    if "url" in upper.entries:
        return any(base in lower.entries for base in _BASES)
    if "drivername" not in upper.entries or not any(base in lower.entries for base in _BASES):
        return False
    # Another driver for the same system is a part: DBCONFIG_DRIVERNAME=postgresql+psycopg keeps host and password.
    only = upper.entries["drivername"].key.variable or not (upper.entries.keys() & CONNECTION_KEYS) - {"drivername"}
    system = _system(upper, "drivername")
    return not (only and system and system == (_system(lower, "drivername") or _system(lower, "url")))


def _system(node: MappingNode, key: str) -> str:
    entry = node.get(key)
    written = entry.node.value if entry is not None and isinstance(entry.node, Scalar) else None
    try:
        return backend_of(written.partition("://")[0]) if isinstance(written, str) else ""
    except ValueError:
        return ""  # a reference, or a problem that validation finds


def _from_environment(environment: Environment, below: MappingNode) -> tuple[MappingNode, list[Problem]]:
    found: dict[tuple[str, ...], Variable] = {}
    problems: list[Problem] = []
    for name in sorted(environment):
        variable = environment.get(name) if name.startswith(PREFIX) and len(name) > len(PREFIX) else None
        if variable is None:
            continue
        path = _path(name, below)
        problem = _problem(variable, path, found)
        if problem is not None:
            problems.append(problem)
        else:
            found[path] = variable
    root = MappingNode({}, Location("environment"))
    for path, variable in found.items():
        scalar = Scalar(variable.value, variable.location, variables=(variable.name,))
        root = _put(root, path, Entry(scalar, variable.location))
    return root, problems


def _problem(variable: Variable, path: tuple[str, ...], found: Mapping[tuple[str, ...], Variable]) -> Problem | None:
    key = printable(".".join(path))
    if "" in path:
        help = "two underscores enter a mapping, as in DBCONFIG_CONNECT_ARGS__NAME"
        return Problem("unknown-key", f"unknown key {printable(variable.name)}", variable.location, key, help)
    if variable.value == "":
        message = f"environment variable {printable(variable.name)} is empty"
        return Problem("empty-variable", message, variable.location, key, "unset it, or give it a value")
    left = variable.unexpanded()
    if left:
        message = f"{printable(variable.name)} contains a reference to {left}, which was not expanded"
        help = "set it to the complete value: references are expanded only in YAML and in `.env` files"
        return Problem("bad-reference", message, variable.location, key, help)
    twice = next((other for other in found if other[: len(path)] == path or path[: len(other)] == other), None)
    if twice is not None:
        message = f"{printable(variable.name)} and {printable(found[twice].name)} set the same key"
        return Problem("given-twice", message, variable.location, key, "unset one of the two")
    return None


def _path(name: str, below: MappingNode) -> tuple[str, ...]:
    """Return the path of a variable's key, in the spelling of the documents: keys are not in uppercase."""
    path: list[str] = []
    node: Node | None = below
    for part in name[len(PREFIX) :].split("__"):
        known = node.entries if isinstance(node, MappingNode) else {}
        path.append(next((key for key in known if key.lower() == part.lower()), part.lower()))
        node = known[path[-1]].node if path[-1] in known else None
    return tuple(path)


def _put(node: MappingNode, path: Sequence[str], entry: Entry) -> MappingNode:
    if len(path) > 1:
        inner = node.get(path[0])
        start = inner.node if inner is not None and isinstance(inner.node, MappingNode) else MappingNode({}, entry.key)
        entry = Entry(_put(start, path[1:], entry), entry.key)
    return replace(node, entries={**node.entries, path[0]: entry})


def reconciled(tree: MappingNode, order: list[str]) -> MappingNode:
    """Let the higher layer win if a URL and a key of another layer set the same part of a connection.

    Args:
        order: the names of the files, lowest first; the environment is above them.
    """
    entries = dict(tree.entries)
    databases = entries.get("databases")
    if databases is not None and isinstance(databases.node, MappingNode):
        inner = {
            key: replace(each, node=reconciled(each.node, order)) if isinstance(each.node, MappingNode) else each
            for key, each in databases.node.entries.items()
        }
        entries["databases"] = replace(databases, node=replace(databases.node, entries=inner))
    url = entries.get("url")
    if url is None or not isinstance(url.node, Scalar) or not isinstance(url.node.value, str):
        return replace(tree, entries=entries)
    try:
        address = whole = parse_url(url.node.value)
    except InvalidURL:
        return replace(tree, entries=entries)
    for part in _PARTS:
        entry = entries.get(part)
        if entry is None or getattr(address, part) is None:
            continue
        if rank(entry, order) > rank(url, order):
            address = address.without(part)
        elif rank(entry, order) < rank(url, order):
            del entries[part]
    limit = entries.get("connect_timeout")
    if limit is not None and rank(limit, order) > rank(url, order):
        query_left = {name: one for name, one in address.query.items() if name != "connect_timeout"}
        address = replace(address, query=query_left)
    query = entries.get("query")
    if query is not None and isinstance(query.node, MappingNode):
        both = {name: entry for name, entry in query.node.entries.items() if name in address.query}
        above = {name for name, entry in both.items() if rank(entry, order) > rank(url, order)}
        below = {name for name, entry in both.items() if rank(entry, order) < rank(url, order)}
        address = replace(address, query={name: one for name, one in address.query.items() if name not in above})
        left = {name: entry for name, entry in query.node.entries.items() if name not in below}
        entries["query"] = replace(query, node=replace(query.node, entries=left))
    if address != whole:
        entries["url"] = replace(url, node=replace(url.node, value=address))
    return replace(tree, entries=entries)


def rank(entry: Entry, order: list[str]) -> int:
    """Return the index of the layer in which a key was written."""
    return order.index(entry.key.source) if entry.key.source in order else len(order)
