"""Which profile, and which files make it: ENVIRONMENT, the configuration folder, `default.yaml`, `extends`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dbconfig.document import read
from dbconfig.environment import Environment
from dbconfig.errors import ConfigError, Location, Problem, ProfileNotFound, printable, quoted
from dbconfig.nodes import MappingNode, Scalar
from dbconfig.redaction import shown_name

FOLDER: Final = "config"
SHARED: Final = "default"  # the file that all profiles are laid over
VARIABLE: Final = "ENVIRONMENT"
UNSET: Final = "development"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_ENDINGS = (".yaml", ".yml")
_PROJECT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


@dataclass(frozen=True, slots=True)
class Selection:
    """A profile's name, and why it was taken."""

    name: str
    reason: str
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of profiles, one YAML file each."""

    path: Path

    @property
    def project(self) -> Path:
        return self.path.absolute().parent

    @property
    def dotenv(self) -> Path:
        return self.project / ".env"

    def shown(self, name: str = "") -> str:
        """Return the folder, or a file in it, as it is named in messages."""
        return shown_path(self.path.absolute() / name if name else self.path.absolute())

    def files(self) -> dict[str, list[str]]:
        """Return the file names of each profile, `default` included; more than one is an ambiguity."""
        found: dict[str, list[str]] = {}
        for file in sorted(_listed(self)):
            stem, ending = os.path.splitext(file)
            if ending in _ENDINGS and _NAME.fullmatch(stem):
                found.setdefault(stem, []).append(file)
        return found

    def profiles(self) -> list[str]:
        return [name for name in self.files() if name != SHARED]


def shown_path(path: Path) -> str:
    """Return a path as it is named in messages: relative where it lies below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def find_folder(path: str | os.PathLike[str] | None = None) -> Folder:
    """Return the configuration folder.

    Without a path: `config/` beside or above the running script, else in or above the working directory, up to the
    top of the project.

    Raises:
        ConfigError: there is none; the notes list the places looked at.
    """
    if path is not None:
        folder = Folder(Path(path))
        if not folder.path.is_dir():
            what = "is a file, not a folder" if folder.path.exists() else "does not exist"
            raise ConfigError(
                [
                    Problem(
                        "no-config",
                        f"the config folder {quoted(str(path))} {what}",
                        help="pass the folder that holds development.yaml and the other profiles",
                    )
                ]
            )
        return folder
    tried: list[Path] = []
    for start in _starts():
        for place in _upwards(start):
            if place / FOLDER not in tried:
                tried.append(place / FOLDER)
                if any(child.suffix in _ENDINGS for child in _children(place / FOLDER)):
                    return Folder(place / FOLDER)
    notes = tuple(f"looked for {printable(str(place), 200)}" for place in tried)
    raise ConfigError(
        [
            Problem(
                "no-config",
                f"there is no `{FOLDER}` folder with YAML files in it: not found",
                help=f"make {FOLDER}/{UNSET}.yaml with `url: sqlite:///data/app.db`",
                notes=notes,
            )
        ]
    )


def select(profile: str | None, environment: Environment, folder: Folder) -> Selection:
    """Return the profile to load: the argument, else ENVIRONMENT, else `development`.

    Raises:
        ProfileNotFound: the name is no profile's; the notes say where it came from and which exist.
    """
    variable = environment.get(VARIABLE) if profile is None else None
    if profile is not None:
        selection = Selection(profile, "argument")
    elif variable is not None:
        selection = Selection(variable.value, str(variable.location), variable.location)
    else:
        selection = Selection(UNSET, f"{VARIABLE} is not set: {UNSET}")
    _check_name(selection, folder)
    return selection


def _check_name(selection: Selection, folder: Folder) -> None:
    name, known = selection.name, folder.profiles()
    listed = ", ".join(known) if known else "none"
    origin = {"argument": "the name was given by the caller; ENVIRONMENT is not looked at"}.get(
        selection.reason, f"the name comes from {selection.reason}"
    )
    notes = (origin, f"profiles in {folder.shown()}: {listed}")
    if not name.strip():
        problem = Problem(
            "profile-name",
            f"{'the name' if selection.reason == 'argument' else VARIABLE} is empty: blank is no profile",
            selection.location,
            VARIABLE,
            f"unset it for {UNSET}, or name a profile",
            notes,
        )
        raise ProfileNotFound([problem])
    near = _near(name, known)
    help = f"did you mean {near!r}?" if near else ""
    key = VARIABLE if selection.location is not None else ""
    if not _NAME.fullmatch(name) or name == SHARED:
        message = f"{quoted(shown_name(name))} cannot be a profile's name: letters, digits, `_` and `-`, not `{SHARED}`"
        raise ProfileNotFound([Problem("profile-name", message, selection.location, key, help, notes)])
    if name not in known:
        raise ProfileNotFound(
            [
                Problem(
                    "unknown-profile",
                    f"there is no profile {quoted(name)}",
                    selection.location,
                    key,
                    help or f"make {folder.shown(name + '.yaml')}",
                    notes,
                )
            ]
        )


def _near(name: str, known: list[str]) -> str:
    """Return the profile that was probably meant: a near miss, or what `prod`, `dev` and `test` are short for."""
    bare = name.strip().lower()
    near = get_close_matches(bare, known, 1, 0.6)
    longer = [each for each in known if len(bare) > 1 and each.lower().startswith(bare)]
    return next(iter(near or longer), "")


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
                    f"{SHARED}.yaml extends nothing: every profile is laid over it",
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
                    f"profile {quoted(name)} has two files, both {both}: which one counts is ambiguous",
                    help="keep the .yaml",
                )
            ]
        )
    return read(folder.path / candidates[0], folder.shown(candidates[0]))


def _parent(root: MappingNode, folder: Folder, chain: list[str], problems: list[Problem]) -> str | None:
    entry = root.get("extends")
    if entry is None:
        return None
    value = entry.node.value if isinstance(entry.node, Scalar) else None
    known = folder.profiles()
    if not isinstance(value, str) or not _NAME.fullmatch(value):
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
                f"`extends` goes in a circle (a cycle): {circle}",
                entry.key,
                "extends",
                "end it at one profile",
            )
        )
    elif value not in known:
        near = _near(value, known)
        help = f"did you mean {near!r}?" if near else f"profiles: {', '.join(known)}"
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
    """Return what is settings: `extends` is followed, and `$schema` is the editor's."""
    return replace(
        root, entries={key: entry for key, entry in root.entries.items() if key not in ("extends", "$schema")}
    )


def _listed(folder: Folder) -> list[str]:
    try:
        return os.listdir(folder.path)
    except OSError as error:
        raise ConfigError(
            [
                Problem(
                    "file-unreadable", f"the config folder {quoted(str(folder.path))} cannot be read: {error.strerror}"
                )
            ]
        ) from None


def _children(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []  # not there, or not ours to look into: not the folder we search


def _starts() -> Iterator[Path]:
    """Yield where to look from: the script that runs, which belongs to its project, then the working directory."""
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    # `python -m tool` and the commands of a virtual environment are tools; the project is where they are run.
    if script and getattr(main, "__spec__", None) is None:
        place = Path(os.path.abspath(script)).parent  # not `absolute()`, which keeps the `..` of ../.venv/bin/tool
        if not any(place.is_relative_to(prefix) for prefix in {sys.prefix, sys.base_prefix}):
            yield place
    try:
        yield Path.cwd()
    except OSError:
        return  # the working directory was removed


def _upwards(start: Path) -> Iterator[Path]:
    for place in (start, *start.parents):
        yield place
        if any((place / mark).exists() for mark in _PROJECT_MARKS):
            return
