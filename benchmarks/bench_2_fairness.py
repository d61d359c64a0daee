"""2. Fairness: 20 threads on 2 connections, 200 tasks on 10; each checkout runs one statement."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.engines import ASYNC_DRIVERS, async_engines, native_pool, ours, stock
from benchmarks.harness import async_paired, in_threads, report, servers
from tests.engine.pool.support import url_of

THREADS = 20
SECONDS = 3.0
ROUNDS = 5
ASYNC_ROUNDS = 3


def measure(engine: Engine) -> tuple[int, int, float, float]:
    """Return the fewest and the most checkouts of a thread, the worst wait in seconds, and checkouts per second."""
    counts, worst = [0] * THREADS, [0.0] * THREADS
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            asked = time.perf_counter()
            with engine.connect() as connection:
                worst[number] = max(worst[number], time.perf_counter() - asked)
                connection.execute(text("SELECT 1"))
            counts[number] += 1

    timer = threading.Timer(SECONDS, stop.set)
    timer.start()
    took = in_threads(THREADS, work)
    return min(counts), max(counts), max(worst), sum(counts) / took


TASKS = 200
TASKS_CONNECTIONS = 10
CHECKOUTS = TASKS * 12  # a share is a whole number: with fewer, the last round alone would make it unfair


async def in_tasks(select: Callable[[], Awaitable[None]]) -> tuple[int, int, float, float]:
    """The same for tasks, each of which takes a connection for one statement, again and again."""
    counts, worst = [0] * TASKS, [0.0] * TASKS
    began = time.perf_counter()

    async def work(number: int) -> None:
        while sum(counts) < CHECKOUTS:
            asked = time.perf_counter()
            await select()
            worst[number] = max(worst[number], time.perf_counter() - asked)
            counts[number] += 1

    await asyncio.gather(*(work(number) for number in range(TASKS)))
    return min(counts), max(counts), max(worst), sum(counts) / (time.perf_counter() - began)


async def select_one(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def asynchronous(driver: str, url: str) -> None:
    native = native_pool(driver, url, least=TASKS_CONNECTIONS, most=TASKS_CONNECTIONS, timeout=60.0)
    async with async_engines(url, pool_size=TASKS_CONNECTIONS, max_overflow=0, pool_timeout=60.0) as engines:
        runs = {name: partial(in_tasks, partial(select_one, engine)) for name, engine in engines.items()}
        if native is not None:
            await native.open()
            runs[native.name] = partial(in_tasks, native.select)
        results = await async_paired(runs, ASYNC_ROUNDS)
        if native is not None:
            await native.close()
    show(f"{TASKS} tasks on {TASKS_CONNECTIONS} connections, {driver} (asyncio)", results)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def show(what: str, results: dict[str, list[tuple[int, int, float, float]]]) -> None:
    rows: list[tuple[Any, ...]] = []
    for name, runs in results.items():
        fewest, most, worst, rate = (median([float(run[i]) for run in runs]) for i in range(4))
        share = median([run[0] / run[1] for run in runs])
        rows.append((name, int(fewest), int(most), share, worst * 1000, rate))
    rows = [(*row, row[4] / rows[0][4], row[5] / rows[0][5]) for row in rows]
    columns = ("pool", "fewest", "most", "min/max", "worst wait ms", "checkouts/s", "wait : stock", "rate : stock")
    report(
        f"2. fairness, {what}", columns, rows, "min/max ≥ 0.9, worst wait ≤ 1/50 of stock (threads), throughput ≥ 0.95"
    )


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for driver, (kind, drivername) in ASYNC_DRIVERS.items():
            asyncio.run(asynchronous(driver, url_of(running[kind], driver=drivername)))
        for kind, server in running.items():
            settings: dict[str, Any] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 60.0}
            engines = {"stock": stock(url_of(server), **settings), "ours": ours(url_of(server), **settings)}
            results: dict[str, list[tuple[int, int, float, float]]] = {name: [] for name in engines}
            for _ in range(ROUNDS):
                for name, engine in engines.items():
                    results[name].append(measure(engine))
            show(f"20 threads on 2 connections, {kind}", results)
            for engine in engines.values():
                engine.dispose()


if __name__ == "__main__":
    main()
