"""What the documentation shows of the commands is what they write, on the three databases, good and broken."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from shlex import join
from typing import Any

import pytest

from tests.cli.conftest import Project
from tests.cli.provocations import Fixture
from tests.support.ports import free_port
from tests.support.servers import Server

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "cli.md", DOCS / "transcripts.md"
_BLOCK = r"<!-- transcript: {} -->\n(.*?)<!-- /transcript -->"

SHARED = "pool_size: 5\nmax_overflow: 10\npool_timeout: 30s\nconnect_timeout: 5s\n"
PRODUCTION = """url: postgresql://app:${DB_PASSWORD}@db.internal/shop
query: {sslmode: verify-full, sslrootcert: /etc/ssl/db.pem}
pool_size: 20
max_overflow: 40
pool_pre_ping: true
"""
_ENV = {"DB_PASSWORD": "a secret", "DBCONFIG_POOL_SIZE": "10"}


def _shop(project: Project) -> None:
    project.profile(SHARED, "default")
    project.profile("url: sqlite:///data/shop.db\n")
    project.profile("url: 'sqlite:///:memory:'\n", "testing")
    project.profile(PRODUCTION, "production")


Scenario = Callable[[Project, Fixture], tuple[tuple[str, ...], dict[str, str]]]
SCENARIOS: dict[str, Scenario] = {}


def _offline(name: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    def prepare(project: Project, fixture: Fixture) -> tuple[tuple[str, ...], dict[str, str]]:
        _shop(project)
        return arguments, env or {}

    SCENARIOS[name] = prepare


_offline("list", "list")
_offline("show", "show", "production", env=_ENV)
_offline("show-engine", "show", "--engine")
_offline("show-diff", "show", "--diff", "production")
_offline("validate", "validate", "--all")
_offline("ping", "ping")
_offline("explain", "explain", "too-many-connections")
_offline("check-sqlite", "check")
_offline("unknown-command", "chek")


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    def note(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return note


@scenario("validate-broken")
def _(project: Project, fixture: Fixture) -> tuple[tuple[str, ...], dict[str, str]]:
    _shop(project)
    project.profile(PRODUCTION.replace("max_overflow", "max_overflw") + "host: other-db\n", "production")
    return ("validate", "--all"), {}


@scenario("init")
def _(project: Project, fixture: Fixture) -> tuple[tuple[str, ...], dict[str, str]]:
    return ("init",), {}


@scenario("create-tables")
def _(project: Project, fixture: Fixture) -> tuple[tuple[str, ...], dict[str, str]]:
    _shop(project)
    project.write(
        "shop_models.py",
        "from sqlmodel import Field, MetaData, SQLModel\n"
        "class Base(SQLModel):\n    metadata = MetaData()\n"
        "class Orders(Base, table=True):\n    id: int | None = Field(default=None, primary_key=True)\n"
        "class Item(Base, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
        "    orders_id: int = Field(foreign_key='orders.id')\n",
    )
    return ("create-tables", "shop_models:Base"), {}


# The three databases, broken in turn.


def _sqlite_broken(name: str, prepare: Callable[[Project], str]) -> None:
    def run(project: Project, fixture: Fixture) -> tuple[tuple[str, ...], dict[str, str]]:
        project.profile(prepare(project))
        return ("check",), {}

    SCENARIOS[f"check-sqlite-{name}"] = run


def _not_a_database(project: Project) -> str:
    project.write("data/shop.db", "This is a text file, and longer than the header of a database is. " * 20)
    return "url: sqlite:///data/shop.db\n"


def _locked(project: Project) -> str:
    path = project.write("data/shop.db", "")
    keeper = sqlite3.connect(path, isolation_level=None)
    keeper.execute("BEGIN EXCLUSIVE")
    _keepers.append(keeper)
    return "url: sqlite:///data/shop.db\nlock_timeout: 10ms\n"


_keepers: list[Any] = []  # connections that stay open until the test ends


@pytest.fixture(autouse=True)
def _close_keepers() -> Iterator[None]:
    yield
    while _keepers:
        with closing(_keepers.pop()):
            pass


_sqlite_broken("no-folder", lambda project: "url: sqlite:////proc/nowhere/shop.db\n")
_sqlite_broken("not-a-database", _not_a_database)
_sqlite_broken("locked", _locked)


def _server_scenarios(kind: str) -> None:
    def server_of(fixture: Fixture) -> Server:
        server = fixture(kind)
        assert isinstance(server, Server)
        return server

    def note(name: str, profile: Callable[[Server, Fixture], str], *arguments: str) -> None:
        def prepare(project: Project, fixture: Fixture) -> tuple[tuple[str, ...], dict[str, str]]:
            project.profile(profile(server_of(fixture), fixture), "production")
            return (*(arguments or ("check",)), "--profile", "production"), {}

        SCENARIOS[f"{name}-{kind}"] = prepare

    tls = {"postgresql": "sslmode=require", "mariadb": "ssl_ca=/etc/ssl/certs/ca-certificates.crt"}[kind]
    big = "pool_size: 20\nmax_overflow: 40\n"
    note("check", lambda server, fixture: f"url: {server.url()}\n{big}")
    note(
        "check-budget",
        lambda server, fixture: f"url: {_counted(server).url()}\n{big}",
        "check",
        "--workers",
        "4",
        "--replicas",
        "2",
    )
    note("doctor", lambda server, fixture: f"url: {server.url()}\n{big}", "doctor")
    note("doctor-down", lambda server, fixture: f"url: {server.url(port=free_port())}\n", "doctor")
    note("ping", lambda server, fixture: f"url: {server.url()}\n", "ping")
    note("wait", lambda server, fixture: f"url: {server.url()}\n", "wait")
    note("check-down", lambda server, fixture: f"url: {server.url(port=free_port())}\n")
    note("check-wrong-password", lambda server, fixture: f"url: {server.url(password='wrong')}\n")
    note("check-wrong-database", lambda server, fixture: f"url: {server.url(database='shopp')}\n")
    note("check-wrong-host", lambda server, fixture: f"url: {server.url(host='no-such-host.invalid')}\n")
    note("check-tls-refused", lambda server, fixture: f"url: {server.url()}?{tls}\n")
    note("check-http-port", lambda server, fixture: f"url: {server.url(port=int(str(fixture('web_server'))))}\n")
    note("check-too-many-connections", _crowded)
    note("check-read-only", _read_only)
    note("wait-wrong-password", lambda server, fixture: f"url: {server.url(password='wrong')}\n", "wait")
    note("ping-down", lambda server, fixture: f"url: {server.url(port=free_port())}\n", "ping")


def _counted(server: Server) -> Server:
    """Let MariaDB have no connection of the tests' own: all that are free are shown."""
    return server.without_administrator() if server.kind == "mariadb" else server


def _crowded(server: Server, fixture: Fixture) -> str:
    server.create_user("crowd", "app-secret")
    if server.kind == "postgresql":
        server.sql("ALTER ROLE crowd CONNECTION LIMIT 0")
    else:
        server.sql("ALTER USER crowd WITH MAX_USER_CONNECTIONS 1")
        import pymysql

        given = {"host": server.host, "port": server.port, "user": "crowd", "password": "app-secret"}
        _keepers.append(pymysql.connect(**given, ssl_disabled=True))
    return f"url: {server.url(user='crowd')}\n"


def _read_only(server: Server, fixture: Fixture) -> str:
    if server.kind == "postgresql":
        standby = fixture("standby")
        assert isinstance(standby, Server)
        return f"url: {standby.url()}\n"
    server.sql("SET GLOBAL read_only = 1")
    return f"url: {server.url()}\n"


_server_scenarios("postgresql")
_server_scenarios("mariadb")


@pytest.fixture
def mariadb(mariadb: Server) -> Iterator[Server]:
    yield mariadb
    mariadb.sql("SET GLOBAL read_only = 0")


def _marked() -> list[object]:
    servers = ("postgresql", "mariadb")
    return [pytest.param(name, marks=pytest.mark.server if name.endswith(servers) else ()) for name in SCENARIOS]


@pytest.mark.parametrize("name", _marked())
def test_a_transcript_is_what_the_command_writes(name: str, project: Project, request: pytest.FixtureRequest) -> None:
    arguments, env = SCENARIOS[name](project, request.getfixturevalue)
    result = project.run(*arguments, env=env, together=True)
    written = project.normalised(result.out).rstrip("\n")
    code = f"\n$ echo $?\n{result.code}" if result.code else ""
    before = "".join(f"{variable}={value!r} " for variable, value in env.items())
    block = f"```console\n$ {before}dbconfig {join(arguments)}\n{written}{code}\n```\n"
    pattern = re.compile(_BLOCK.format(re.escape(name)), re.S)
    if os.environ.get("UPDATE_GOLDEN"):
        _update(name, pattern, block)
    shown = [match[1] for page in PAGES for match in pattern.finditer(page.read_text(encoding="utf-8"))]
    assert shown, f"no page shows {name}"
    assert shown == [block] * len(shown)


def _update(name: str, pattern: re.Pattern[str], block: str) -> None:
    full = f"<!-- transcript: {name} -->\n{block}<!-- /transcript -->"
    found = False
    for page in PAGES:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if pattern.search(text):
            found = True
            page.write_text(pattern.sub(lambda _: full, text), encoding="utf-8")
    if not found:
        with PAGES[1].open("a", encoding="utf-8") as file:
            file.write(f"\n## {name}\n\n{full}\n")


def test_every_transcript_of_the_pages_is_tested() -> None:
    names = {name for page in PAGES for name in re.findall(r"<!-- transcript: (\S+) -->", page.read_text())}
    assert names == set(SCENARIOS)
