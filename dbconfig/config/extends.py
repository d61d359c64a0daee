"""The layers of a profile: default.yaml and the chain of `extends`."""

from __future__ import annotations

from dbconfig.config.active_profile import near_profile
from dbconfig.config.document import read
from dbconfig.config.folder import Folder
from dbconfig.config.profile_files import SHARED, is_name
from dbconfig.errors import ConfigError
from dbconfig.errors.light_dataclass import replace
from dbconfig.errors.printable import did_you_mean, quoted
from dbconfig.errors.problem import Problem
from dbconfig.settings.located_values import MappingNode, Scalar


def read_layers(folder: Folder, name: str) -> tuple[list[MappingNode], list[Problem]]:
    """Return the documents of a profile, lowest first (default.yaml, what it extends, itself), and their problems."""
    layers: list[MappingNode] = []
    problems: list[Problem] = []
    files = folder.files()
    chain: list[str] = []
    current: str | None = name
    while current is not None:
        chain.append(current)
        root, found = _read(folder, files, current)
        problems += found
        parent = _parent(root, folder, chain, problems)
        layers.append(_without_extends(root))
        current = parent
    if SHARED in files:
        root, found = _read(folder, files, SHARED)
        problems += found
        if root.get("extends") is not None:
            problems.append(
                Problem(
                    "invalid-value",
                    f"{SHARED}.yaml cannot have `extends`: every profile already builds on it",
                    root.entries["extends"].key,
                    "extends",
                    "remove it",
                )
            )
        layers.append(_without_extends(root))
    return layers[::-1], problems


def _read(folder: Folder, files: dict[str, list[str]], name: str) -> tuple[MappingNode, list[Problem]]:
    candidates = files[name]
    if len(candidates) > 1:
        both = " and ".join(folder.shown(file) for file in candidates)
        raise ConfigError(
            [
                Problem(
                    "given-twice",
                    f"profile {quoted(name)} has two files, {both}: it is unclear which one to use",
                    help="keep one of them",
                )
            ]
        )
    found: tuple[MappingNode, list[Problem]] | None = folder.documents.get(name)
    if found is None:
        found = folder.documents[name] = read(folder.path / candidates[0], folder.shown(candidates[0]))
    return found


def _parent(root: MappingNode, folder: Folder, chain: list[str], problems: list[Problem]) -> str | None:
    entry = root.get("extends")
    if entry is None:
        return None
    value = entry.node.value if isinstance(entry.node, Scalar) else None
    known = folder.profiles()
    if not isinstance(value, str) or not is_name(value):
        problems.append(
            Problem(
                "wrong-type",
                "`extends` must be the name of a profile (text), not a path",
                entry.key,
                "extends",
                f"profiles: {', '.join(known)}",
            )
        )
    elif value in chain:
        circle = " → ".join([*chain[chain.index(value) :], value])
        problems.append(
            Problem(
                "extends-cycle",
                f"`extends` forms a cycle: {circle}",
                entry.key,
                "extends",
                "remove `extends` from one of them",
            )
        )
    elif value not in known:
        near = near_profile(value, known)
        help = did_you_mean(near) or f"profiles: {', '.join(known)}"
        if value == SHARED:
            help = f"remove it: every profile builds on {SHARED}.yaml"
        problems.append(
            Problem(
                "unknown-profile",
                f"`extends` names a profile that does not exist: {quoted(value)}",
                entry.key,
                "extends",
                help,
            )
        )
    else:
        return value
    return None


def _without_extends(root: MappingNode) -> MappingNode:
    """Return the settings, without `extends` and the editor's `$schema`."""
    return replace(
        root, entries={key: entry for key, entry in root.entries.items() if key not in ("extends", "$schema")}
    )
