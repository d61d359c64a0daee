"""The end of a loop's engines: nothing new, what runs may finish, the rest is cancelled, nothing is left."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

from dbconfig import Registry
from tests.asynchronous.conftest import DRIVERS

Run = Callable[[Coroutine[Any, Any, Any]], Any]
SLEEP = {
    "postgresql": "SELECT pg_sleep(20)",
    "mariadb": "SELECT SLEEP(20)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
}


async def work(registry: Registry, busy: asyncio.Event, statement: str, stay: float) -> None:
    async with registry.async_session() as session:
        connection = await session.connection()
        await connection.execute(text("SELECT 1"))
        busy.set()
        await connection.execute(text(statement))
        await asyncio.sleep(stay)
        await connection.execute(text("SELECT 2"))


async def begin(registry: Registry, statement: str = "SELECT 1", stay: float = 0.0) -> asyncio.Task[None]:
    busy = asyncio.Event()
    task = asyncio.create_task(work(registry, busy, statement, stay))
    await busy.wait()
    return task


@pytest.fixture
def left(driver: str, request: pytest.FixtureRequest, url: str) -> Callable[[], list[int]]:
    """The connections that the server still has; none on SQLite, which has no server."""
    system = DRIVERS[driver][0]
    if system == "sqlite":
        return list
    server = request.getfixturevalue(system)
    return lambda: server.connections(user=server.user)


async def until_none(left: Callable[[], list[int]]) -> None:
    for _ in range(1500):
        if not left():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"connections are left: {left()}")


def test_work_in_progress_finishes_and_new_work_is_refused(
    registry: Registry, run: Run, left: Callable[[], list[int]]
) -> None:
    async def main() -> None:
        old = registry.async_engine()
        task = await begin(registry, stay=0.3)
        ending = asyncio.create_task(registry.async_dispose(timeout=10))

        async def connect_until_it_has_begun() -> None:
            while True:
                await (await old.connect()).close()

        with pytest.raises(InvalidRequestError, match="tests: dispose\\(\\) has closed this engine"):
            await asyncio.wait_for(connect_until_it_has_begun(), 30)
        await ending
        assert task.done()
        await task
        await until_none(left)
        async with registry.async_session() as session:  # the next use begins anew
            assert await session.scalar(text("SELECT 3")) == 3

    run(main())


@pytest.mark.parametrize("kind", ["in a statement", "idle in its transaction"])
def test_what_does_not_finish_in_time_is_cancelled_and_cut(
    registry: Registry,
    run: Run,
    left: Callable[[], list[int]],
    driver: str,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        how = {"statement": SLEEP[DRIVERS[driver][0]]} if kind == "in a statement" else {"stay": 3.0}
        tasks = [await begin(registry, **how) for _ in range(1 if driver == "sqlite-memory" else 2)]
        with caplog.at_level(logging.WARNING, "dbconfig"):
            await asyncio.wait_for(registry.async_dispose(timeout=0.2), 10)
        assert f"{len(tasks)} connections still in use after 0.2 s are cancelled" in caplog.text
        await until_none(left)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, Exception) for each in results] == [True] * len(tasks)

    run(main())


def test_a_timeout_that_is_none_is_refused_before_anything_is_closed(registry: Registry, run: Run) -> None:
    async def main() -> None:
        engine = registry.async_engine()
        with pytest.raises(ValueError, match="timeout must be at least 0"):
            await registry.async_dispose(timeout=-1)
        assert registry.async_engine() is engine
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    run(main())
