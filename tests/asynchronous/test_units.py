"""async_run_in_transaction: what `run_in_transaction` does, in tasks."""

import asyncio
import random

import pytest
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlmodel import Field, MetaData, SQLModel, select

from dbconfig import CommitUncertain, Profile, Registry


class Base(SQLModel):
    metadata = MetaData()


class Account(Base, table=True):
    __tablename__ = "async_account"
    id: int = Field(primary_key=True)
    balance: int


@pytest.fixture
def db(url):
    settings = {} if url.startswith("sqlite") else {"isolation_level": "SERIALIZABLE"}
    return Registry.from_profile(Profile(name="units", url=url, **settings))


async def furnish(db):
    async with db.async_engine().begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with db.async_transaction() as session:
        session.add_all(Account(id=number, balance=100) for number in range(1, 5))


async def balances(db):
    async with db.async_session() as session:
        return list((await session.exec(select(Account.balance).order_by(Account.id))).all())


def test_tasks_that_conflict_all_the_time_lose_and_double_nothing(db, run):
    expected = dict.fromkeys(range(1, 5), 100)

    async def transfers(seed):
        choose = random.Random(seed)
        for _ in range(10):
            source, target = choose.sample(range(1, 5), 2)

            async def work(session, source=source, target=target):
                taken, given = await session.get_one(Account, source), await session.get_one(Account, target)
                taken.balance -= 1
                given.balance += 1

            await db.async_run_in_transaction(work, attempts=50)
            expected[source] -= 1
            expected[target] += 1

    async def main():
        await furnish(db)
        await asyncio.gather(*(transfers(seed) for seed in range(6)))
        assert await balances(db) == list(expected.values())

    run(main())


def test_a_nested_call_joins_and_another_task_has_a_transaction_of_its_own(db, run):
    async def main():
        await furnish(db)
        seen = []

        async def inner(session):
            seen.append(session)

        async def outer(session):
            seen.append(session)
            await db.async_run_in_transaction(inner)

        await db.async_run_in_transaction(outer)
        assert seen[0] is seen[1]

        async def starts_a_task(session):
            await asyncio.create_task(db.async_run_in_transaction(inner))

        await db.async_run_in_transaction(starts_a_task)
        assert seen[2] is not seen[0]

    run(main())


def test_a_commit_within_is_refused_and_rolled_back(db, run):
    async def work(session):
        (await session.get_one(Account, 1)).balance = 0
        await session.commit()

    async def main():
        await furnish(db)
        with pytest.raises(InvalidRequestError, match="commits when its function returns"):
            await db.async_run_in_transaction(work)
        assert await balances(db) == [100] * 4

    run(main())


@pytest.mark.parametrize("drivername", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"])
def test_a_server_that_is_not_there_yet_is_waited_for(drivername, request, run):
    server = request.getfixturevalue("postgresql" if drivername.startswith("postgresql") else "mariadb")
    db = Registry.from_profile(Profile(name="units", url=server.url(drivername)))

    async def work(session):
        await session.connection()
        return "done"

    async def main():
        loop = asyncio.get_running_loop()
        server.stop()
        start = loop.run_in_executor(None, server.start)
        result = await db.async_run_in_transaction(work, timeout=30)
        await start
        return result

    assert run(main()) == "done"


@pytest.mark.parametrize("drivername", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"])
def test_a_server_that_cannot_be_reached_is_sqlalchemys_error(drivername, run):
    db = Registry.from_profile(Profile(name="units", url=f"{drivername}://app@127.0.0.1:9/d"))

    async def main():
        with pytest.raises(OperationalError):
            async with db.async_session() as session:
                await session.connection()

    run(main())


@pytest.mark.parametrize("drivername", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"])
def test_a_commit_whose_answer_is_lost_is_never_repeated(drivername, request, proxy, run):
    server = request.getfixturevalue("postgresql" if drivername.startswith("postgresql") else "mariadb")
    network = proxy(server)
    db = Registry.from_profile(Profile(name="units", url=server.url(drivername, host=network.host, port=network.port)))
    runs = []

    async def main():
        await furnish(db)

        async def work(session):
            runs.append(1)
            (await session.get_one(Account, 1)).balance += 1
            await session.flush()
            network.cut_when(b"COMMIT", after_forwarding=True)

        with pytest.raises(CommitUncertain):
            await db.async_run_in_transaction(work)
        assert runs == [1]

    run(main())
