"""Several hosts of one database: writes go to the primary, however the hosts are written, and readers find it too."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from tests.support.postgresql import PostgreSQLServer

DRIVERS = ["postgresql+psycopg2", "postgresql+psycopg"]
ASYNC_DRIVERS = ["postgresql+asyncpg", "postgresql+psycopg"]
LIST, REPEATED, COMMAS = "host: [standby, primary]", "?host=standby:1&host=primary:2", "?host=standby,primary&port=1,2"


@pytest.fixture
def standby(postgresql: PostgreSQLServer) -> Iterator[PostgreSQLServer]:
    with postgresql.standby() as server:
        server.catch_up()
        yield server


def several(driver: str, written: str, standby: PostgreSQLServer, primary: PostgreSQLServer) -> Registry:
    login = f"{primary.user}:{primary.password}"
    places = [f"{server.host}:{server.port}" for server in (standby, primary)]
    url = f"{driver}://{login}@/{primary.database}"
    if written == LIST:
        parts = {"username": primary.user, "password": primary.password, "database": primary.database}
        return Registry.from_profile(Profile(name="p", drivername=driver, host=places, **parts))
    if written == REPEATED:
        return Registry.from_profile(Profile(name="p", url=f"{url}?host={places[0]}&host={places[1]}"))
    hosts, ports = f"{standby.host},{primary.host}", f"{standby.port},{primary.port}"
    return Registry.from_profile(Profile(name="p", url=f"{url}?host={hosts}&port={ports}"))


@pytest.mark.parametrize("written", [LIST, REPEATED, COMMAS])
@pytest.mark.parametrize("driver", DRIVERS)
def test_each_kind_of_session_finds_the_primary(postgresql, standby, driver, written):
    with several(driver, written, standby, postgresql) as db:
        for read_only in (False, True):
            with db.session(read_only=read_only) as session:
                assert session.scalar(text("SELECT pg_is_in_recovery()")) is False


@pytest.mark.parametrize("written", [LIST, REPEATED, COMMAS])
@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
def test_each_kind_of_asynchronous_session_finds_the_primary(postgresql, standby, driver, written):
    async def main():
        async with several(driver, written, standby, postgresql) as db:
            for read_only in (False, True):
                async with db.async_session(read_only=read_only) as session:
                    assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False

    asyncio.run(main())


def test_what_is_wanted_of_the_hosts_can_be_said():
    url = "postgresql://u@/d?host=a:1&host=b:2&target_session_attrs=any"
    assert Profile(name="p", url=url).databases["default"].address.query["target_session_attrs"] == ("any",)
    one = Profile(name="p", url="postgresql://u@/d?host=a:1").databases["default"].address.query
    assert "target_session_attrs" not in one
