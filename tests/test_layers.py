"""The layers of the design: what may import what."""

import os
import subprocess
import sys
import tomllib
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


def test_every_module_has_its_place_in_the_layers() -> None:
    """Otherwise a new module could import anything."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    placed = {name.strip() for layer in layers for name in layer.replace("(", "").replace(")", "").split(":")}
    package = ROOT / "dbconfig"
    found = {
        f"dbconfig.{path.stem}"
        for path in package.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and not path.name.startswith("__")
    }
    assert found - placed == set()


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (ROOT / "dbconfig").rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_the_environment_is_read_in_one_place() -> None:
    users = [path.name for path in (ROOT / "dbconfig").rglob("*.py") if "os.environ" in path.read_text()]
    assert users == ["environment.py"]
    assert os.environ
