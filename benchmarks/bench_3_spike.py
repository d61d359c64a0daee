"""3. Spike: 5 warm connections, a connect takes 150 ms, 50 callers come at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from benchmarks.engines import ASYNC_DRIVERS, async_engines, native_pool, ours, stock
from benchmarks.harness import async_paired, in_threads, report, servers
from tests.engine.pool.support import url_of

CALLERS = 50
CONNECT = 0.150
ROUNDS = 7


def measure(engine: Engine) -> tuple[float, int]:
    """Return the seconds until all callers are served, and how many connections that has made."""
    connects = [0]

    def slow(dialect: Any, record: Any, arguments: Any, parameters: Any) -> None:
        connects[0] += 1
        time.sleep(CONNECT)

    warm = [engine.connect() for _ in range(5)]
    for connection in warm:
        connection.execute(text("SELECT 1"))
        connection.close()
    event.listen(engine, "do_connect", slow)

    def call(number: int) -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    took = in_threads(CALLERS, call)
    event.remove(engine, "do_connect", slow)
    time.sleep(CONNECT * 2)  # let what is under way end
    made = connects[0]
    engine.dispose()
    return took, made


CHURN_CALLERS = 15
CHURN_SECONDS = 2.0


async def select_one(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def spike(select: Callable[[], Awaitable[None]], connects: list[int]) -> tuple[float, int]:
    """The same for tasks; ``connects`` counts them, and five connections are warm."""
    before, began = connects[0], time.perf_counter()
    await asyncio.gather(*(select() for _ in range(CALLERS)))
    took = time.perf_counter() - began
    await asyncio.sleep(CONNECT * 2)
    return took, connects[0] - before


async def spike_of_engine(driver: str, url: str, name: str) -> tuple[float, int]:
    async with async_engines(url, pool_size=CALLERS, max_overflow=0) as engines:
        engine, connects = engines[name], [0]
        for connection in [await engine.connect() for _ in range(5)]:
            await connection.execute(text("SELECT 1"))
            await connection.close()

        def slow(*_: Any) -> None:
            connects[0] += 1
            await_only(asyncio.sleep(CONNECT))

        event.listen(engine.sync_engine, "do_connect", slow)
        found = await spike(partial(select_one, engine), connects)
        event.remove(engine.sync_engine, "do_connect", slow)
        return found


async def spike_of_native(driver: str, url: str) -> tuple[float, int]:
    native = native_pool(driver, url, least=5, most=CALLERS, connect=CONNECT)
    assert native is not None
    await native.open()
    await asyncio.gather(*(native.select() for _ in range(5)))
    found = await spike(native.select, native.connects)
    await native.close()
    return found


async def churn(driver: str, url: str, name: str) -> tuple[float, int]:
    """Return how many connections 15 busy callers on 5 + 10 make in two seconds, once they have begun."""
    async with async_engines(url, pool_size=5, max_overflow=10) as engines:
        engine, connects = engines[name], [0]

        def count(*_: Any) -> None:
            connects[0] += 1

        end = time.perf_counter() + CHURN_SECONDS

        async def work() -> None:
            await select_one(engine)
            while time.perf_counter() < end:
                await asyncio.sleep(random.random() * 0.01)
                await select_one(engine)

        held = [await engine.connect() for _ in range(CHURN_CALLERS)]
        for connection in held:
            await connection.close()
        event.listen(engine.sync_engine, "do_connect", count)
        await asyncio.gather(*(work() for _ in range(CHURN_CALLERS)))
        event.remove(engine.sync_engine, "do_connect", count)
        return 0.0, connects[0]


async def asynchronous(driver: str, url: str) -> None:
    runs: dict[str, Callable[[], Awaitable[tuple[float, int]]]] = {
        name: partial(spike_of_engine, driver, url, name) for name in ("stock", "ours")
    }
    native = {"asyncpg": "asyncpg.create_pool", "psycopg": "psycopg_pool"}.get(driver)
    if native is not None:
        runs[native] = partial(spike_of_native, driver, url)
    results = await async_paired(runs, ROUNDS)
    churns = {name: await churn(driver, url, name) for name in ("stock", "ours")}
    rows: list[tuple[Any, ...]] = []
    for name, found in results.items():
        took = sorted(run[0] for run in found)[ROUNDS // 2] * 1000
        made = sorted(run[1] for run in found)[ROUNDS // 2]
        rows.append((name, took, made, churns[name][1] if name in churns else "–"))
    report(
        f"3. spike of {CALLERS} callers on 5 warm connections, {driver} (asyncio)",
        (
            "pool",
            "all served after ms",
            "new connections",
            f"churn: connects of {CHURN_CALLERS} callers on 5 + 10 in {CHURN_SECONDS:.0f} s",
            "ratio to stock",
        ),
        [(*row, row[1] / rows[0][1]) for row in rows],
        "≤ 1/10 of stock's time, ≤ 3 new connections, churn 0",
    )


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for driver, (kind, drivername) in ASYNC_DRIVERS.items():
            asyncio.run(asynchronous(driver, url_of(running[kind], driver=drivername)))
        for kind, server in running.items():
            settings: dict[str, Any] = {"pool_size": 50, "max_overflow": 0}
            engines = {"stock": stock(url_of(server), **settings), "ours": ours(url_of(server), **settings)}
            results: dict[str, list[tuple[float, int]]] = {name: [] for name in engines}
            for _ in range(ROUNDS):
                for name, engine in engines.items():
                    results[name].append(measure(engine))
            rows: list[tuple[Any, ...]] = []
            for name, runs in results.items():
                took = sorted(run[0] for run in runs)[ROUNDS // 2]
                made = sorted(run[1] for run in runs)[ROUNDS // 2]
                rows.append((name, took * 1000, made))
            rows = [(*row, row[1] / rows[0][1]) for row in rows]
            report(
                f"3. spike of {CALLERS} callers on 5 warm connections, {kind}",
                ("pool", "all served after ms", "new connections", "ratio to stock"),
                rows,
                "≤ 1/10 of stock's time",
            )


if __name__ == "__main__":
    main()
