"""What asynchronous engines, sessions and transactions do, on every driver."""

import asyncio
import threading

import pytest
from sqlalchemy import text
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig import Profile, Registry


class Wheel(SQLModel, table=True):
    __tablename__ = "async_wheel"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)


async def make_table(registry):
    async with registry.async_engine().begin() as connection:
        await connection.run_sync(lambda sync: SQLModel.metadata.create_all(sync, tables=[Wheel.__table__]))


async def sql(session, statement):
    await (await session.connection()).execute(text(statement))


async def names(registry):
    async with registry.async_session() as session:
        return sorted((await session.exec(select(Wheel.name))).all())


def test_objects_are_readable_after_the_commit(registry, run):
    async def main():
        await make_table(registry)
        async with registry.async_session() as session:
            assert isinstance(session, AsyncSession)
            wheel = Wheel(name="kept")
            session.add(wheel)
            await session.commit()
        assert wheel.name == "kept"
        assert wheel.id is not None

    run(main())


def test_an_explicit_expire_on_commit_is_kept(url, run):
    async def main():
        async with Registry.from_profile(Profile(name="tests", url=url, expire_on_commit=True)) as registry:
            assert registry.async_session().sync_session.expire_on_commit is True

    run(main())


def test_both_kinds_of_engine_see_one_database(url, run):
    system, _, rest = url.partition("://")
    registry = Registry.from_profile(Profile(name="tests", url=f"{system.partition('+')[0]}://{rest}"))
    registry.create_tables(Wheel)
    with registry.transaction() as session:
        session.add(Wheel(name="sync"))

    async def main():
        async with registry.async_transaction() as session:
            session.add(Wheel(name="async"))
        assert await names(registry) == ["async", "sync"]

    run(main())
    with registry.session() as session:
        assert len(session.exec(select(Wheel)).all()) == 2
    registry.dispose()


def test_concurrent_tasks_wait_for_the_pool_and_lose_nothing(registry, run):
    async def add(number):
        async with registry.async_transaction() as session:
            await session.exec(select(Wheel.id))
            session.add(Wheel(name=f"{number:02}"))

    async def main():
        await make_table(registry)
        await asyncio.gather(*(add(number) for number in range(30)))
        assert await names(registry) == [f"{number:02}" for number in range(30)]
        assert registry.async_engine().pool.checkedout() == 0

    run(main())


def test_two_loops_one_after_the_other_have_engines_of_their_own(registry, run):
    async def main():
        async with registry.async_session() as session:
            await sql(session, "SELECT 1")
        return id(registry.async_engine()), registry.async_engine() is registry.async_engine()

    first, same = run(main())
    second, _ = run(main())
    assert same
    assert len(registry.parts.loops._known) == 0
    del first, second


def test_loops_in_two_threads_at_once(registry):
    failures = []

    def thread():
        async def main():
            for _ in range(20):
                async with registry.async_session() as session:
                    await sql(session, "SELECT 1")
            return registry.async_engine()

        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert failures == []


def test_a_session_that_was_never_closed_does_not_outlive_its_loop(registry, run):
    async def main():
        session = registry.async_session()
        await sql(session, "SELECT 1")
        return session

    run(main())


def test_dispose_closes_and_the_next_use_begins_anew(registry, run):
    async def main():
        async with registry.async_session() as session:
            await sql(session, "SELECT 1")
        first = registry.async_engine()
        await registry.async_dispose()
        # Kept by somebody, it stays: a database has one pool, not two. In memory the next use begins with nothing.
        in_memory = registry.profile.databases["default"].in_memory
        assert (registry.async_engine() is first) is not in_memory
        async with registry.async_session() as session:
            await sql(session, "SELECT 1")

    run(main())


def test_without_a_loop_the_error_says_where_to_call(registry):
    with pytest.raises(RuntimeError, match="call this in a coroutine"):
        registry.async_engine()
