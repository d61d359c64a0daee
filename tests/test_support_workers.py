"""The workers of a parallel run find the tests imported, and are otherwise as xdist starts them."""

import os
import re
from pathlib import Path

import pytest

from tests.support.interpreter import run_python

pytest.importorskip("xdist")

TESTS = """
import os, pathlib, pytest
with open("imported", "a") as file:
    print(os.getpid(), os.getppid(), file=file)
@pytest.mark.parametrize("number", range(20))
def test_each(number, tmp_path):
    pathlib.Path(f"ran-{number}").write_text(f"{os.getpid()} {os.environ['PYTEST_XDIST_WORKER']} {tmp_path}")
"""
CONFTEST = """
from tests.support.workers import fork_workers
import os
def pytest_xdist_setupnodes(config, specs):
    with open("controller", "w") as file:
        file.write(str(os.getpid()))
    fork_workers(config, len(specs))
"""


def run(folder: Path, *arguments: str) -> str:
    """Run the tests of a folder in two workers; return what is printed."""
    (folder / "conftest.py").write_text(CONFTEST)
    command = ["-m", "pytest", "-p", "xdist", "--numprocesses=2", "-p", "no:cacheprovider", *arguments]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = run_python(command, folder=folder, environ=environ)
    return done.stdout + done.stderr


def imports(folder: Path) -> list[tuple[str, ...]]:
    """Return the numbers of the processes that have imported the tests, and of their parents."""
    return [tuple(line.split()) for line in (folder / "imported").read_text().splitlines()]


def test_the_tests_are_imported_once_for_all_workers(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    assert "20 passed" in (told := run(tmp_path, "test_it.py::test_each", "-m", "not other")), told
    ((origin, _),) = imports(tmp_path)
    ran = [(tmp_path / f"ran-{number}").read_text().split() for number in range(20)]
    assert len({(pid, worker) for pid, worker, _ in ran}) == 2
    assert origin not in {pid for pid, _, _ in ran}
    assert all(f"popen-{worker}" in path for _, worker, path in ran)


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS + "def test_that_ends_its_worker(): os._exit(3)")
    told = run(tmp_path)
    assert "1 failed, 20 passed" in told, told
    assert "crashed while running 'test_it.py::test_that_ends_its_worker'" in told
    assert len(imports(tmp_path)) == 2


def test_what_cannot_be_imported_is_reported(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import nothing_of_this_name")
    told = run(tmp_path)
    assert re.search("ERROR collecting test_it.py.*nothing_of_this_name", told, re.DOTALL), told


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_where_that_process_ends_early_xdist_starts_its_own_workers(tmp_path: Path, end: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_first.py").write_text(f"import os, signal, sys\nif 'ends' in sys.argv[-1]: {end}")
    assert "20 passed" in (told := run(tmp_path)), told
    controller = (tmp_path / "controller").read_text()
    assert [parent for _, parent in imports(tmp_path)] == [controller] * 2
