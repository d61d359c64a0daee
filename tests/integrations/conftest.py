"""Projects of a user: a folder with profiles and files, whose programs run in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.interpreter import run_module

SYSTEMS = ("sqlite-file", "sqlite-memory", "postgresql", "mariadb")


@dataclass
class Project:
    """A folder of a user's."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            place = self.path / name.replace("__", "/").replace("_py", ".py").replace("_yaml", ".yaml").replace(
                "_ini", ".ini"
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def run(self, *command: str, timeout: float = 300, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `python -m COMMAND`; `fresh`: in an interpreter that has imported nothing."""
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ENVIRONMENT"))},
            **self.environ,
        }
        if not fresh:
            return run_module(command, folder=self.path, environ=environ, timeout=timeout)
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def pytest(self, *options: str, asyncio: bool = False, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        """Run its tests, with pytest-asyncio or without."""
        mode = ("-o", "asyncio_default_fixture_loop_scope=function") if asyncio else ("-p", "no:asyncio")
        # Importing hypothesis takes as long as all the rest of a short run.
        without = [part for name in ("cacheprovider", "randomly", "hypothesispytest") for part in ("-p", f"no:{name}")]
        return self.run("pytest", "-q", *without, *mode, *options, fresh=fresh)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., str]:
    """Return the URL of an empty database of a system, whose user may make further ones."""

    def url(system: str, drivername: str | None = None) -> str:
        if system == "sqlite-file":
            return "sqlite:///data/app.db"
        if system == "sqlite-memory":
            return "sqlite://"
        server = request.getfixturevalue(system)
        if system == "postgresql":
            server.sql("ALTER ROLE app CREATEDB")
        else:
            server.sql(r"GRANT ALL ON `test\_%`.* TO `app`@`%`")
        return str(server.url(drivername))

    return url
