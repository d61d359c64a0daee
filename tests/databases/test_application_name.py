"""The server knows each connection by the name of the program, with every driver, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session

from dbconfig import ConfigError, Profile, Registry, load
from dbconfig.engine.dialects.application_name import default_name
from tests.pooled import Kind
from tests.support.drivers import SERVED, Driver, params
from tests.support.pgbouncer import pgbouncer
from tests.support.postgresql import PostgreSQLServer
from tests.support.server import Server

OWN_CONNECTION = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT connection_id()"}
NAME = {
    "postgresql": "SELECT application_name FROM pg_stat_activity WHERE pid = {}",
    "mariadb": (
        "SELECT attr_value FROM performance_schema.session_connect_attrs "
        "WHERE processlist_id = {} AND attr_name = 'program_name'"
    ),
}
Seen = Callable[..., str]


@pytest.fixture(params=params(SERVED))
def driver(request: pytest.FixtureRequest) -> Driver:
    driver: Driver = request.param
    pytest.importorskip(driver.module)
    return driver


@pytest.fixture
def seen(driver: Driver, request: pytest.FixtureRequest, tmp_path: Path) -> Seen:
    """Return how the server calls a connection of a project `shop` in a profile `production`."""
    system = driver.server
    server: Server = request.getfixturevalue(system)
    config = tmp_path / "shop" / "config"
    config.mkdir(parents=True)

    def ask(session: Session) -> str:
        number = session.execute(text(OWN_CONNECTION[system])).scalar_one()
        found = server.sql(NAME[system].format(number))
        return str(found[0][0]) if found else ""

    def name(settings: str = "", parameters: str = "", *, read_only: bool = False) -> str:
        url = server.url(driver.scheme)
        url += parameters and ("&" if "?" in url else "?") + parameters
        (config / "production.yaml").write_text(f"url: {url}\n{settings}\n")
        with Registry(config, profile="production", environ={}) as db:
            if not driver.asynchronous:
                with db.session(read_only=read_only) as session:
                    return ask(session)

            async def within() -> str:
                async with db.async_session(read_only=read_only) as session:
                    return str(await session.run_sync(ask))

            return asyncio.run(within())

    return name


def test_the_name_is_the_projects_folder_and_the_profile(seen: Seen) -> None:
    assert seen() == "shop/production"
    assert seen(read_only=True) == "shop/production"


def test_the_key_names_the_program(seen: Seen) -> None:
    assert seen("application_name: checkout") == "checkout"


def test_the_arguments_of_the_driver_win(seen: Seen, driver: Driver) -> None:
    key = "application_name" if driver.server == "postgresql" else "program_name"
    assert seen(f"application_name: checkout\nconnect_args: {{{key}: own}}") == "own"
    if driver.server == "postgresql":
        assert seen("application_name: checkout\nvariables: {application_name: own}") == "own"
        assert seen("connect_args: {options: -c application_name=own}") == "own"


def test_the_url_wins(seen: Seen, driver: Driver) -> None:
    if driver.server == "postgresql":
        assert seen("application_name: checkout", "application_name=own") == "own"


@pytest.mark.parametrize("name", ["psycopg2", "psycopg"])
def test_the_environment_of_libpq_wins_over_the_default_alone(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("PGAPPNAME", "theirs")
    for settings, expected in (({}, "theirs"), ({"application_name": "ours"}, "ours")):
        profile = Profile(name="tests", url=postgresql.url(f"postgresql+{name}"), **settings)
        with Registry.from_profile(profile) as db, db.session() as session:
            assert session.execute(text("SHOW application_name")).scalar_one() == expected


def test_a_pgbouncer_keeps_the_name_with_each_transaction(kind: Kind, postgresql: PostgreSQLServer) -> None:
    def ask(session: Session) -> str:
        return str(session.execute(text("SHOW application_name")).scalar_one())

    with pgbouncer(postgresql, size=1) as shared, kind.registries(postgresql, shared.port) as open_registry:
        assert kind.run(open_registry(application_name="one"), ask) == "one"
        assert kind.run(open_registry(application_name="two"), ask) == "two"


def test_a_name_that_postgresql_would_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="`application_name` must be at most 63 bytes long, not 64"):
        Profile(name="tests", url="postgresql://db/shop", application_name="x" * 64)


def test_a_default_name_is_cut_and_printable(tmp_path: Path) -> None:
    config = tmp_path / ("ä" * 60) / "config"
    config.mkdir(parents=True)
    (config / "production.yaml").write_text("url: postgresql://db/shop\n")
    settings = load("production", path=config, environ={}).database("default")
    name = default_name(settings, "production/analytics")
    assert len(name.encode()) <= 63
    assert name.endswith("ä/production")
