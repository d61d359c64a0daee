"""Validates a profile, and converts findings into problems with locations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from dbconfig.config.folder import Folder
from dbconfig.config.layering import rank
from dbconfig.errors import ConfigError
from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import replace
from dbconfig.errors.printable import did_you_mean, printable, quoted, suggest
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import shown_name
from dbconfig.settings import shards
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.findings import Finding, found_in
from dbconfig.settings.keys import CONNECTION_KEYS
from dbconfig.settings.loaded_profile import DEFAULT, AnyProfile, LoadedProfile, expand
from dbconfig.settings.located_values import Entry, MappingNode, Node, Scalar, SequenceNode

_DATABASE = late_pattern(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?:/[A-Za-z0-9_-]+)?", re.ASCII)  # or one of its shards
_SHARD = late_pattern(r"(databases\.[\w-]+)/[\w-]+")
_OF_SHARD = late_pattern(r"databases\.([\w-]+)/([\w-]+)")


Path_ = tuple[str, ...]  # of a key in the flat form of a profile: ("databases", "analytics", "echo")

_Failed = tuple[str, Path_, tuple[Finding, ...]]  # the database, the path in it, and the finding


class Validation:
    """Validates, removes invalid values, and validates the rest, until all problems are known."""

    def __init__(self, tree: MappingNode, name: str, folder: Folder, order: list[str]) -> None:
        self.tree, self.name, self.folder, self.order = tree, name, folder, order
        self.problems: list[Problem] = []
        self.aside: set[Path_] = set()
        self.explained: set[str] = set()  # databases whose missing address is already reported

    def take(self, problems: Iterable[Problem]) -> None:
        """Add problems found earlier; their values are not validated."""
        for problem in problems:
            path = tuple(problem.key.split("."))
            # `password: !abc` is a tag without a value; the tag is the mistake.
            if problem.slug != "empty-value" or path not in self.aside:
                self.problems.append(problem)
            if problem.slug != "duplicate-key":  # the first one counts, and may be wrong too
                self.aside.add(path)

    def run(self) -> AnyProfile:
        taken = {id(problem) for problem in self.problems}  # those have the file's own paths
        self._check_reserved()
        for _ in range(8):  # each round removes something; the checks have fewer stages than this
            databases, failed = self._databases()
            if not failed:
                if self.problems:
                    break
                return LoadedProfile(self.name, databases)
            before = len(self.aside)
            for name, loc, findings in failed:
                for finding in findings:
                    self._note(name, (*loc, *finding.at), finding)
            if len(self.aside) == before:
                break
        once = {
            # A database's problem is reported once, not for each shard that inherits the value.
            (problem.slug, _SHARD.sub(r"\1", problem.message), problem.location): problem
            for problem in reversed(self.problems)
        }
        raise ConfigError(one if id(one) in taken else _as_written(one) for one in once.values())

    def _databases(self) -> tuple[dict[str, DatabaseSettings], list[_Failed]]:
        """Return the valid databases, and the problems of the others.

        Does not use `Profile`, whose imports take longer than everything else.
        """
        found: dict[str, DatabaseSettings] = {}
        failed: list[_Failed] = []
        for name, each in expand(self._data())["databases"].items():
            try:
                found[name] = DatabaseSettings.model_validate(each)
            except ValidationError as error:
                failed += [(name, loc, findings) for loc, findings in found_in(error)]
        return found, failed

    def _check_reserved(self) -> None:
        name = self.tree.get("name")
        if name is not None:
            self._unknown(("name",), name)
            self.aside.add(("name",))
        databases = self.tree.get("databases")
        if ("databases",) in self.aside:
            return
        if databases is not None and not isinstance(databases.node, MappingNode):
            self.problems.append(
                Problem(
                    "wrong-type",
                    "`databases` must be a mapping of names to settings",
                    databases.key,
                    "databases",
                    "write DBCONFIG_DATABASES__NAME__URL" if databases.key.variable else "databases: {name: {url: …}}",
                )
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
                    "`default` is reserved for the profile's own keys",
                    entry.key,
                    "databases.default",
                    "write them at the top of the file",
                )
            )
            self.aside.add(path)
        elif not _DATABASE.fullmatch(key):
            message = f"{quoted(shown_name(key))} is not a valid database name: use letters, digits, `_`, and `-`"
            self.problems.append(Problem("invalid-value", message, entry.key, "databases"))
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
        flat: dict[str, Any] = {
            key: self._kept(entry.node, (key,)) for key, entry in self.tree.entries.items() if (key,) not in self.aside
        }
        named = flat.pop("databases", None)
        if isinstance(named, MappingNode):
            flat["databases"] = {
                key: {
                    name: self._kept(each.node, ("databases", key, name)) for name, each in entry.node.entries.items()
                }
                for key, entry in named.entries.items()
                if isinstance(entry.node, MappingNode) and ("databases", key) not in self.aside
            }
        expanded = expand({**flat, "name": self.name})
        for database, keys in expanded["databases"].items():
            for path in self.aside:
                if path[:2] == ("databases", database) and len(path) > 2 and not _in_replica(path[2:]):
                    keys.pop(path[2], None)
        return expanded

    def _kept(self, node: Node, path: Path_) -> Node:
        """Return the list of replicas without the removed values of each; any other value unchanged."""
        if path[-1] != "replicas" or not isinstance(node, SequenceNode):
            return node
        items: list[Node] = []
        for number, item in enumerate(node.items):
            if isinstance(item, MappingNode):
                here = (*path, str(number))
                kept = {key: entry for key, entry in item.entries.items() if (*here, key) not in self.aside}
                item = replace(item, entries=kept)
            items.append(item)
        return replace(node, items=tuple(items))

    def _note(self, database: str, inside: Path_, finding: Finding) -> None:
        if _in_replica(inside) and self._is_of_primary(database, inside, finding):
            inside = inside[2:]
        own: Path_ = inside if database == DEFAULT else ("databases", database, *inside)
        entry, inherited = self._written(database, inside)
        if not inside:
            self._note_database(database, own, entry, finding)
            return
        within = inside[:2] if _in_replica(inside) else ()
        beneath = (
            finding.because
            and entry is not None
            and not (within and self._is_written(database, (*within, finding.because)))
            and self._is_beneath(entry, inherited, database, finding.because)
        )
        wrong = inside[: 1 if beneath else len(within) + 1]
        self.aside.add(("databases", database, *wrong) if database != DEFAULT else wrong)
        if beneath:
            return
        path = inside if inherited else own
        if finding.slug == "unknown-key" and not finding.message and entry is not None:
            from dbconfig.config.suggestions import stands_for_address

            problem = self._unknown(path, entry)
            if stands_for_address(inside[-1]) or "do not indent" in problem.help:
                self.explained.add(database)
            return
        place = entry.key if entry is not None else Location(self._file())
        key = ".".join(path)
        said = finding.message if finding.message.startswith(("`", "'")) else f"{key}: {finding.message}"
        also = self._against(database, within, finding, entry)
        label = ("this one here" if finding.against else "has no effect here") if also else ""
        self.problems.append(Problem(finding.slug, said, place, key, finding.help, _notes(entry), label, also))

    def _is_of_primary(self, database: str, inside: Path_, finding: Finding) -> bool:
        """Return whether the problem of a replica is inherited from its primary, where it is already reported."""
        (*_, key), replica = inside[:3], inside[:2]
        if any(
            self._is_written(database, (*replica, each)) for each in (key, finding.because, finding.against) if each
        ):
            return False
        return self._is_written(database, (key,))

    def _is_written(self, database: str, inside: Path_) -> bool:
        prefix = () if database == DEFAULT else ("databases", database)
        return self._find((*prefix, *inside))[1] == len(prefix) + len(inside) or (
            database != DEFAULT and len(inside) == 1 and self._find(inside)[1] == 1
        )

    def _against(
        self, database: str, within: Path_, finding: Finding, entry: Entry | None
    ) -> tuple[tuple[Location, str], ...]:
        """Return the location of the other key, if two conflict."""
        other = finding.against or finding.because
        if not other or entry is None:
            return ()
        said = within and self._is_written(database, (*within, other))
        found = self._written(database, (*within, other) if said else (other,))[0]
        words = f"and `{other}` here" if finding.against else "because of this"
        return ((found.key, words),) if found is not None else ()

    def _note_database(self, database: str, path: Path_, entry: Entry | None, finding: Finding) -> None:
        """Report a database without an address."""
        keys = {inside[len(path)] for inside in self.aside if inside[: len(path)] == path and len(inside) > len(path)}
        if database in self.explained or keys & CONNECTION_KEYS:
            return
        place = entry.key if entry is not None else Location(self._file())
        key = ".".join(path)
        if place.variable:  # only DBCONFIG_… refers to it
            databases = self.tree.entries["databases"].node
            others = [each for each in databases if each != database] if isinstance(databases, MappingNode) else []
            gives = f"DBCONFIG_DATABASES__{database.upper()}__URL gives it one"
            help = did_you_mean(suggest(database, others)) or gives
            message = f"no file has a database {quoted(database)}, and {printable(place.variable)} gives it no address"
            self.problems.append(Problem("unknown-database", message, place, printable(key), help))
            return
        said = f"{key}: {finding.message}" if key else finding.message
        self.problems.append(Problem(finding.slug, said, place, key, finding.help))

    def _unknown(self, path: Path_, entry: Entry) -> Problem:
        from dbconfig.config.suggestions import unknown_key

        nested = isinstance(entry.node, MappingNode)
        known = DatabaseSettings.model_fields
        problem = unknown_key(path, entry.key, known, profiles=self.folder.profiles(), nested=nested)
        self.problems.append(problem)
        return problem

    def _written(self, database: str, inside: Path_) -> tuple[Entry | None, bool]:
        """Return where a key of a database is written, and whether that is in the profile's own part."""
        if database == DEFAULT:
            return self._find(inside)[0], False
        entry, depth = self._find(("databases", database, *inside))
        return (self._find(inside)[0], True) if depth < 3 and inside else (entry, False)

    def _is_beneath(self, entry: Entry, inherited: bool, database: str, because: str) -> bool:
        """Return whether a key is in a lower layer than the key that conflicts with it.

        Values of default.yaml, of an extended profile, or of a profile for all its databases need not apply to each of
        them.
        """
        cause, cause_inherited = self._written(database, (because,))
        if cause is None or inherited != cause_inherited:
            return cause is not None and inherited
        return rank(entry, self.order) < rank(cause, self.order)

    def _file(self) -> str:
        return self.folder.shown(self.folder.files()[self.name][0])

    def _find(self, path: Path_) -> tuple[Entry | None, int]:
        """Return the innermost entry on a path and how many of its parts were found."""
        node: Any = self.tree
        found: Entry | None = None
        for depth, part in enumerate(path):
            if isinstance(node, SequenceNode) and part.isdigit() and found is not None:
                node = node.items[int(part)]
                found = Entry(node, node.location)
                continue
            entry = node.get(part) if isinstance(node, MappingNode) else None
            if entry is None:
                return found, depth
            found, node = entry, entry.node
        return found, len(path)


def _as_written(problem: Problem) -> Problem:
    """Return a problem of a shard with its path in the file, `shards.eu` instead of `databases.default/eu`."""
    if shards.SEPARATOR not in problem.key:
        return problem

    def path(match: re.Match[str]) -> str:
        database, name = match[1], match[2]
        return f"{shards.KEY}.{name}" if database == DEFAULT else f"databases.{database}.{shards.KEY}.{name}"

    key = _OF_SHARD.sub(path, problem.key)
    return replace(problem, key=key, message=_OF_SHARD.sub(path, problem.message))


def _in_replica(inside: Path_) -> bool:
    """Return whether a path leads to a key of a replica."""
    return len(inside) > 2 and inside[0] == "replicas" and inside[1].isdigit()


def _notes(entry: Entry | None) -> tuple[str, ...]:
    if entry is None or not isinstance(entry.node, Scalar) or not entry.node.variables or entry.key.variable:
        return ()
    return (f"the value comes from the environment: {', '.join(entry.node.variables)}",)
