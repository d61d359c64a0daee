"""A forked interpreter is what `python` is: its arguments, its folder, its environment, its input, its end."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.interpreter import run_module, run_python, started_python

PROGRAM = """
import atexit, os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("WORD"), __name__, "tests" in sys.modules)
print("a complaint", file=sys.stderr)
atexit.register(print, "the end")
"""


def test_it_runs_a_module_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_module(["program", "one", "two"], folder=tmp_path, environ={"WORD": "x"}, timeout=60)
    assert done.stdout == f"['one', 'two'] {tmp_path} x __main__ False\nthe end\n"
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


def test_it_runs_a_script_from_another_folder_and_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/found.py").write_text("word = 'found'")
    script = tmp_path / "programs/program.py"
    script.write_text("import found, os, sys; print(found.word, __name__, __file__, sys.argv, os.getcwd())")
    done = run_python([script, "one"], folder=tmp_path, environ={})
    assert done.stdout == f"found __main__ {script} {[str(script), 'one']} {tmp_path}\n", done.stderr


def test_it_runs_code_with_its_input(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv, input(), sys.stdin.read())"
    done = run_python(["-c", code, "one"], folder=tmp_path, environ={}, stdin="ä\ntwo\n")
    assert done.stdout == "['-c', 'one'] ä two\n\n", done.stderr


WARNED = """
import gc, os, threading, time, warnings
def late(): time.sleep(0.05); print("the thread has ended")
threading.Thread(target=late).start()
class Forgotten:
    def __del__(self): print("collected")
forgotten = Forgotten(); forgotten.itself = forgotten; del forgotten
{0}
"""


def test_threads_end_first_and_what_was_forgotten_is_collected(tmp_path: Path) -> None:
    done = run_python(["-c", WARNED.format("")], folder=tmp_path, environ={})
    assert (done.stdout, done.returncode) == ("the thread has ended\ncollected\n", 0)


@pytest.mark.parametrize(("options", "code"), [((), 0), (("-W", "error"), 1)])
def test_warnings_are_errors_if_asked_for(tmp_path: Path, options: tuple[str, ...], code: int) -> None:
    warn = "warnings.warn('a word of warning', UserWarning)"
    done = run_python([*options, "-c", WARNED.format(warn)], folder=tmp_path, environ={})
    assert "a word of warning" in done.stderr
    assert done.returncode == code


def test_a_traceback_begins_with_the_program(tmp_path: Path) -> None:
    done = run_python(["-c", "def f(): 1 / 0\nf()"], folder=tmp_path, environ={})
    assert done.stderr.splitlines()[1] == '  File "<string>", line 2, in <module>'


PARALLEL = """
import os, signal, sys
import pytest
def test_where_it_runs():
    assert os.environ["WORD"] == "set by the controller"
    assert os.environ["PYTEST_XDIST_WORKER"].startswith("gw")
    assert "given" in sys.modules  # by its own conftest.py
def test_what_fails(): assert 1 == 2
def test_what_dies():
    os.kill(os.getpid(), signal.SIGKILL)
@pytest.mark.parametrize("number", range(8))
def test_the_rest(number): ...
"""


def test_the_workers_of_a_parallel_pytest_are_as_fresh_as_those_that_execnet_starts(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "given.py").touch()
    (tmp_path / "test_it.py").write_text(PARALLEL)
    (tmp_path / "conftest.py").write_text(
        """
import os
import given
def pytest_configure(config):
    if not hasattr(config, "workerinput"): os.environ["WORD"] = "set by the controller"
"""
    )
    command = ["pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly"]
    done = run_module(command, folder=tmp_path, environ={"PATH": os.environ["PATH"]}, timeout=120)
    assert "2 failed, 9 passed" in done.stdout, done.stdout + done.stderr
    assert "assert 1 == 2" in done.stdout
    assert "crashed while running 'test_it.py::test_what_dies'" in done.stdout  # and another one ran the rest


def test_programs_that_are_started_run_side_by_side_until_they_end_or_are_signalled(tmp_path: Path) -> None:
    program = "import sys; print('up', flush=True); print(sys.argv[1], file=sys.stderr); import time; time.sleep({})"
    environ = {"PATH": os.environ["PATH"]}
    with (
        started_python(["-c", program.format(600), "one"], folder=tmp_path, environ=environ) as first,
        started_python(["-c", program.format(0), "two"], folder=tmp_path, environ=environ) as second,
    ):
        assert second.communicate(60) == ("up\n", "two\n")
        assert second.returncode == 0
        assert first.stdout.readline() == "up\n"
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        output, errors = first.communicate(60)
        assert output == ""
        assert errors.startswith("one\n")
        assert "KeyboardInterrupt" in errors
        assert first.returncode != 0


def test_a_started_program_does_not_outlive_its_block(tmp_path: Path) -> None:
    with started_python(["-c", "import time; time.sleep(600)"], folder=tmp_path, environ={}) as program:
        assert program.poll() is None
    assert program.returncode == -signal.SIGKILL


def test_warnings_are_filtered_as_the_options_say_in_their_order(tmp_path: Path) -> None:
    options = ["-W", "error", "-W", "ignore:of no:UserWarning"]
    code = "import warnings; warnings.warn('of no interest'); warnings.warn('of interest')"
    done = run_python([*options, "-c", code], folder=tmp_path, environ={})
    assert done.returncode == 1
    assert done.stderr.endswith("UserWarning: of interest\n")


WHOLE = """
import atexit, sys
class Noisy:
    def __del__(self): print("taken apart", flush=True)
kept = Noisy()
kept.itself = kept
atexit.register(print, "the end", flush=True)
sys.exit(3)
"""


@pytest.mark.parametrize(("whole", "told"), [(False, "the end\n"), (True, "the end\ntaken apart\n")])
def test_a_whole_end_takes_apart_what_the_program_has_made(tmp_path: Path, whole: bool, told: str) -> None:
    done = run_python(["-c", WHOLE], folder=tmp_path, environ={}, whole=whole)
    assert (done.returncode, done.stdout, done.stderr) == (3, told, "")
