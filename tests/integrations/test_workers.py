"""The recipes of examples/workers, each run as its users run it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.conftest import Project
from tests.support.processes import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples/workers"


@pytest.fixture
def workers(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("data", "__pycache__"))
    return Project(tmp_path / "example", {"PYTHONPATH": str(tmp_path / "example")})


@pytest.fixture(params=["development", "postgresql"])
def system(request, workers):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").url()
        workers.environ.update(ENVIRONMENT="postgresql", POSTGRES_URL=url)
    return request.param


def jobs(postgresql):
    """Return how many jobs there were, and the connections by process."""
    rows = postgresql.sql("SELECT process, backend FROM job")
    owners = {}
    for process, backend in rows:
        owners.setdefault(backend, set()).add(process)
    assert all(len(processes) == 1 for processes in owners.values()), "a connection was used by two processes"
    return len(rows), {process for process, _ in rows}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(workers, system, method, request):
    done = workers.run("pool", method, fresh=True)
    assert "processes" in done.stdout, done.stderr
    assert done.returncode == 0
    if system == "postgresql":
        assert jobs(request.getfixturevalue("postgresql"))[0] == 40


def test_celerys_prefork_pool_with_four_children(workers, postgresql):
    pytest.importorskip("celery")
    workers.environ.update(ENVIRONMENT="postgresql", POSTGRES_URL=postgresql.url())
    environ = {**os.environ, **workers.environ}
    command = "-m celery -A celery_app worker --concurrency 4 --loglevel WARNING --without-gossip --without-mingle"
    with open(workers.path / "log", "w") as log:
        worker = subprocess.Popen(
            [sys.executable, *command.split()], cwd=workers.path, env=environ, stdout=log, stderr=log
        )
        try:
            (workers.path / "send.py").write_text(
                "import celery_app\nfor number in range(40): celery_app.run.delay(number)\n"
            )
            assert workers.run("send").returncode == 0
            wait_until(lambda: _count(postgresql) == 40, "forty jobs", timeout=120)
            count, processes = jobs(postgresql)
            assert (count, len(processes) > 1) == (40, True), (workers.path / "log").read_text()
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
    assert "Traceback" not in (workers.path / "log").read_text()


def _count(postgresql):
    try:
        return postgresql.sql("SELECT count(*) FROM job")[0][0]
    except Exception:
        return 0  # the worker has not made the table yet


def test_a_function_that_is_frozen_between_its_calls(workers, postgresql):
    """SIGSTOP is the freeze; meanwhile the server closes the connection."""
    profile = workers.path / "config/postgresql.yaml"
    profile.write_text("url: ${POSTGRES_URL}\npool_size: 1\nmax_overflow: 0\npool_pre_ping: true\n")
    workers.environ.update(ENVIRONMENT="postgresql", POSTGRES_URL=postgresql.url())
    program = """
import sys, jobs, function
jobs.prepare()
for line in sys.stdin:
    print(function.handler({"number": int(line)}, None)["connections"], flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=workers.path,
        env={**os.environ, **workers.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def call():
        process.stdin.write("1\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        assert call() == "1"
        process.send_signal(signal.SIGSTOP)
        assert postgresql.terminate() == 1
        process.send_signal(signal.SIGCONT)
        assert call() == "1"
        assert len(postgresql.connections()) == 1
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def test_a_command_with_typer(workers, system, request):
    pytest.importorskip("typer")
    assert workers.run("command", "add", "3").returncode == 0
    assert workers.run("command", "show").stdout.strip() == "3"
    if system == "postgresql":
        wait_until(lambda: request.getfixturevalue("postgresql").connections() == [], "the end of the connections")


def test_a_notebook_whose_cells_are_run_again(workers):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    done = workers.run("jupyter", "execute", "--inplace", "notebook.ipynb", fresh=True)
    assert done.returncode == 0, done.stderr
    assert nbclient
    cells = nbformat.read(workers.path / "notebook.ipynb", 4).cells
    said = ["".join(output.get("text", "") for output in cell.outputs).strip() for cell in cells]
    assert said == ["1", "True", "2", "True"]
