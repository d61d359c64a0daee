"""The tutorial is followed to the letter, in an empty folder with an empty HOME."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT, blocks
from tests.support.interpreter import run_python

PAGE = ROOT / "docs" / "tutorial.md"
TITLES = dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE))


def matches(expected: str, output: str) -> bool:
    """Whether an output is the one that is shown, where `…` stands for anything; long times leave fewer blanks."""
    expected, output = (re.sub(" +", " ", text) for text in (expected, output))
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None


def commands(text: str) -> list[tuple[str, str]]:
    """Return each command of a console block, and the output that is shown beneath it."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", text, re.MULTILINE)
    return [(command, shown) for command, shown in found]


def typed(command: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would; a program of this environment without starting an interpreter."""
    name, *arguments = shlex.split(command)
    script = Path(sys.executable).parent / name
    if script.is_file() and not set("|&;<>$*`") & set(command):
        return run_python([script, *arguments], folder=folder, environ=env, timeout=250)
    return subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=250)


def test_the_tutorial_works_from_its_first_command_to_its_last(tmp_path: Path) -> None:
    for package in ("fastapi", "alembic"):
        pytest.importorskip(package)
    project = tmp_path / "project"
    project.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not re.match(r"DBCONFIG_|ENVIRONMENT|DATABASE_URL", name)
    }
    env = kept | {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # The project's tests need what a user has installed, and not this suite's own plugins.
    env |= {
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:asyncio -p no:randomly -p no:xdist -p no:hypothesispytest",
        "NO_COLOR": "1",
    }
    ran = 0
    for block in blocks(PAGE):
        if block.reason:
            continue
        if block.language == "python":
            place = next(title for title, text in TITLES.items() if text == block.text)
            if place.startswith("shown: "):
                assert block.text in (project / place.removeprefix("shown: ")).read_text()
            else:
                (project / place).write_text(block.text)
            continue
        for command, shown in commands(block.text):
            done = typed(command, project, env)
            output = done.stdout + done.stderr
            assert matches(shown, output), f"{block}: $ {command}\n{output}\n--- expected\n{shown}"
            ran += 1
    assert ran >= 10
    assert (project / "data" / "development.db").is_file()
