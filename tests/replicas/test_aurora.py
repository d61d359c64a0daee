"""Servers that refuse to tell a position, as Amazon Aurora's do; here a schema ahead of the catalog stands for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from dbconfig.replicas import read_your_writes
from tests.support import servers
from tests.support.postgresql import PostgreSQLServer, PostgreSQLStandby
from tests.support.processes import wait_until
from tests.support.servers import ServerMissing

pytestmark = pytest.mark.server

COUNT = text("SELECT count(*) FROM note")
PORT = text("SELECT inet_server_port()")
REFUSED = ("pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn", "pg_last_wal_replay_lsn")
REFUSAL = "is currently not supported for Aurora"


@pytest.fixture(autouse=True)
def _who_has_written_nothing() -> Iterator[None]:
    yield
    read_your_writes._marks.set({})


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgreSQLServer, PostgreSQLStandby]]:
    """A writer, and a reader that is always 300 ms behind it."""
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary:
        primary.sql("CREATE TABLE note (id int PRIMARY KEY)")
        primary.sql("GRANT ALL ON note TO app")
        primary.sql("CREATE SCHEMA aurora")
        primary.sql("GRANT USAGE ON SCHEMA aurora TO PUBLIC")
        for name in REFUSED:
            body = f"BEGIN RAISE EXCEPTION 'Function {name}() {REFUSAL}' USING ERRCODE = '0A000'; END"
            primary.sql(f"CREATE FUNCTION aurora.{name}() RETURNS pg_lsn LANGUAGE plpgsql AS $${body}$$")
        primary.sql(f"ALTER DATABASE {primary.database} SET search_path = aurora, pg_catalog, public")
        with primary.standby(settings={"recovery_min_apply_delay": "300ms"}) as standby:
            standby.catch_up()
            yield primary, standby


def profile(pair: tuple[PostgreSQLServer, PostgreSQLStandby], *, driver: str = "psycopg2", **more: Any) -> Profile:
    primary, standby = pair
    return Profile(name="aurora", url=primary.url(f"postgresql+{driver}"), replicas=[{"port": standby.port}], **more)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
def test_after_a_commit_the_writer_is_read_and_the_reader_says_why_it_is_not(
    pair: tuple[PostgreSQLServer, PostgreSQLStandby], driver: str
) -> None:
    pytest.importorskip(driver)
    pair[0].sql("TRUNCATE note")
    with Registry.from_profile(profile(pair, driver=driver, replica_max_lag=5.0)) as db:
        if driver != "asyncpg":
            for number in range(20):
                with db.transaction() as session:
                    session.execute(text(f"INSERT INTO note VALUES ({number})"))
                with db.session(read_only=True) as session:
                    assert session.scalar(COUNT) == number + 1
            wait_until(lambda: REFUSAL in db.readers()[0].out, "the look at the reader")
            return

        async def main() -> None:
            for number in range(20):
                async with db.async_transaction() as session:
                    await session.exec(text(f"INSERT INTO note VALUES ({number})"))  # type: ignore[call-overload]
                async with db.async_session(read_only=True) as session:
                    assert await session.scalar(COUNT) == number + 1
            async with asyncio.timeout(60):
                while REFUSAL not in db.async_readers()[0].out:
                    await asyncio.sleep(0.01)
            await db.async_dispose()

        asyncio.run(main())


def test_who_does_not_need_to_see_the_own_writes_reads_from_the_reader(
    pair: tuple[PostgreSQLServer, PostgreSQLStandby],
) -> None:
    with Registry.from_profile(profile(pair, read_your_writes=False, replica_max_lag=False)) as db:
        for _ in range(20):
            with db.session(read_only=True) as session:
                assert session.scalar(PORT) == pair[1].port
