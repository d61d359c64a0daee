"""Reads over real replicas in an event loop: shares, lag, failures, and reading what a task has written."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Field, MetaData, SQLModel, select

from dbconfig import Profile, Registry
from tests.groups import Group, Note, name
from tests.support import servers
from tests.support.proxy import Proxy
from tests.support.servers import MariaDBServer, ServerMissing

pytestmark = pytest.mark.server
PAUSE = "SELECT pg_wal_replay_pause()"


@pytest.fixture(params=["asyncpg", "psycopg"])
def registry(group: Group, request: pytest.FixtureRequest) -> Callable[..., Registry]:
    pytest.importorskip(request.param)

    def make(*overrides: dict[str, object], **settings: object) -> Registry:
        return group.registry(*overrides, url=group.primary.url(f"postgresql+{request.param}"), **settings)

    return make


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine; whatever its loop leaves open warns, and fails the test."""
    asyncio.run(asyncio.wait_for(work, 60))
    gc.collect()


async def write(db: Registry) -> int:
    async with db.async_transaction() as session:
        note = Note()
        session.add(note)
        await session.flush()
        assert note.id is not None
        return note.id


async def has(db: Registry, number: int, **how: bool) -> bool:
    async with db.async_session(**(how or {"read_only": True})) as session:
        return await session.get(Note, number) is not None


async def read(db: Registry, times: int = 1) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        async with db.async_session(read_only=True) as session:
            await session.exec(select(1))
            found[(await session.connection()).sync_connection.engine.address] += 1  # type: ignore[union-attr]
    return found


async def until(state: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if state():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{what} did not come in 30 s")


def reads(db: Registry) -> dict[str, int]:
    return {each.name: each.reads for each in db.async_readers()}


def test_reads_are_spread_by_weight_and_among_tasks(group: Group, registry: Callable[..., Registry]) -> None:
    async def work() -> None:
        async with registry({"weight": 3}, {"weight": 1}) as db:
            assert await read(db, 40) == {name(group.replicas[0]): 30, name(group.replicas[1]): 10}
            found = sum(await asyncio.gather(*(read(db, 10) for _ in range(8))), Counter())
            assert sum(found.values()) == 80
            assert abs(found[name(group.replicas[0])] - 60) <= 8
            assert sum(reads(db).values()) == 120

    run(work())


def test_a_session_keeps_its_server_and_a_snapshot_is_one(group: Group, registry: Callable[..., Registry]) -> None:
    async def work() -> None:
        async with registry() as db:
            number = await write(db)
            async with db.async_session(read_only=True) as session:
                seen = set()
                for _ in range(6):
                    seen.add(await session.scalar(text("SHOW port")))
                    await session.rollback()
                assert len(seen) == 1
            assert await has(db, number, snapshot=True)
            async with db.async_session(snapshot=True) as session:
                assert await session.scalar(text("SHOW transaction_isolation")) == "repeatable read"

    run(work())


def test_a_replica_that_lags_is_never_read_after_a_write(group: Group, registry: Callable[..., Registry]) -> None:
    lagging, current = group.replicas

    async def work() -> None:
        async with registry() as db:
            await read(db, 2)
            lagging.sql(PAUSE)
            for _ in range(20):
                assert await has(db, await write(db))
            found = reads(db)
            assert found[name(lagging)] == 1
            assert found[name(current)] + found["primary"] == 21

    run(work())


def test_tasks_that_write_and_read_never_see_an_old_state(group: Group, registry: Callable[..., Registry]) -> None:
    group.replicas[0].sql(PAUSE)

    async def pairs(db: Registry) -> int:
        return sum([not await has(db, await write(db)) for _ in range(20)])

    async def work() -> None:
        async with registry(pool_size=8) as db:
            assert sum(await asyncio.gather(*(pairs(db) for _ in range(16)))) == 0
            assert sum(reads(db).values()) == 320

    run(work())


def test_a_token_and_a_scope_carry_what_was_written(group: Group, registry: Callable[..., Registry]) -> None:
    for replica in group.replicas:
        replica.sql(PAUSE)

    async def work() -> None:
        async with registry() as db, registry() as elsewhere:

            async def written() -> tuple[int, str]:
                return await write(db), await db.async_write_token()

            assert await db.async_write_token() == ""
            number, token = await asyncio.create_task(written())  # a context of its own
            assert token
            assert not await has(elsewhere, number)
            with elsewhere.read_after(token):
                assert await asyncio.create_task(has(elsewhere, number))
            assert not await has(elsewhere, number)
            with db.read_after():
                number = await asyncio.create_task(write(db))
                assert await asyncio.create_task(has(db, number))

    run(work())


def test_a_standby_that_is_killed_costs_no_caller_an_error_and_comes_back(
    group: Group, registry: Callable[..., Registry]
) -> None:
    killed, other = group.replicas

    async def work() -> None:
        async with registry() as db:
            await read(db, 10)
            killed.kill()
            assert (await read(db, 50))[name(other)] == 50
            assert next(each.out for each in db.async_readers() if each.name == name(killed))
            killed.start()
            await until(lambda: not any(each.out for each in db.async_readers()), "the replica's return")
            assert await read(db, 20) == {name(killed): 10, name(other): 10}

    run(work())


def test_a_standby_that_stands_still_or_lags_is_left_out_meanwhile(
    group: Group, registry: Callable[..., Registry]
) -> None:
    still, lagging = group.replicas

    async def work() -> None:
        async with registry(replica_max_lag=0.4) as db:
            await read(db, 4)
            still.pause()
            try:
                await until(lambda: any(each.out for each in db.async_readers()), "discovery")
                assert await read(db, 10) == {name(lagging): 10}
            finally:
                still.resume()
            await until(lambda: not any(each.out for each in db.async_readers()), "the return")
            lagging.sql(PAUSE)
            await asyncio.create_task(write(db))
            await until(lambda: any("behind" in each.out for each in db.async_readers()), "the lag's discovery")
            assert await read(db, 10) == {name(still): 10}
            lagging.sql("SELECT pg_wal_replay_resume()")
            await until(lambda: not any(each.out for each in db.async_readers()), "the return")

    run(work())


def test_the_primary_serves_where_no_replica_can_unless_it_is_forbidden(
    group: Group, registry: Callable[..., Registry]
) -> None:
    async def work() -> None:
        async with registry() as db, registry(replica_fallback=False, pool_timeout=2) as strict:
            group.replicas[0].kill()
            number = await write(strict)
            assert await has(strict, number)  # waited for
            group.replicas[1].kill()
            with pytest.raises(OperationalError, match="replica_fallback is false"):
                await read(strict)
            assert await has(db, number)
            assert reads(db)["primary"] == 1

    run(work())


def test_writes_are_refused_and_none_reaches_a_standby(group: Group, registry: Callable[..., Registry]) -> None:
    async def work() -> None:
        async with registry() as db:
            for _ in range(10):
                await write(db)
            assert [each.connections() for each in group.replicas] == [[], []]
            async with db.async_session(read_only=True) as session:
                with pytest.raises(DBAPIError, match="read-only"):
                    await session.exec(text("INSERT INTO replica_note (text) VALUES ('x')"))  # type: ignore[call-overload]

    run(work())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_reader_that_is_cancelled_while_servers_tell_their_positions_leaves_no_connection_out(
    group: Group, driver: str
) -> None:
    pytest.importorskip(driver)

    async def work() -> None:
        replica = group.replicas[0]
        with Proxy(group.primary.host, group.primary.port) as primary, Proxy(replica.host, replica.port) as standby:
            url = group.primary.url(f"postgresql+{driver}", port=primary.port)
            found = [{"port": standby.port}]
            async with group.registry(url=url, replicas=found, pool_size=1, max_overflow=0) as db:
                await has(db, await write(db))
                for each in (primary, standby):
                    each.delay(0.02)
                router = db.parts.loops.here().readers("default").router
                assert router is not None
                for phase in range(14):  # 40 ms a round trip: the primary's position, the replica's, the statement
                    number = await write(db)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(has(db, number), 0.005 + phase * 0.01)
                    pools: list[Any] = [engine.pool for engine in router.engines()]
                    assert [pool.checkedout() for pool in pools] == [0, 0]
                    assert await has(db, number)

    run(work())


def test_a_standby_that_was_promoted_by_itself_is_not_taken_for_current() -> None:
    pytest.importorskip("asyncpg")
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))

    async def work() -> None:
        url = primary.url("postgresql+asyncpg")
        profile = Profile(name="parted", url=url, replicas=[{"port": standby.port}], replica_max_lag=False)
        async with Registry.from_profile(profile) as db:
            for _ in range(10):
                assert await has(db, await write(db))
            assert reads(db) == {name(standby): 0, "primary": 10}

    with primary, primary.standby() as standby:
        with Registry.from_profile(Profile(name="schema", url=primary.url())) as schema:
            schema.create_tables(Note)
        standby.catch_up()
        standby.promote()
        standby.sql("CREATE TABLE own AS SELECT g, repeat('x', 500) v FROM generate_series(1, 5000) g")
        run(work())


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
def test_mariadb_reads_what_it_wrote_by_gtid(pair: tuple[MariaDBServer, MariaDBServer], driver: str) -> None:
    pytest.importorskip(driver)
    primary, replica = pair
    url = primary.url(f"mysql+{driver}")
    profile = Profile(name="pair", url=url, replicas=[{"port": replica.port}], replica_max_lag=False)

    async def work() -> None:
        async with Registry.from_profile(profile) as db:
            assert await read(db, 5) == {name(replica): 5}
            for _ in range(10):
                assert await has(db, await write(db))
            replica.sql("STOP REPLICA SQL_THREAD")
            before = reads(db)[name(replica)]
            for _ in range(10):
                number = await write(db)
                assert await has(db, number)
            assert reads(db)[name(replica)] == before
            replica.sql("START REPLICA SQL_THREAD")
            replica.catch_up()
            assert await has(db, number)
            assert reads(db)[name(replica)] == before + 1

    with Registry.from_profile(Profile(name="schema", url=primary.url())) as schema:
        schema.create_tables(Note)
    replica.catch_up()
    run(work())


class FactsBase(SQLModel):
    metadata = MetaData()


class Visit(FactsBase, table=True):
    __tablename__ = "replica_visit"
    id: int | None = Field(default=None, primary_key=True)


def test_a_session_over_several_databases_reads_each_from_its_replicas(
    group: Group, registry: Callable[..., Registry], tmp_path: Any
) -> None:
    async def work() -> None:
        async with registry(databases={"facts": {"url": f"sqlite:///{tmp_path}/facts.db"}}) as db:
            with_engine = db.async_engine()  # made before it is said what lives where
            db.bind(facts=FactsBase.metadata)
            assert db.async_engine() is with_engine
            db.create_tables(Visit)
            async with db.async_transaction() as session:
                session.add_all([Visit(id=1), note := Note()])
            await db.async_run_in_transaction(add_visit)
            async with db.async_session(read_only=True) as session:
                assert await session.get(Note, note.id)
                assert len((await session.exec(select(Visit))).all()) == 2
            assert sum(reads(db).values()) >= 1
            async with db.async_session(snapshot=True) as session:
                assert await session.get(Visit, 1)
                session.add(Visit())
                with pytest.raises(Exception, match="Visit is added"):
                    await session.flush()
            async with db.async_session("facts") as session:
                assert await session.get(Visit, 1)

    async def add_visit(session: Any) -> None:
        session.add(Visit(id=2))

    run(work())


def test_binding_later_keeps_the_connections_to_the_servers(group: Group, registry: Callable[..., Registry]) -> None:
    async def work() -> None:
        async with registry(databases={"facts": {"url": group.primary.url()}}) as db:
            await read(db, 4)
            router = db.parts.loops.here().readers("default").router
            db.bind(facts=FactsBase.metadata)
            async with db.async_session(read_only=True) as session:
                assert await session.get(Note, 0) is None
            assert db.parts.loops.here().readers("default").router is router

    run(work())
