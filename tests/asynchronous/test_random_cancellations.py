"""Tasks that write are cancelled at random, now and then twice: what was acknowledged is there, nothing else is left.

Reviews of the pool heal what a cancellation leaves behind: tests/engine/pool/test_task_parts.py shows that a cancelled
caller leaves without one, too.

`--cancellations 10000` runs so many for each driver, a thousand to a test; the usual run has a few hundred.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from tests.asynchronous.conftest import DRIVERS

TASKS = 8  # at once, on fewer connections
MIN_IDLE = 2
SETTINGS = {
    "pool_size": 3,
    "max_overflow": 2,
    "pool_timeout": "60s",
    "pool_min_idle": MIN_IDLE,
    "pool_idle_timeout": "500ms",
    "pool_keepalive": "5s",
}
LIMIT = 240.0  # seconds after which something hangs
A_TEST = 1000  # cancellations


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cancellations" in metafunc.fixturenames:
        total = metafunc.config.getoption("cancellations")
        parts = [(seed, min(A_TEST, total - begin)) for seed, begin in enumerate(range(0, total, A_TEST))]
        metafunc.parametrize(("seed", "cancellations"), parts, ids=[f"seed-{seed}" for seed, _ in parts])


class Writers:
    """Tasks that insert a number each, and what became of them."""

    def __init__(self, db: Registry, pick: random.Random) -> None:
        self.db = db
        self.pick = pick
        self.last = 0
        self.usual = 0.01  # seconds that one takes, when nobody disturbs it
        self.acknowledged: set[int] = set()
        self.cancelled: set[int] = set()

    async def insert(self, number: int) -> None:
        async with self.db.async_transaction() as session:
            connection = await session.connection()
            await connection.execute(text("SELECT count(*) FROM item WHERE n = 0"))
            await connection.execute(text(f"INSERT INTO item VALUES ({number})"))
        self.acknowledged.add(number)

    async def in_time(self, number: int, limit: float) -> None:
        """Be cancelled by a time limit instead of by another task."""
        async with asyncio.timeout(limit):
            await self.insert(number)

    async def in_group(self, number: int, limit: float) -> None:
        """Be cancelled because a sibling fails."""

        async def fail() -> None:
            await asyncio.sleep(limit)
            raise TimeoutError

        async with asyncio.TaskGroup() as group:
            work = group.create_task(self.insert(number))
            group.create_task(fail())
            await work

    def begin(self) -> tuple[int, asyncio.Task[None]]:
        self.last += 1
        number, limit = self.last, self.moment()
        kind = self.pick.choices(("plain", "in time", "in group"), (6, 1, 1))[0]
        work = {"in time": self.in_time, "in group": self.in_group}.get(kind)
        return number, asyncio.create_task(self.insert(number) if work is None else work(number, limit))

    def moment(self) -> float:
        return self.usual * self.pick.random() * 2

    async def measure(self) -> None:
        times = []
        for _ in range(5):
            began = time.monotonic()
            self.last += 1
            await self.insert(self.last)
            times.append(time.monotonic() - began)
        self.usual = sorted(times)[2]

    async def disturb(self) -> None:
        """Let some tasks begin, and cancel most of them."""
        tasks = dict(self.begin() for _ in range(TASKS))
        for _ in range(TASKS):
            if self.pick.random() < 0.5:
                await asyncio.sleep(self.moment() / TASKS)
            else:
                for _ in range(self.pick.randrange(6)):
                    await asyncio.sleep(0)
            victim = self.pick.choice(list(tasks.values()))
            victim.cancel()
            if self.pick.random() < 0.3:
                await asyncio.sleep(0)
                victim.cancel()
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for number, result in zip(tasks, results, strict=True):
            if number in self.acknowledged:
                continue
            assert was_cancelled(result), repr(result)
            self.cancelled.add(number)


def was_cancelled(result: BaseException | None) -> bool:
    if isinstance(result, BaseExceptionGroup):
        return all(map(was_cancelled, result.exceptions))
    return isinstance(result, asyncio.CancelledError | TimeoutError)


@pytest.fixture(params=[name for name in DRIVERS if name != "sqlite-memory"])
def driver(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(DRIVERS[request.param][2])
    return str(request.param)


def test_cancellations_at_random_lose_nothing_and_leave_nothing(
    driver: str, url: str, request: pytest.FixtureRequest, seed: int, cancellations: int
) -> None:
    system = DRIVERS[driver][0]
    server = None if system == "sqlite" else request.getfixturevalue(system)
    settings = SETTINGS if server is None else SETTINGS | {"connect_timeout": "60s"}

    def open_connections() -> int:
        if server is not None:
            return len(server.connections())
        # Not the files that are open: SQLite keeps those of closed connections as long as it has locks, for the next.
        return sum(thread.name == "dbconfig-aiosqlite" for thread in threading.enumerate())

    async def until(what: str, state: Callable[[], Any]) -> None:
        end = time.monotonic() + 60
        while not await asyncio.to_thread(state):
            assert time.monotonic() < end, what
            await asyncio.sleep(0.02)

    async def main() -> None:
        async with Registry.from_profile(Profile(name="tests", url=url, **settings)) as db:
            async with db.async_engine().begin() as connection:
                await connection.execute(text("CREATE TABLE item (n INTEGER)"))
            writers = Writers(db, random.Random(seed))
            await writers.measure()
            while len(writers.cancelled) < cancellations:
                await writers.disturb()
            pool = db.async_engine().pool
            await until("a connection is still checked out", lambda: pool.checkedout() == 0)
            assert not pool.waiters
            async with db.async_session() as session:
                found = list(await (await session.connection()).scalars(text("SELECT n FROM item ORDER BY n")))
            assert len(found) == len(set(found)), "something was written twice"
            assert writers.acknowledged <= set(found), "something that was acknowledged is lost"
            assert set(found) <= writers.acknowledged | writers.cancelled
            # All at once: one that is missing may still be connected, and one at rest be pinged (seen on Python 3.13).
            await until(
                "more or fewer connections than pool_min_idle are left",
                lambda: (pool.connecting, pool.checkedout(), len(pool.idle)) == (0, 0, MIN_IDLE),
            )
            await until("the server has other connections than the pool", lambda: open_connections() == MIN_IDLE)
            await writers.measure()  # and it goes on
        await until("a connection is left open at the end", lambda: open_connections() == 0)

    asyncio.run(asyncio.wait_for(main(), LIMIT))
