"""The programs of a parallel run's workers are forked from one process, of which nothing is left when the run ends."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.mutation.probes import FOLDER
from tests.support.interpreter import run_module, run_python, started_python
from tests.support.processes import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it needs /proc")

# What each test of the inner runs can call: `ancestors` of a program are, from its parent on, the server that forked
# it, the process that has imported dbconfig, the one that has not, and the worker's origin or the worker.
CONFTEST = """
import os, pathlib
from tests.support.interpreter import run_python
from tests.support.workers import fork_workers
def pytest_xdist_setupnodes(config, specs):
    fork_workers(config, len(specs))
def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
def ancestors():
    done = run_python(["-c", "import os; print(os.getppid())"], folder=pathlib.Path.cwd(), environ={})
    found = [int(done.stdout)]
    while len(found) < 4:
        found.append(parent(found[-1]))
    return found
"""


def inner(folder: Path, test: str, **environ: str) -> tuple[list[str], dict[str, str]]:
    """Write a test module; return what runs it in two workers, and its environment."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text("import os, pathlib, pytest, signal, time\nfrom conftest import *\n" + test)
    environ |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return ["-m", "pytest", "-p", "xdist", "--numprocesses=2", "-p", "no:cacheprovider", "-v"], environ


def run(folder: Path, test: str, **environ: str) -> str:
    command, environ = inner(folder, test, **environ)
    done = run_python(command, folder=folder, environ=environ)
    return done.stdout + done.stderr


EACH = """
@pytest.mark.parametrize("number", range(2))
def test_each(number):
    pathlib.Path(f"ran-{number}").write_text(" ".join(map(str, [os.getpid(), *ancestors()])))
"""


@pytest.mark.parametrize("environ", [{}, {FOLDER: os.devnull}], ids=["usually", "when executed lines are recorded"])
def test_two_workers_share_it_unless_each_records_what_its_programs_execute(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    assert "2 passed" in (told := run(tmp_path, EACH, **environ)), told
    first, other = ((tmp_path / f"ran-{number}").read_text().split() for number in range(2))
    assert first[:2] != other[:2]  # the workers and their servers
    shared = [mine == theirs for mine, theirs in zip(first, other, strict=True)][2:4]
    assert shared == [not environ, not environ]


GONE = """
from tests.support.interpreter import run_module
from tests.support.processes import wait_until
def test_that_kills_it():
    *_, prototype, origin = ancestors()
    assert origin not in (os.getpid(), prototype)
    os.kill(prototype, signal.SIGKILL)
    wait_until(lambda: " Z " in pathlib.Path(f"/proc/{prototype}/stat").read_text(), "its end")
    assert run_python(["-c", "print('served')"], folder=pathlib.Path.cwd(), environ={}).stdout == "served\\n"
    done = run_module(["pytest", "--version"], folder=pathlib.Path.cwd(), environ={}, timeout=60)
    assert done.returncode == 0, done.stderr
    children = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert len(children) == 1  # one of its own
"""


def test_a_worker_whose_prototype_has_gone_gets_another(tmp_path: Path) -> None:
    assert "1 passed" in (told := run(tmp_path, GONE)), told


KILLED = """
import threading
from tests.support.interpreter import started_python
SLEEPING = "import os, time; print(os.getpid(), flush=True); {}; time.sleep(600)"
@pytest.mark.parametrize("number", range(2))
def test_each(number):
    folder = pathlib.Path.cwd()
    # One that its worker waits for, and one that runs beside it.
    waited = SLEEPING.format(f"open('waited-{number}', 'x').write(str(os.getpid()))")
    found = ancestors()
    with started_python(["-c", SLEEPING.format("pass")], folder=folder, environ={}) as program:
        found += [int(program.stdout.readline()), os.getpid()]
        threading.Thread(target=run_python, args=[["-c", waited]], kwargs={"folder": folder, "environ": {}}).start()
        pathlib.Path(f"all-{number}").write_text(" ".join(map(str, found)))
        time.sleep(600)
"""


def state(pid: str) -> str:
    """Return the letter of a process's state, "" if there is none, as if its parent had noted its end."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if found == "Z" else found


@pytest.mark.parametrize("killed", ["workers", "controller"])
def test_nothing_is_left_when_processes_of_the_run_are_killed(tmp_path: Path, killed: str) -> None:
    command, environ = inner(tmp_path, KILLED)
    with started_python([*command, "--max-worker-restart=0"], folder=tmp_path, environ=environ) as controller:
        names = [f"{kind}-{number}" for kind in ("all", "waited") for number in range(2)]

        def written() -> bool:
            return all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in names)

        wait_until(written, "the programs of the workers", timeout=60)
        found = {pid for name in names for pid in (tmp_path / name).read_text().split()}
        assert len(found) == 11  # two workers, two servers, four programs; for both the two prototypes and the origin
        assert all(map(state, found))
        if killed == "controller":
            os.kill(controller.pid, signal.SIGKILL)
        else:
            for number in range(2):
                os.kill(int((tmp_path / f"all-{number}").read_text().split()[-1]), signal.SIGKILL)
        wait_until(lambda: not any(map(state, found)), f"the end of {found}")


DISPOSITION = "import os, signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"


def test_programs_heed_ctrl_c_and_inherit_no_descriptor(tmp_path: Path) -> None:
    looks = "places = [os.path.realpath(each.path) for each in os.scandir('/proc/self/fd')]"
    expected = "assert not [each for each in places if 'socket:' in each or 'pipe:' in each], places"
    (tmp_path / "test_it.py").write_text(f"{DISPOSITION}\n{looks}\n{expected}\ndef test_it(): ...")
    script = run_python([tmp_path / "test_it.py"], folder=tmp_path, environ={})
    assert (script.stderr, script.returncode) == ("", 0)
    options = ["-s", "-p", "no:faulthandler", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    inside = run_module(["pytest", *options, "test_it.py"], folder=tmp_path, environ=environ, timeout=60)
    assert "1 passed" in inside.stdout, inside.stdout + inside.stderr
