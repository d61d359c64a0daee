"""The folder `config/`: where it is, and which files it contains."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dbconfig.errors import ConfigError, printable
from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem

FOLDER: Final = "config"
UNSET: Final = "development"  # the profile where ENVIRONMENT is not set


SHARED: Final = "default"  # the file that all profiles are laid over


NAME = late_pattern(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


_ENDINGS = (".yaml", ".yml")


_PROJECT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


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
            if ending in _ENDINGS and NAME.fullmatch(stem):
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
                f"no `{FOLDER}` folder with YAML files was found",
                help=f"run `dbconfig init`, or make {FOLDER}/{UNSET}.yaml with `url: sqlite:///data/app.db`",
                notes=notes,
            )
        ]
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
