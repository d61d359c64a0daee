"""A project of a test: a folder with `config/`, loaded as an application would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dbconfig import ConfigError, DatabaseSettings, Problem, Profile, load

Files = str | bytes | Mapping[str, str | bytes]


class Project:
    """Writes profiles and loads them; a lone text is `config/development.yaml`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config"
        self.config.mkdir(exist_ok=True)

    def write(self, files: Files) -> Path:
        """Write files, named from `config/`; a name that begins with `../` is beside it."""
        for name, content in ({"development.yaml": files} if isinstance(files, (str, bytes)) else files).items():
            path = self.config / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.config

    def load(self, files: Files, environ: Mapping[str, str] | None = None, profile: str | None = None) -> Profile:
        return load(profile, path=self.write(files), environ=environ or {})

    def settings(
        self,
        files: Files,
        environ: Mapping[str, str] | None = None,
        profile: str | None = None,
        database: str = "default",
    ) -> DatabaseSettings:
        return self.load(files, environ, profile).databases[database]

    def refuse(self, files: Files, environ: Mapping[str, str] | None = None, profile: str | None = None) -> ConfigError:
        """Return the error of a configuration that must not load."""
        with pytest.raises(ConfigError) as caught:
            self.load(files, environ, profile)
        assert caught.value.__context__ is None, "the context of an error can hold what it must not show"
        return caught.value

    def problem(self, files: Files, environ: Mapping[str, str] | None = None, profile: str | None = None) -> Problem:
        """Return the only problem of a configuration that must not load."""
        (problem,) = self.refuse(files, environ, profile).problems
        return problem


def told(error: ConfigError) -> list[tuple[str, str, str]]:
    """Return kind, place and key of each problem."""
    return [(problem.slug, str(problem.location or ""), problem.key) for problem in error.problems]
