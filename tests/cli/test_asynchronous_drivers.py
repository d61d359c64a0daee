"""The commands where only an asynchronous driver is named or installed: they drive its engine themselves."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from dbconfig.engine import create
from tests.cli.conftest import Project
from tests.support.ports import free_port
from tests.support.servers import Server

DRIVERS = {"postgresql": ("asyncpg",), "mariadb": ("asyncmy", "aiomysql")}
SYNCHRONOUS = ("psycopg2", "psycopg", "pymysql", "MySQLdb")
MODELS = (
    "from sqlalchemy import Column, Integer, MetaData, Table\n"
    "metadata = MetaData()\n"
    "Table('team', metadata, Column('id', Integer, primary_key=True))\n"
)
# In a process of its own: the synchronous drivers are imported here, and there they are not to be found.
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED_NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from dbconfig.cli import main
codes = [main(command.split()) for command in sys.argv[1:]]
sys.exit(max(codes))
"""


def schemes(kind: str) -> list[object]:
    system = {"postgresql": "postgresql", "mariadb": "mysql"}[kind]
    return [pytest.param(kind, f"{system}+{driver}", id=driver) for driver in DRIVERS[kind]]


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    """Return the URL of a database of its own on a server of a kind, for a driver."""

    def of(kind: str, scheme: str) -> str:
        server = request.getfixturevalue(kind)
        assert isinstance(server, Server)
        return server.url(scheme)

    return of


@pytest.mark.server
@pytest.mark.parametrize(("kind", "scheme"), [*schemes("postgresql"), *schemes("mariadb")])
class TestAServer:
    def test_it_is_checked_pinged_and_waited_for(
        self, project: Project, address: Callable[[str, str], str], kind: str, scheme: str
    ) -> None:
        project.profile(f"url: {address(kind, scheme)}\nreplicas: [{{}}]\n")
        checked = project.run("check", "--workers", "2", "--format", "json")
        assert checked.code == 0, checked.text
        database = json.loads(checked.out)["databases"]["default"]
        for server in (database, *database["replicas"]):
            steps = {step["name"]: step for step in server["steps"]}
            assert all(step["ok"] for step in steps.values())
            assert {"resolve", "tcp", "login", "query", "clock", "pool"} <= set(steps)
        assert len(database["replicas"]) == 1
        assert "answers in" in project.run("ping").out
        assert "answers, after" in project.run("wait", "--timeout", "30").out

    def test_tables_are_created_once(
        self, project: Project, address: Callable[[str, str], str], kind: str, scheme: str
    ) -> None:
        project.profile(f"url: {address(kind, scheme)}\n")
        project.write("async_models_of_cli.py", MODELS)
        for word in ("created", "exists"):
            done = project.run("create-tables", "async_models_of_cli:metadata")
            assert (done.code, done.err) == (0, "")
            assert re.search(rf"^  {word} +team$", done.out, re.M)

    def test_a_wrong_password_is_told(
        self, project: Project, address: Callable[[str, str], str], kind: str, scheme: str
    ) -> None:
        url = re.sub(r"(://app:)[^@]+@", r"\1wrong@", address(kind, scheme))
        project.profile(f"url: {url}\n")
        for command in (("check",), ("ping",), ("wait", "--timeout", "30")):
            done = project.run(*command)
            assert done.code == 1
            assert "error[login-rejected]" in done.err, done.text

    def test_a_silent_server_is_waited_for_no_longer_than_was_said(
        self, project: Project, request: pytest.FixtureRequest, kind: str, scheme: str
    ) -> None:
        server = request.getfixturevalue(kind)
        project.profile(f"url: {server.url(scheme)}\n")
        server.pause()
        try:
            for command in ("ping", "wait"):
                done = project.run(command, "--timeout", "500ms")
                assert done.code == 1
                assert "error[timed-out]" in done.err, done.text
        finally:
            server.resume()

    def test_nobody_needs_a_second_driver(
        self, project: Project, address: Callable[[str, str], str], kind: str, scheme: str
    ) -> None:
        """The scheme without a driver takes the one that is installed."""
        url = address(kind, scheme)
        plain = re.sub(r"\+\w+", "", url)
        # aiomysql is made of PyMySQL: where the one is installed, the other is too, and the plain scheme takes it.
        alone = not scheme.endswith("aiomysql")
        blocked = SYNCHRONOUS if alone else tuple(name for name in SYNCHRONOUS if name != "pymysql")
        project.write("async_models_of_cli.py", MODELS)
        for each in (url, plain) if alone else (url,):
            project.profile(f"url: {each}\n")
            commands = ("check", "ping", "wait", "show --engine", "create-tables async_models_of_cli:metadata")
            done = subprocess.run(
                [sys.executable, "-c", BLOCKED.replace("BLOCKED_NAMES", repr(blocked)), *commands],
                cwd=project.folder,
                env={**os.environ, "ENVIRONMENT": "development"},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "create_async_engine" in done.stdout
            assert "team" in done.stdout


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "mysql+asyncmy", "mysql+aiomysql"])
def test_a_port_on_which_nothing_listens_is_told(project: Project, scheme: str) -> None:
    project.profile(f"url: {scheme}://app@127.0.0.1:{free_port()}/shop\n")
    assert "error[refused]" in project.run("ping").err
    waited = project.run("wait", "--timeout", "300ms")
    assert waited.code == 1
    assert waited.err.count("waiting for") == 1
    assert "error[refused]" in waited.err


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "mysql+asyncmy", "mysql+aiomysql"])
def test_a_name_without_an_address_is_told(project: Project, scheme: str) -> None:
    project.profile(f"url: {scheme}://app@no-such-host.invalid/shop\n")
    assert "error[host-unknown]" in project.run("ping").err


def test_a_file_of_sqlite(project: Project) -> None:
    project.profile("url: sqlite+aiosqlite:///data/app.db\n")
    project.write("async_models_of_cli.py", MODELS)
    for command in (("check",), ("ping",), ("wait",), ("create-tables", "async_models_of_cli:metadata")):
        done = project.run(*command)
        assert (done.code, done.err) == (0, ""), done.text
    assert (project.folder / "data/app.db").exists()


def test_the_engine_call_can_be_pasted(project: Project) -> None:
    create.check_version()
    project.profile("url: sqlite+aiosqlite:///data/app.db\n")
    result = project.run("show", "--engine")
    names: dict[str, object] = {}
    exec(result.out, names)
    assert type(names["engine"]).__name__ == "AsyncEngine"


def test_a_driver_that_is_not_installed_is_named(project: Project) -> None:
    script = BLOCKED.replace("BLOCKED_NAMES", str((*SYNCHRONOUS, "asyncpg", "asyncmy")))
    wanted = {
        "postgresql+asyncpg": "pip install asyncpg",
        "postgresql": "pip install psycopg2-binary",
        "mysql+asyncmy": "pip install asyncmy",
    }
    for scheme, help in wanted.items():
        project.profile(f"url: {scheme}://app@127.0.0.1/shop\n")
        done = subprocess.run(
            [sys.executable, "-c", script, "ping"], cwd=project.folder, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2
        assert "error[missing-driver]" in done.stderr
        assert help in done.stderr
