"""Cancelled at any await, a task leaves no connection checked out and no transaction open."""

import asyncio
import contextlib
import gc
import types

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry

STEPS = 60  # more awaits than any of the works below has


@types.coroutine
def cancelled_at(step, work, also=()):
    """Run a coroutine, and cancel the task when it waits for the n-th time (and for further times)."""
    waits = 0
    while True:
        try:
            waiting = work.send(None)
        except StopIteration:
            return False
        waits += 1
        if waits == step or waits in also:
            asyncio.current_task().cancel()
        try:
            yield waiting
        except BaseException as error:
            while True:
                try:
                    waiting = work.throw(error)
                except StopIteration:
                    return False
                waits += 1
                if waits in also:
                    asyncio.current_task().cancel()
                try:
                    yield waiting
                except BaseException as again:
                    error = again
                    continue
                error = None
                break


async def write(registry, step):
    async with registry.async_transaction() as session:
        await (await session.connection()).execute(text(f"INSERT INTO item VALUES ({step})"))
        await asyncio.sleep(0)


async def read(registry, step):
    async with registry.async_session() as session:
        await (await session.connection()).execute(text("SELECT count(*) FROM item"))
        await session.rollback()
        await (await session.connection()).execute(text("SELECT count(*) FROM item"))


async def written(registry):
    async with registry.async_session() as session:
        rows = await (await session.connection()).execute(text("SELECT n FROM item ORDER BY n"))
        return list(rows.scalars())


async def until(state):
    async with asyncio.timeout(30):
        while not state():
            await asyncio.sleep(0.01)


async def settled(registry):
    pool = registry.async_engine().pool
    with contextlib.suppress(TimeoutError):
        await until(lambda: not pool.checkedout())
    return pool.checkedout()


@pytest.mark.parametrize("work", [write, read])
@pytest.mark.parametrize("again", [0, 1, 2])
@pytest.mark.parametrize("warm", [True, False])
def test_cancelled_at_every_await(registry, run, work, again, warm):
    async def main():
        async with registry.async_engine().begin() as connection:
            await connection.execute(text("CREATE TABLE item (n INTEGER)"))
        finished, cancelled = [], 0
        for step in range(1, STEPS):
            if not warm:
                await registry.async_dispose()
            elif work is write:
                await written(registry)  # nobody holds a lock
            task = asyncio.create_task(step_of(registry, work, step, again))
            try:
                await task
                finished.append(step)
            except asyncio.CancelledError:
                cancelled += 1
            assert await settled(registry) == 0, f"after a cancellation at await {step}"
            if len(finished) > 2:
                break
        assert cancelled > 2
        assert len(finished) > 2, "the last steps lie behind the end of the work"
        if warm and work is write:
            # A cancelled COMMIT has happened or not, and with aiosqlite, whose thread goes on, a moment later.
            rows = await written(registry)
            assert len(rows) == len(set(rows))
            assert set(finished) <= set(rows)

    run(main())


async def step_of(registry, work, step, again):
    return await cancelled_at(step, work(registry, step), {step + again} if again else ())


def test_a_cancelled_transaction_is_rolled_back_at_the_server(url, run, request, driver):
    """The server itself is asked: no connection is in a transaction afterwards."""
    if driver not in ("asyncpg", "psycopg"):
        pytest.skip("looked up in pg_stat_activity")
    server = request.getfixturevalue("postgresql")
    registry = Registry.from_profile(Profile(name="tests", url=url, pool_size=2, max_overflow=0))

    query = "SELECT state FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'"

    async def slow():
        async with registry.async_transaction() as session:
            await (await session.connection()).execute(text("SELECT pg_sleep(30)"))

    async def main():
        task = asyncio.create_task(slow())
        await until(lambda: server.sql(f"{query} AND query = 'SELECT pg_sleep(30)'"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not server.sql(query))
        assert registry.async_engine().pool.checkedout() == 0

    run(main())
    gc.collect()


NUMBER = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
SLOW = {"postgresql": "SELECT 1 FROM pg_sleep(20)", "mariadb": "SELECT SLEEP(20) + 1"}
RUNS = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(20)'",
    "mariadb": "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(20)%'",
}


class Limit(Exception):
    """A time limit of the application's own."""


@types.coroutine
def struck(work):
    """Run a coroutine; what cancels its task strikes in it as an exception of another kind."""
    try:
        waiting = work.send(None)
        while True:
            try:
                sent = yield waiting
            except asyncio.CancelledError:
                waiting = work.throw(Limit())
            else:
                waiting = work.send(sent)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("error", [asyncio.CancelledError, Limit])
def test_an_answer_that_a_struck_task_has_not_read_reaches_nobody(url, driver, request, run, error):
    """Its connection is closed: after a cancellation by SQLAlchemy and by `interrupted`, else by the latter alone.

    Read-only sessions end without a rollback, which would read the answer, or fail.
    """
    if driver.startswith("sqlite"):
        pytest.skip("a thread of its own reads each answer to its end")
    system = "postgresql" if driver in ("asyncpg", "psycopg") else "mariadb"
    server = request.getfixturevalue(system)
    registry = Registry.from_profile(Profile(name="tests", url=url, pool_size=1, max_overflow=0))

    async def ask(statement):
        async with registry.async_session(read_only=True) as session:
            return (await (await session.connection()).execute(text(statement))).scalar()

    async def main():
        before = await ask(NUMBER[system])
        work = ask(SLOW[system])
        task = asyncio.create_task(work if error is asyncio.CancelledError else struck(work))
        await until(lambda: server.sql(RUNS[system]))
        task.cancel()
        with pytest.raises(error):
            await task
        assert [await ask(f"SELECT {number}") for number in (101, 102, 103)] == [101, 102, 103]
        assert await ask(NUMBER[system]) != before
        await registry.async_dispose()

    run(main())


def test_a_waiter_for_the_pool_that_is_cancelled_leaves_its_place_to_the_next(registry, run, driver):
    if driver == "sqlite-memory":
        pytest.skip("its pool has no limit of this kind")

    async def hold(released):
        async with registry.async_session() as session:
            await session.connection()
            await released.wait()

    async def main():
        released = asyncio.Event()
        holders = [asyncio.create_task(hold(released)) for _ in range(2)]
        await until(lambda: registry.async_engine().pool.checkedout() == 2)
        waiters = [asyncio.create_task(hold(released)) for _ in range(10)]
        await asyncio.sleep(0)  # each begins to wait
        for each in waiters[:5]:
            each.cancel()
        released.set()
        results = await asyncio.gather(*holders, *waiters, return_exceptions=True)
        assert [type(each) for each in results[2:7]] == [asyncio.CancelledError] * 5
        assert results[7:] == [None] * 5
        assert registry.async_engine().pool.checkedout() == 0

    run(main())
