"""From a profile's name to its validated, frozen settings; from pydantic's errors to problems with a place in a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_settings import PydanticBaseSettingsSource

from dbconfig.advice import advice
from dbconfig.environment import Environment
from dbconfig.errors import ConfigError, Location, Problem
from dbconfig.interpolation import interpolate
from dbconfig.layering import PREFIX, lay, without_nulls
from dbconfig.names import unknown_key
from dbconfig.nodes import Entry, MappingNode, Scalar
from dbconfig.profile import DEFAULT, Profile, expand
from dbconfig.profiles import SHARED, Folder, Selection, find_folder, read_layers, select, shown_path
from dbconfig.settings import CONNECTION_KEYS, DatabaseSettings, Origins
from dbconfig.urls import InvalidURL, parse_url
from dbconfig.values import Finding

_log = logging.getLogger(__name__)

Path_ = tuple[str, ...]  # of a key in the flat form of a profile: ("databases", "analytics", "echo")


def load(
    profile: str | None = None, *, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Profile:
    """Load and validate a profile.

    Args:
        profile: its name; None takes `ENVIRONMENT`, and `development` where that is not set.
        path: the configuration folder; None looks for `config/` beside or above the script or the working directory.
        environ: the environment variables; None is the process's own.

    Raises:
        ProfileNotFound: there is no such profile.
        ConfigError: the configuration cannot be used; all its problems are in `.problems`.

    >>> load("production", path="config", environ={"DATABASE_URL": "postgresql://app@db/shop"}).databases["default"].pool_size
    20
    """
    folder = find_folder(path)
    environment = read_environment(folder, environ)
    selection = select(profile, environment, folder)
    loaded = load_selected(folder, environment, selection)
    for warning in advice(loaded):
        _log.warning("%s: profile %s: %s", warning.location, loaded.name, warning.message)
    return loaded


def read_environment(folder: Folder, environ: Mapping[str, str] | None) -> Environment:
    """Return the environment with the `.env` of the project beneath it."""
    return Environment(environ, folder.dotenv, shown_path(folder.dotenv))


def load_selected(folder: Folder, environment: Environment, selection: Selection) -> Profile:
    """Load a profile that is known to exist, without advice; `load` says what is raised."""
    documents, problems = read_layers(folder, selection.name)
    laid, empty = without_nulls(lay(documents, environment))
    tree, unresolved = interpolate(laid, environment)
    order = [document.location.source for document in documents]
    validation = _Validation(
        _reconciled(tree, order),
        selection.name,
        folder.shown(_file(folder, selection.name)),
        [*problems, *empty, *unresolved],
    )
    profile = validation.run().settle(_origins(laid), folder.project, selection.reason)
    for settings in profile.databases.values():
        if settings.password is not None:
            settings.password.bind(environment)
    return profile


def _file(folder: Folder, name: str) -> str:
    return folder.files()[name][0]


class TreeSource(PydanticBaseSettingsSource):
    """One of a profile's two explicit sources: the values of documents, or those of `DBCONFIG_…` variables."""

    def __init__(self, data: Mapping[str, Any], *, environment: bool) -> None:
        super().__init__(Profile)
        self._data = data
        self._environment = environment
        self.__name__ = "environment" if environment else "documents"

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._data.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._part(self._data)

    def _part(self, data: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, Mapping):
                found[key] = self._part(value)
            elif _from_environment(value) is self._environment:
                found[key] = value
        return found


def _from_environment(value: Any) -> bool:
    return isinstance(value, Scalar) and value.location.variable.startswith(PREFIX)


class _Validation:
    """Validates, sets what is wrong aside, and validates the rest, until every problem is known."""

    def __init__(self, tree: MappingNode, name: str, file: str, problems: Iterable[Problem]) -> None:
        self.tree, self.name, self.file = tree, name, file
        self.problems = list(problems)
        self.aside: set[Path_] = {tuple(problem.key.split(".")) for problem in self.problems}

    def run(self) -> Profile:
        self._check_reserved()
        for _ in range(8):  # each round sets something aside; the checks have fewer stages than this
            data = self._data()
            try:
                profile = Profile(sources=(TreeSource(data, environment=True), TreeSource(data, environment=False)))  # type: ignore[call-arg]  # not a field: taken by settings_customise_sources
            except ValidationError as error:
                before = len(self.aside)
                for details in error.errors(include_url=False, include_input=False):
                    self._take(
                        details["type"],
                        tuple(str(part) for part in details["loc"]),
                        details["msg"],
                        details.get("ctx", {}),
                    )
                if len(self.aside) == before:
                    break
            else:
                if self.problems:
                    break
                return profile
        # `from None`: pydantic's error carries the input, and with it the secrets.
        raise ConfigError(dict.fromkeys(self.problems)) from None

    def _check_reserved(self) -> None:
        name = self.tree.get("name")
        if name is not None:
            self.problems.append(unknown_key(("name",), name.key, DatabaseSettings.model_fields))
            self.aside.add(("name",))
        databases = self.tree.get("databases")
        if databases is not None and not isinstance(databases.node, MappingNode):
            self.problems.append(
                Problem("wrong-type", "`databases` must be a mapping of names to settings", databases.key, "databases")
            )
            self.aside.add(("databases",))
        elif databases is not None and isinstance(databases.node, MappingNode):
            for key, entry in databases.node.entries.items():
                self._check_database(key, entry)

    def _check_database(self, key: str, entry: Entry) -> None:
        path = ("databases", key)
        if key == DEFAULT:
            self.problems.append(
                Problem(
                    "invalid-value",
                    "the profile's own keys are the database `default`",
                    entry.key,
                    "databases.default",
                    "write them without `databases:`",
                )
            )
            self.aside.add(path)
        elif not isinstance(entry.node, MappingNode):
            self.problems.append(
                Problem(
                    "wrong-type",
                    f"`databases.{key}` must be a mapping of settings",
                    entry.key,
                    f"databases.{key}",
                    f"{key}: {{url: …}}",
                )
            )
            self.aside.add(path)

    def _data(self) -> dict[str, Any]:
        flat: dict[str, Any] = {key: entry.node for key, entry in self.tree.entries.items() if (key,) not in self.aside}
        named = flat.pop("databases", None)
        if isinstance(named, MappingNode):
            flat["databases"] = {
                key: {inner: each.node for inner, each in entry.node.entries.items()}
                for key, entry in named.entries.items()
                if isinstance(entry.node, MappingNode) and ("databases", key) not in self.aside
            }
        expanded = expand({**flat, "name": self.name})
        for database, keys in expanded["databases"].items():
            for path in self.aside:
                if path[:2] == ("databases", database) and len(path) > 2:
                    keys.pop(path[2], None)
        return expanded

    def _take(self, kind: str, loc: Path_, message: str, ctx: Mapping[str, Any]) -> None:
        database, inside = loc[1] if len(loc) > 1 else DEFAULT, loc[2:]
        findings: Iterable[Finding] = ctx["findings"] if kind == "finding" else [_pydantic_finding(kind, message, ctx)]
        for finding in findings:
            self._note(database, (*inside, *finding.at), finding)

    def _note(self, database: str, inside: Path_, finding: Finding) -> None:
        own: Path_ = inside if database == DEFAULT else ("databases", database, *inside)
        entry, depth = self._find(own)
        inherited = database != DEFAULT and depth < 3 and bool(inside)
        if inherited:
            entry, depth = self._find(inside)
        if not inside and self._is_known_gap(database):
            return
        if inside:
            self.aside.add(("databases", database, inside[0]) if database != DEFAULT else (inside[0],))
        # What default.yaml says for all, or the profile for all its databases, need not fit each of them.
        shared = entry is not None and entry.key.source.rpartition("/")[2].startswith(f"{SHARED}.")
        if finding.slug == "not-applicable" and (inherited or shared):
            return
        place = entry.key if entry is not None else Location(self.file)
        if finding.slug == "unknown-key" and not finding.message:
            self.problems.append(unknown_key(own, place, DatabaseSettings.model_fields))
            return
        key = ".".join(inside if inherited else own)
        said = finding.message if not inside or finding.message.startswith(("`", "'")) else f"{key}: {finding.message}"
        self.problems.append(Problem(finding.slug, said, place, key, finding.help, _notes(entry)))

    def _is_known_gap(self, database: str) -> bool:
        """Say whether a database lacks its address only because the address has a problem of its own."""
        prefix: Path_ = () if database == DEFAULT else ("databases", database)
        if any("'drivername'" in problem.help or "'url'" in problem.help for problem in self.problems):
            return True  # it is there, under a name that is not ours
        return any(
            path[: len(prefix)] == prefix and path[len(prefix) :][:1] and path[len(prefix)] in CONNECTION_KEYS
            for path in self.aside
        )

    def _find(self, path: Path_) -> tuple[Entry | None, int]:
        """Return the innermost entry on a path and how many of its parts were found."""
        node: Any = self.tree
        found: Entry | None = None
        for depth, part in enumerate(path):
            entry = node.get(part) if isinstance(node, MappingNode) else None
            if entry is None:
                return found, depth
            found, node = entry, entry.node
        return found, len(path)


def _pydantic_finding(kind: str, message: str, ctx: Mapping[str, Any]) -> Finding:
    if kind == "extra_forbidden":
        return Finding("unknown-key", "")
    limits = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
    }
    if kind in limits:
        return Finding("out-of-range", f"must be {limits[kind].format(**ctx)}")
    return Finding("missing-value" if kind == "missing" else "wrong-type", message)


def _notes(entry: Entry | None) -> tuple[str, ...]:
    if entry is None or not isinstance(entry.node, Scalar) or not entry.node.variables or entry.key.variable:
        return ()
    return (f"the value comes from the environment: {', '.join(entry.node.variables)}",)


def _origins(tree: MappingNode) -> Origins:
    found: dict[Path_, tuple[Location, ...]] = {}

    def walk(node: MappingNode, path: Path_) -> None:
        for key, entry in node.entries.items():
            places: list[Location] = []
            below: Entry | None = entry
            while below is not None:
                places.append(below.key)
                below = below.beneath
            found[(*path, key)] = tuple(places)
            if isinstance(entry.node, MappingNode):
                walk(entry.node, (*path, key))

    walk(tree, ())
    return found


def _reconciled(tree: MappingNode, order: list[str]) -> MappingNode:
    """Let the higher layer win where a URL and a key of another layer say the same part of a connection."""
    entries = dict(tree.entries)
    databases = entries.get("databases")
    if databases is not None and isinstance(databases.node, MappingNode):
        inner = {
            key: replace(each, node=_reconciled(each.node, order)) if isinstance(each.node, MappingNode) else each
            for key, each in databases.node.entries.items()
        }
        entries["databases"] = replace(databases, node=replace(databases.node, entries=inner))
    url = entries.get("url")
    if url is None or not isinstance(url.node, Scalar) or not isinstance(url.node.value, str):
        return replace(tree, entries=entries)
    try:
        address = parse_url(url.node.value)
    except InvalidURL:
        return replace(tree, entries=entries)
    for part in ("drivername", "username", "password", "host", "port", "database"):
        entry = entries.get(part)
        if entry is None or getattr(address, part) is None:
            continue
        if _rank(entry, order) > _rank(url, order):
            address = address.without(part)
        elif _rank(entry, order) < _rank(url, order):
            del entries[part]
    if address != parse_url(url.node.value):
        entries["url"] = replace(url, node=replace(url.node, value=address))
    return replace(tree, entries=entries)


def _rank(entry: Entry, order: list[str]) -> int:
    return order.index(entry.key.source) if entry.key.source in order else len(order)
