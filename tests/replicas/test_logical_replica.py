"""A replica by logical replication is another system, whose log says nothing of the primary's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from dbconfig.replicas import read_your_writes
from tests.support import servers
from tests.support.postgresql import PostgreSQLServer
from tests.support.processes import wait_until
from tests.support.servers import ServerMissing

pytestmark = pytest.mark.server

COUNT = text("SELECT count(*) FROM note")


class AnotherSystem(PostgreSQLServer):
    """A server that initdb has made; those of the other tests are copies of one, with its identifier."""

    def _prepare(self) -> None:
        self._install()
        self._configure()


@pytest.fixture(autouse=True)
def _who_has_written_nothing() -> Iterator[None]:
    yield
    read_your_writes._marks.set({})  # of this test: the next one begins as a request does


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgreSQLServer, PostgreSQLServer]]:
    """A publisher and its subscriber."""
    with ExitStack() as stack:
        try:
            primary = stack.enter_context(servers.postgresql(settings={"wal_level": "logical"}))
        except ServerMissing as missing:
            pytest.skip(str(missing))
        copy = stack.enter_context(AnotherSystem())
        copy._furnish()
        for each in (primary, copy):
            each.sql("CREATE TABLE note (id int PRIMARY KEY)")
            each.sql("GRANT ALL ON note TO app")
        primary.sql("CREATE PUBLICATION all_of_it FOR ALL TABLES")
        source = f"host={primary.socket} port={primary.port} user=postgres dbname={primary.database}"
        copy.sql(f"CREATE SUBSCRIPTION all_of_it CONNECTION '{source}' PUBLICATION all_of_it")
        yield primary, copy
        copy.sql("DROP SUBSCRIPTION all_of_it")


def settings(pair: tuple[PostgreSQLServer, PostgreSQLServer], **more: Any) -> Profile:
    primary, copy = pair
    replicas = [{"port": copy.port}]
    return Profile(name="tests", url=primary.url(), replicas=replicas, replica_max_lag=1.0, **more)


@pytest.mark.parametrize("style", ["sync", "async"])
def test_after_a_commit_it_is_not_read_from_and_the_reason_is_told(
    pair: tuple[PostgreSQLServer, PostgreSQLServer], style: str
) -> None:
    pair[0].sql("TRUNCATE note")
    with Registry.from_profile(settings(pair)) as db:
        if style == "sync":
            for number in range(50):
                with db.transaction() as session:
                    session.execute(text(f"INSERT INTO note VALUES ({number})"))
                with db.session(read_only=True) as session:
                    assert session.scalar(COUNT) == number + 1
            wait_until(lambda: bool(db.readers()[0].out), "the look at the replica")
            assert "it is a different system from its primary, as with logical replication" in db.readers()[0].out
            return
        pytest.importorskip("asyncpg")

        async def main() -> None:
            for number in range(50):
                async with db.async_transaction() as session:
                    await session.exec(text(f"INSERT INTO note VALUES ({number})"))  # type: ignore[call-overload]
                async with db.async_session(read_only=True) as session:
                    assert await session.scalar(COUNT) == number + 1
            async with asyncio.timeout(60):
                while not db.async_readers()[0].out:
                    await asyncio.sleep(0.01)
            assert "a different system" in db.async_readers()[0].out
            await db.async_dispose()

        asyncio.run(main())


def test_who_does_not_need_to_see_the_own_writes_reads_from_it(
    pair: tuple[PostgreSQLServer, PostgreSQLServer],
) -> None:
    pair[0].sql("TRUNCATE note")
    pair[0].sql("INSERT INTO note VALUES (1)")
    wait_until(lambda: pair[1].sql("SELECT count(*) FROM note") == [(1,)], "logical replication")
    with Registry.from_profile(settings(pair, read_your_writes=False)) as db:
        port = text("SELECT inet_server_port()")
        for _ in range(20):
            with db.session(read_only=True) as session:
                assert session.scalar(port) == pair[1].port
        looked = db.parts.engines.readers("default").router.replicas[0]  # type: ignore[union-attr]
        wait_until(lambda: looked.position is not None, "a look at the replica")
        assert (db.readers()[0].out, db.readers()[0].lag) == ("", None)
