"""The folder `config/`: where it is, and which files it contains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from dbconfig.config import profile_files
from dbconfig.config.profile_files import FOLDER, SHARED
from dbconfig.errors import ConfigError
from dbconfig.errors.light_dataclass import dataclass, field
from dbconfig.errors.printable import printable, quoted
from dbconfig.errors.problem import Problem

UNSET: Final = "development"  # the profile if ENVIRONMENT is not set


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of profiles, one YAML file each, read at first use.

    Attributes:
        path: of the folder.
        documents: the parsed files by name, cached because all profiles build on the same `default.yaml`.
    """

    path: Path
    documents: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    _files: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def project(self) -> Path:
        return self.path.absolute().parent

    @property
    def dotenv(self) -> Path:
        return self.project / ".env"

    def shown(self, name: str = "") -> str:
        """Return the name of the folder, or of a file in it, for messages."""
        return shown_path(self.path.absolute() / name if name else self.path.absolute())

    def files(self) -> dict[str, list[str]]:
        """Return the file names of each profile, `default` included; more than one is an ambiguity."""
        try:
            if not self._files:
                self._files.update(profile_files.by_profile(os.fspath(self.path)))
            return self._files
        except OSError as error:
            message = f"the config folder {quoted(str(self.path))} cannot be read: {error.strerror}"
            raise ConfigError([Problem("file-unreadable", message)]) from None

    def profiles(self) -> list[str]:
        return [name for name in self.files() if name != SHARED]


def shown_path(path: Path) -> str:
    """Return a path for messages: relative if it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def find_folder(path: str | os.PathLike[str] | None = None) -> Folder:
    """Return the configuration folder.

    Without a path: `config/` beside or above the running script, else in or above the working directory, up to the
    top of the project.

    Raises:
        ConfigError: it was not found; the notes list the places searched.
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
    found, tried = profile_files.find()
    if found is not None:
        return Folder(Path(found))
    notes = tuple(f"looked for {printable(place, 200)}" for place in tried)
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
