"""examples/fastapi_app under the servers that its users run, on three databases."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import pytest
from sqlmodel import Field

from tests.integrations.conftest import Project
from tests.support.ports import free_port
from tests.support.processes import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples/fastapi_app"
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "--workers", "2", "--log-level", "warning", "--port", "{port}", "app.main:app"],
    "gunicorn": [
        *("-m", "gunicorn", "--preload", "-w", "2", "-k", "uvicorn.workers.UvicornWorker", "--log-level", "warning"),
        *("-b", "127.0.0.1:{port}", "app.main:app"),
    ],
}
SYSTEMS = ("sqlite", "postgresql", "mariadb")


@pytest.fixture
def example(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("data", "__pycache__"))
    return Project(tmp_path / "example", {"PASSWORD_ROUNDS": "10"})


@pytest.fixture
def profile(example, url_of):
    """Let the example use a system by ENVIRONMENT, and nothing else."""

    def use(system):
        if system != "sqlite":
            variable = {"postgresql": "POSTGRES_URL", "mariadb": "MARIADB_URL"}[system]
            example.environ.update({"ENVIRONMENT": system, variable: url_of(system)})
        return example

    return use


@contextmanager
def serving(project, server):
    port = free_port()
    command = [sys.executable, *(part.format(port=port) for part in SERVERS[server])]
    environ = {**os.environ, **project.environ}
    with open(project.path / "log", "w+") as log:
        process = subprocess.Popen(
            command, cwd=project.path, env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(port, process, project.path / "log")
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        text = (project.path / "log").read_text()
        assert "Traceback" not in text, text


def wait_for(port, process, log):
    def listens():
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, "the server", timeout=120)


def call(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        data = json.dumps(body) if body is not None else None
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


@pytest.mark.parametrize("server", list(SERVERS))
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_runs_with_two_workers(profile, system, server):
    project = profile(system)
    with serving(project, server) as port:
        account = {"email": "ada@example.org", "password": "correct horse"}
        assert call(port, "POST", "/users", account)[0] == 201
        token = call(port, "POST", "/login", account)[1]["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        for number in range(10):
            assert call(port, "POST", "/items", {"title": f"item {number}"}, bearer)[0] == 201
        assert call(port, "GET", "/items", headers=bearer)[1]["count"] == 10
        assert call(port, "GET", "/health/db") == (200, {"status": "ok", "databases": {"default": "ok"}})


@pytest.mark.skipif("ondelete" not in signature(Field).parameters, reason="its models need a newer SQLModel")
@pytest.mark.parametrize("system", SYSTEMS)
def test_its_own_tests_pass(profile, system):
    project = profile(system)
    project.environ.pop("ENVIRONMENT", None)
    done = project.pytest(*(["--db-profile", system] if system != "sqlite" else []))
    assert "6 passed" in done.stdout, done.stdout + done.stderr


def test_a_client_that_goes_away_leaves_no_open_transaction(profile, postgresql):
    project = profile("postgresql")
    with (project.path / "app/main.py").open("a") as file:
        file.write(
            """

import time
from sqlalchemy import text
from dbconfig.integrations.fastapi import AsyncTransactionDep, TransactionDep

@app.post("/slow")
def slow(session: TransactionDep) -> None:
    session.connection().execute(text("SELECT pg_sleep(3)"))

@app.post("/slow-async")
async def slow_async(session: AsyncTransactionDep) -> None:
    await (await session.connection()).execute(text("SELECT pg_sleep(3)"))
"""
        )
    busy = "SELECT state FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'"
    with serving(project, "uvicorn") as port:
        for path in ("/slow", "/slow-async"):
            for number in range(4):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
                    wait_until(lambda number=number: len(postgresql.sql(busy)) > number, "the request's statement")
            wait_until(lambda: postgresql.sql(busy) == [], "the end of the transactions")
    wait_until(lambda: postgresql.connections() == [], "the end of all connections with that of the server")
