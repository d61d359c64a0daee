"""The layers of the design: what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dbconfig.settings.known_drivers import DRIVERS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dbconfig"
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_no_module_imports_what_stands_above_it(tmp_path: Path) -> None:
    pytest.importorskip("importlinter")
    # In a process of its own: it switches off the loggers of whoever calls it.
    call = f"from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir={str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_house_has_few_rooms() -> None:
    assert len(sorted(path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or _is_package(path))) <= 12


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").exists()


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    # One docstring for each public verb, in one class: half of the file is documentation.
    longer = {"dbconfig/registry/registry.py": 680}
    assert {name: lines for name, lines in lengths.items() if lines > longer.get(name, 350)} == {}


def test_no_function_is_longer_than_can_be_read_at_once() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 45
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("os.environ", "settings/environment_variables.py cli/help_text.py"),  # of which the second asks for COLUMNS
        ("os.register_at_fork(", "engine/pool/forks.py"),
        ("import random", "engine/pool/chance.py"),
        ("get_close_matches(", "errors/printable.py"),
        ("sys._getframe", "engine/pool/diagnostics engine/slow_statements.py"),  # each asks `application_frames`
        ("def application_frames", "engine/pool/diagnostics/call_sites.py"),
    ],
)
def test_what_is_done_in_one_place_is_done_nowhere_else(what: str, where: str) -> None:
    users = [str(path.relative_to(PACKAGE)) for path in MODULES if what in path.read_text()]
    assert users
    assert [user for user in users if not user.startswith(tuple(where.split()))] == []


def test_nothing_outside_the_dialects_asks_for_a_drivers_name() -> None:
    """What a driver can do stands in the table of drivers, or in the driver's own file behind the protocol."""
    names = {driver.name for drivers in DRIVERS.values() for driver in drivers}
    names |= {driver.module for drivers in DRIVERS.values() for driver in drivers} - {"sqlite3"}
    found = []
    for path in MODULES:
        place = str(path.relative_to(PACKAGE))
        if place.startswith("engine/dialects/") or place == "settings/known_drivers.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                written = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Import):
                written = {alias.name.partition(".")[0] for alias in node.names}
            else:  # of `postgresql+asyncpg` the last part
                written = (
                    {str(getattr(node, "value", "")).rpartition("+")[2]} if isinstance(node, ast.Constant) else set()
                )
            found += [f"{place}:{getattr(node, 'lineno', 0)}: {name}" for name in sorted(written & names)]
    assert found == []
