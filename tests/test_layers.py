"""The layers of the design: what may import what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_no_module_imports_what_stands_above_it(tmp_path: Path) -> None:
    pytest.importorskip("importlinter")
    # In a process of its own: it switches off the loggers of whoever calls it.
    call = f"from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir={str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (ROOT / "dbconfig").rglob("*.py")
    }
    # One docstring for each public verb, in one class: half of the file is documentation. And each key with its text.
    longer = {"dbconfig/registry/registry.py": 680, "dbconfig/settings/keys.py": 400}
    assert {name: lines for name, lines in lengths.items() if lines > longer.get(name, 350)} == {}


def test_the_environment_is_read_in_one_place() -> None:
    users = {path.name for path in (ROOT / "dbconfig").rglob("*.py") if "os.environ" in path.read_text()}
    assert users == {"environment_variables.py", "help_text.py"}  # of which the second asks for COLUMNS alone
    assert os.environ
