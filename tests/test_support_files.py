"""What servers put on the disk: copied from a template, and gone afterwards even if the run was killed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import folders, templates
from tests.support.pgbouncer import pgbouncer
from tests.support.processes import ServerProcess, _table, wait_until
from tests.support.server import ServerMissing
from tests.support.servers import PostgreSQLServer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(folders, "_MEMORY", tmp_path)
    monkeypatch.setattr(folders, "_disk", lambda: tmp_path)
    folders.sweep.cache_clear()
    yield tmp_path
    folders.sweep.cache_clear()


def test_a_run_sweeps_what_a_killed_one_left(temporary: Path) -> None:
    program = "import os; print(os.getpid())"
    dead = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    here = folders._namespace()
    left = temporary / f"dbconfig-{dead}-{here}-abc_defg"
    ours = temporary / f"dbconfig-{os.getpid()}-{here}-abcdefgh"
    others = temporary / "dbconfig-templates-0"
    elsewhere = temporary / f"dbconfig-{dead}-{here + 1}-abcdefgh"  # a container's, where this process may live
    for folder in (left, ours, others, elsewhere):
        (folder / "data").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"], cwd=left / "data") as server:
        made = folders.short_folder(in_memory=False)
        assert server.wait(30) == -9
    assert sorted(temporary.iterdir()) == sorted([ours, others, elsewhere, made])


def test_folders_are_named_after_their_process(postgresql_server: PostgreSQLServer) -> None:
    assert postgresql_server.folder.name.startswith(f"dbconfig-{os.getpid()}-")


def test_a_pgbouncer_leaves_nothing(postgresql: PostgreSQLServer) -> None:
    try:
        with pgbouncer(postgresql) as running:
            assert running.log.exists()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    assert not running.log.parent.exists()


def test_a_pgbouncer_that_does_not_start_leaves_nothing_either(
    postgresql: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerProcess, "start", lambda *_, **__: 1 / 0)
    before = folders_of_this_process()
    try:
        with pytest.raises(ZeroDivisionError), pgbouncer(postgresql):
            pass
    except ServerMissing as missing:
        pytest.skip(str(missing))
    assert folders_of_this_process() == before


def folders_of_this_process() -> set[Path]:
    return {
        folder
        for place in (Path("/dev/shm"), Path(tempfile.gettempdir()))
        for folder in place.glob(f"dbconfig-{os.getpid()}-*")
    }


def test_those_who_need_a_template_at_the_same_time_make_it_once(temporary: Path) -> None:
    made = []

    def make(target: Path) -> None:
        target.mkdir()
        (target / "file").write_text("content")
        made.append(target)

    def start(number: int) -> str:
        templates.copy_of_template("system", "version 1", make, temporary / f"copy{number}")
        return (temporary / f"copy{number}" / "file").read_text()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(start, range(8))) == ["content"] * 8
    assert len(made) == 1


def test_another_version_has_another_template_and_old_ones_go(temporary: Path) -> None:
    def make(target: Path) -> None:
        target.mkdir()

    templates.copy_of_template("system", "version 1", make, temporary / "one")
    (kept,) = temporary.glob("dbconfig-templates-*/system-*")
    long_ago = time.time() - 30 * 24 * 3600
    os.utime(kept, (long_ago, long_ago))
    templates.copy_of_template("system", "version 2", make, temporary / "two")
    (current,) = temporary.glob("dbconfig-templates-*/system-*")
    assert current != kept


def test_a_template_that_failed_half_way_is_made_anew(temporary: Path) -> None:
    def fail(target: Path) -> None:
        target.mkdir()
        (target / "half").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        templates.copy_of_template("system", "version 1", fail, temporary / "one")
    templates.copy_of_template("system", "version 1", lambda target: target.mkdir(), temporary / "two")
    assert list((temporary / "two").iterdir()) == []


@pytest.mark.server
def test_a_killed_run_and_watchdog_leave_a_server_for_the_next_run_to_end() -> None:
    """Everything of the run is killed at once, as when a container's memory runs out."""
    program = f"""if True:
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from tests.support import servers
        server = servers.postgresql()
        print(server.pid, server._process._watchdog.pid, server.folder, flush=True)
        input()"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        line = run.stdout.readline()
        if not line:
            pytest.skip("PostgreSQL is not installed")
        server, watchdog, folder = line.split()
        os.kill(int(watchdog), 9)
        run.kill()
    assert Path(folder).exists()
    folders.sweep.cache_clear()
    folders.sweep()
    assert not Path(folder).exists()
    wait_until(lambda: int(server) not in _table(), "the end of the server")


def test_a_text_that_names_a_system_makes_no_test_one_of_servers() -> None:
    """`.ci/run` repeats what is not marked `server` on other versions: a fixture of all tests must not count."""
    where = "tests/config/test_interpolation.py"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not server", "-p", "no:xdist", where]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "[${NONE:-postgresql}://h/d-postgresql://h/d]" in found
