"""Asynchronous reading sessions: one round trip, refused writes, and what a reader sees, with each driver."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlmodel import Field, MetaData, SQLModel, select

from dbconfig import Profile, Registry
from tests.asynchronous.conftest import DRIVERS
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.servers import Server

Run = Callable[[Coroutine[Any, Any, Any]], Any]
WAYS = ({"read_only": True}, {"snapshot": True})
INSERT = "INSERT INTO async_reading_hero VALUES (2, 'Eve')"


class Base(SQLModel):
    metadata = MetaData()


class Hero(Base, table=True):
    __tablename__ = "async_reading_hero"
    id: int = Field(primary_key=True)
    name: str


@pytest.fixture
def network(driver: str, request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy]) -> Proxy | None:
    system = DRIVERS[driver][0]
    return None if system == "sqlite" else proxy(request.getfixturevalue(system))


@pytest.fixture
def db(driver: str, url: str, network: Proxy | None, request: pytest.FixtureRequest) -> Iterator[Registry]:
    if network is not None:
        system, drivername, _ = DRIVERS[driver]
        url = request.getfixturevalue(system).url(drivername, port=network.port)
        with Registry.from_profile(Profile(name="schema", url=request.getfixturevalue(system).url())) as schema:
            schema.create_tables(Hero)
    with Registry.from_profile(Profile(name="reading", url=url)) as made:
        if network is None:
            made.create_tables(Hero)
        yield made


async def rename(db: Registry, name: str) -> None:
    async with db.async_transaction() as session:
        await session.merge(Hero(id=1, name=name))


async def name(db: Registry, **how: bool) -> str:
    async with db.async_session(**how) as session:
        return (await session.get_one(Hero, 1)).name


def test_a_get_costs_one_round_trip_and_a_snapshot_two_more(db: Registry, network: Proxy | None, run: Run) -> None:
    if network is None:
        pytest.skip("SQLite uses no network")

    async def cost(**how: bool) -> float:
        for _ in range(8):  # what a first connection asks; psycopg prepares a statement that it has seen five times
            await name(db, **how)
        network.reset_counters()
        for _ in range(4):
            await name(db, **how)
        return network.round_trips() / 4

    async def work() -> None:
        await rename(db, "Ada")
        assert await cost(read_only=True) == 1
        assert await cost(snapshot=True) == 3

    run(work())


def test_a_reader_sees_what_is_committed_and_a_snapshot_what_was(db: Registry, driver: str, run: Run) -> None:
    async def work() -> None:
        await rename(db, "Ada")
        async with db.async_session(read_only=True) as session:
            hero = await session.get_one(Hero, 1)
            await rename(db, "Grace")
            await session.refresh(hero)
            assert hero.name == "Grace"
        if driver == "sqlite-memory":
            return  # a writer waits for the snapshot's end
        async with db.async_session(snapshot=True) as session:
            hero = await session.get_one(Hero, 1)
            await rename(db, "Eve")
            await session.refresh(hero)
            assert hero.name == "Grace"
            await session.rollback()
            await session.refresh(hero)
            assert hero.name == "Eve"

    run(work())


@pytest.mark.parametrize("how", WAYS, ids=["read_only", "snapshot"])
def test_the_server_refuses_writes_and_a_flush_is_refused_before(db: Registry, run: Run, how: dict[str, bool]) -> None:
    async def work() -> None:
        await rename(db, "Ada")
        async with db.async_session(**how) as session:
            with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
                await session.exec(text(INSERT))  # type: ignore[call-overload]  # text is for raw statements
            await session.rollback()
            (await session.get_one(Hero, 1)).name = "Eve"
            with pytest.raises(InvalidRequestError, match="Hero is changed"):
                await session.commit()
            await session.rollback()
            session.add(Hero(id=2, name="Eve"))
            with pytest.raises(InvalidRequestError, match="Hero is added"):
                await session.flush()
        assert await name(db) == "Ada"

    run(work())


@pytest.mark.parametrize("how", WAYS, ids=["read_only", "snapshot"])
def test_rows_are_streamed_and_nothing_stays_open(db: Registry, run: Run, how: dict[str, bool]) -> None:
    """Without a transaction asyncpg has no cursors; one that stayed open would show the next reader an old state."""

    async def work() -> None:
        await rename(db, "Ada")
        async with db.async_transaction() as session:
            session.add_all(Hero(id=number, name="Many") for number in range(2, 302))
        for turn in range(4):
            async with db.async_session(**how) as session:
                rows = await session.stream(select(Hero).order_by(Hero.id).execution_options(yield_per=50))
                assert [row[0].id async for row in rows] == list(range(1, 302))
            await rename(db, f"turn {turn}")
            assert await name(db, **how) == f"turn {turn}"

    run(work())


@pytest.mark.parametrize("how", WAYS, ids=["read_only", "snapshot"])
def test_errors_and_cancellations_leave_nothing_behind(
    db: Registry, driver: str, run: Run, how: dict[str, bool]
) -> None:
    slow = {"postgresql": "SELECT pg_sleep(30)", "mariadb": "SELECT sleep(30)"}.get(DRIVERS[driver][0])

    asked = asyncio.Event()

    async def wait() -> None:
        async with db.async_session(**how) as session:
            await session.exec(text("SELECT 1"))  # type: ignore[call-overload]
            asyncio.get_running_loop().call_later(0.05, asked.set)  # when the statement is under way
            await session.exec(text(slow))  # type: ignore[call-overload]

    async def work() -> None:
        await rename(db, "Ada")
        for turn in range(4):
            async with db.async_session(**how) as session:
                with pytest.raises(DBAPIError):
                    await session.exec(text("SELECT * FROM nowhere"))  # type: ignore[call-overload]
            if slow:
                asked.clear()
                task = asyncio.create_task(wait())
                await asyncio.wait_for(asked.wait(), 30)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await rename(db, f"turn {turn}")
            assert await name(db, **how) == f"turn {turn}"

    run(work())


def test_readers_have_connections_of_their_own_which_end_with_the_loop(
    db: Registry, driver: str, run: Run, request: pytest.FixtureRequest
) -> None:
    system = DRIVERS[driver][0]
    server = None if system == "sqlite" else request.getfixturevalue(system)

    async def work() -> None:
        await rename(db, "Ada")
        for _ in range(3):
            assert await name(db, read_only=True) == "Ada"
            assert await name(db) == "Ada"
        if server is not None:
            assert len(server.connections()) == 2

    run(work())
    run(work())  # in a second loop
    if server is not None:
        wait_until(lambda: server.connections() == [], "the end of the connections")


def test_disposing_closes_the_readers_too(db: Registry, run: Run) -> None:
    async def work() -> None:
        await rename(db, "Ada")
        async with db.async_session(read_only=True) as session:
            first = session.bind
            assert await session.get(Hero, 1)
        await db.async_dispose()
        async with db.async_session(read_only=True) as session:
            assert session.bind is not first

    run(work())
