"""6. Twice as many requests as the pool can serve: stock, ours, ours with `pool_queue_target` or `pool_max_waiting`.

Run it as `python -m benchmarks.bench_6_overload [threads|asyncio] [seconds=5] [service=0.05]`. On a busy machine
let each request take longer, so that the pool is what there is too little of, and not the processor.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from sqlalchemy import Engine, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.engines import async_ours, async_stock, ours, stock
from benchmarks.harness import in_threads as run_in_threads
from benchmarks.harness import percentile, report, servers
from tests.engine.pool.support import url_of

CONNECTIONS = 10
SERVICE = 0.05  # seconds a request holds its connection: 200 requests/s at most
SECONDS = 5.0
USEFUL = 1.0  # an answer that comes later than this helps nobody
TARGET = 0.05

Row = tuple[int, int, float, float, float, float]


def summary(count: int, answers: list[float], capacity: float, took: float) -> Row:
    """Return requests, useful answers, these over the capacity, p50 and p99 in ms, and seconds until all are done."""
    useful = sum(answer <= USEFUL for answer in answers)
    return count, useful, useful / capacity, percentile(answers, 0.5) * 1000, percentile(answers, 0.99) * 1000, took


def capacity_of_threads(engine: Engine, seconds: float, service: float) -> float:
    """Return how many requests as many callers as connections get done, one after the other."""
    end = time.perf_counter() + seconds
    done: list[int] = []

    def work(number: int) -> None:
        while time.perf_counter() < end:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                time.sleep(service)
            done.append(number)

    took = run_in_threads(CONNECTIONS, work)
    return len(done) * seconds / took


def in_threads(engine: Engine, seconds: float, service: float, capacity: float) -> Row:
    arrivals = 2 * CONNECTIONS / service
    answers: list[float] = []
    threads: list[threading.Thread] = []

    def request() -> None:
        asked = time.perf_counter()
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                time.sleep(service)
        except exc.TimeoutError:
            return
        answers.append(time.perf_counter() - asked)

    began = time.perf_counter()
    for number in range(int(arrivals * seconds)):
        pause = began + number / arrivals - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        thread = threading.Thread(target=request)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    return summary(len(threads), answers, capacity, time.perf_counter() - began)


async def capacity_of_tasks(engine: AsyncEngine, seconds: float, service: float) -> float:
    began = time.perf_counter()
    done: list[int] = []

    async def work(number: int) -> None:
        while time.perf_counter() < began + seconds:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await asyncio.sleep(service)
            done.append(number)

    await asyncio.gather(*(work(number) for number in range(CONNECTIONS)))
    took = time.perf_counter() - began
    await engine.dispose()
    return len(done) * seconds / took


async def in_tasks(engine: AsyncEngine, seconds: float, service: float, capacity: float) -> Row:
    arrivals = 2 * CONNECTIONS / service
    answers: list[float] = []
    tasks: list[asyncio.Task[None]] = []

    async def request() -> None:
        asked = time.perf_counter()
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await asyncio.sleep(service)
        except exc.TimeoutError:
            return
        answers.append(time.perf_counter() - asked)

    began = time.perf_counter()
    for number in range(int(arrivals * seconds)):
        pause = began + number / arrivals - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(request()))
    await asyncio.gather(*tasks)
    row = summary(len(tasks), answers, capacity, time.perf_counter() - began)
    await engine.dispose()
    return row


def main() -> None:
    worlds = [word for word in sys.argv[1:] if "=" not in word] or ["threads", "asyncio"]
    options = dict(word.split("=") for word in sys.argv[1:] if "=" in word)
    seconds, service = float(options.get("seconds", SECONDS)), float(options.get("service", SERVICE))
    settings: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": 30.0}
    contenders: dict[str, dict[str, Any]] = {
        "ours": {},
        "ours, pool_queue_target 50ms": {"pool_queue_target": TARGET},
        "ours, pool_max_waiting 50": {"pool_max_waiting": 50},
        "ours, pool_max_waiting 100": {"pool_max_waiting": 100},
    }
    with servers("postgresql") as running:
        server = running["postgresql"]
        for world in worlds:
            rows: list[tuple[Any, ...]] = []
            if world == "threads":
                url = url_of(server)
                measuring = stock(url, **settings)
                capacity = capacity_of_threads(measuring, seconds, service)
                measuring.dispose()
                for name in ("stock", *contenders):
                    engine = stock(url, **settings) if name == "stock" else ours(url, **settings, **contenders[name])
                    rows.append((name, *in_threads(engine, seconds, service, capacity)))
                    engine.dispose()
            else:
                url = url_of(server, driver="postgresql+asyncpg")
                capacity = asyncio.run(capacity_of_tasks(async_stock(url, **settings), seconds, service))
                for name in ("stock", *contenders):
                    asynchronous = (
                        async_stock(url, **settings)
                        if name == "stock"
                        else async_ours(url, **settings, **contenders[name])
                    )
                    rows.append((name, *asyncio.run(in_tasks(asynchronous, seconds, service, capacity))))
            report(
                f"6. overload, {world}: {2 * CONNECTIONS / service:.0f} requests/s for {seconds:g} s, "
                f"capacity {capacity / seconds:.0f}/s as measured (callers of the stock pool, one after the other)",
                (
                    "pool",
                    "requests",
                    f"answered within {USEFUL:.0f} s",
                    "× capacity",
                    "p50 ms",
                    "p99 ms",
                    "drained after s",
                ),
                rows,
                goal="with pool_queue_target and nothing else tuned, at least 0.95 × capacity is answered within 1 s",
            )


if __name__ == "__main__":
    main()
