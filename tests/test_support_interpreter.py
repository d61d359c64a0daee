"""A forked interpreter is what `python -m` is: its arguments, its folder, its environment, its end."""

import subprocess
from pathlib import Path

import pytest

from tests.support.interpreter import run_module

PROGRAM = """
import atexit, os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("WORD"), __name__, "dbconfig" in sys.modules, "tests" in sys.modules)
print("a complaint", file=sys.stderr)
atexit.register(print, "the end")
"""


def test_it_runs_a_module_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_module(["program", "one", "two"], folder=tmp_path, environ={"WORD": "x"}, timeout=60)
    assert done.stdout == f"['one', 'two'] {tmp_path} x __main__ False False\nthe end\n"
    assert (done.returncode, done.stderr) == (0, "a complaint\n")


@pytest.mark.parametrize(
    ("program", "code", "told"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("raise SystemExit('a word')", 1, "a word"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_its_end_is_told(tmp_path: Path, program: str, code: int, told: str) -> None:
    (tmp_path / "program.py").write_text(program)
    done = run_module(["program"], folder=tmp_path, environ={}, timeout=60)
    assert done.returncode == code
    assert told in done.stderr


def test_a_module_that_is_missing_is_named(tmp_path: Path) -> None:
    done = run_module(["no_such_program"], folder=tmp_path, environ={}, timeout=60)
    assert "No module named no_such_program" in done.stderr
    assert done.returncode == 1


def test_it_ends_at_its_time(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired) as ended:
        run_module(["program"], folder=tmp_path, environ={}, timeout=2)
    assert ended.value.output == "begun\n"


def test_a_program_finds_packages_of_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/found.py").write_text("word = 'found'")
    (tmp_path / "program.py").write_text("import found; print(found.word)")
    done = run_module(["program"], folder=tmp_path, environ={"PYTHONPATH": str(tmp_path / "elsewhere")}, timeout=60)
    assert done.stdout == "found\n"
