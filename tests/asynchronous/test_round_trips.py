"""A ROLLBACK that carries nothing is not sent, and the dangerous cases show that those that do are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, MetaData, SQLModel

from dbconfig import Profile, Registry
from dbconfig.engine.pool import ping
from tests.support.clock import Clock
from tests.support.proxy import Proxy
from tests.support.servers import Server

pytestmark = pytest.mark.server


class Base(SQLModel):
    metadata = MetaData()


class Item(Base, table=True):
    __tablename__ = "async_round_trip_item"
    id: int | None = Field(default=None, primary_key=True)
    value: int = 0


def registry(url: str) -> Registry:
    return Registry.from_profile(Profile(name="trips", url=url, pool_size=1, max_overflow=0))


@pytest.fixture(params=["asyncmy", "aiomysql"])
def opened(request: pytest.FixtureRequest, mariadb: Server) -> Callable[[], object]:
    """MariaDB with one connection: whatever stays on it meets the next user."""
    pytest.importorskip(request.param)
    with registry(mariadb.url()) as db:
        db.create_tables(Item)

    @asynccontextmanager
    async def make() -> AsyncIterator[Registry]:
        async with registry(mariadb.url(f"mysql+{request.param}")) as db:
            async with db.async_transaction() as session:
                session.add(Item(id=1))
            yield db

    return make


def run(opened: Callable[..., object], work: Callable[[Registry], Awaitable[None]]) -> None:
    async def inner() -> None:
        async with opened() as db:  # type: ignore[attr-defined]
            await work(db)

    asyncio.run(asyncio.wait_for(inner(), 60))


async def value(db: Registry) -> int:
    async with db.async_session() as session:
        return (await session.get_one(Item, 1)).value


def change(server: Server, value: int) -> None:
    server.sql(f"UPDATE async_round_trip_item SET value = {value}")


@pytest.mark.parametrize(("driver", "rounds"), [("asyncmy", 2), ("aiomysql", 2), ("asyncpg", 3), ("psycopg", 3)])
def test_what_a_session_costs(
    request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy], driver: str, rounds: int
) -> None:
    pytest.importorskip(driver)
    system = "mariadb" if "my" in driver else "postgresql"
    server = request.getfixturevalue(system)
    network = proxy(server)
    with registry(server.url()) as db:
        db.create_tables(Item)

    async def work() -> None:
        async with registry(
            server.url(f"{'mysql' if system == 'mariadb' else system}+{driver}", port=network.port)
        ) as db:
            for turn in range(9):
                if turn == 8:
                    network.reset_counters()
                async with db.async_session() as session:
                    await session.get(Item, 1)
            assert network.round_trips() == rounds
            network.reset_counters()
            async with db.async_session() as session:
                await session.connection()
            assert network.round_trips() == 0

    asyncio.run(work())


def test_a_snapshot_that_a_select_has_taken_is_given_up(opened: Callable[..., object], mariadb: Server) -> None:
    async def work(db: Registry) -> None:
        for number in range(1, 4):
            change(mariadb, number)
            assert await value(db) == number

    run(opened, work)


def test_the_driver_itself_is_watched_after_a_commit(opened: Callable[..., object], mariadb: Server) -> None:
    """The hole of every tracking by SQLAlchemy's hooks: a snapshot that stays would be the next user's."""

    async def work(db: Registry) -> None:
        async with db.async_engine().connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.commit()
            driver = (await connection.get_raw_connection()).driver_connection
            async with driver.cursor() as cursor:
                await cursor.execute("SELECT value FROM async_round_trip_item WHERE id = 1")
        change(mariadb, 9)
        assert await value(db) == 9
        async with db.async_engine().connect() as connection:
            await connection.commit()
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.begin()
            await driver.query("INSERT INTO async_round_trip_item (value) VALUES (77)")
        assert mariadb.sql("SELECT count(*) FROM async_round_trip_item") == [(1,)]

    run(opened, work)


def test_what_failed_or_was_cancelled_is_rolled_back(opened: Callable[..., object], mariadb: Server) -> None:
    flushed = asyncio.Event()

    async def insert_and_wait(db: Registry) -> None:
        async with db.async_session() as session:
            await session.commit()
            session.add(Item(id=3))
            await session.flush()
            flushed.set()
            await asyncio.sleep(30)

    async def work(db: Registry) -> None:
        async with db.async_session() as session:
            session.add(Item(id=2))
            await session.flush()
            session.add(Item(id=1))
            with pytest.raises(IntegrityError):
                await session.flush()
        task = asyncio.create_task(insert_and_wait(db))
        await asyncio.wait_for(flushed.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with db.async_session() as session:
            assert [await session.get(Item, number) for number in (2, 3)] == [None, None]
        change(mariadb, 5)  # nobody holds a lock
        assert await value(db) == 5

    run(opened, work)


def test_a_connection_that_breaks_is_not_taken_for_clean(
    opened: Callable[..., object], mariadb: Server, clock: Clock
) -> None:
    async def work(db: Registry) -> None:
        async with db.async_engine().connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.commit()
            mariadb.terminate()
        clock.advance(ping.TRUST)
        assert await value(db) == 0

    run(opened, work)
