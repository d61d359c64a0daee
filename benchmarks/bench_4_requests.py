"""4. One get per request: over loopback and through a proxy of 1 ms of delay.

``python -m benchmarks.bench_4_requests`` takes five minutes on an idle machine; ``--quick`` a third of that.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy import Engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.engines import ASYNC_DRIVERS, async_engines, connect_args_of, no_pool, ours, stock
from benchmarks.harness import async_paired, in_threads, medians, paired, report, servers
from benchmarks.network import delayed
from dbconfig import Profile, Registry
from tests.engine.pool.support import url_of

ROUNDS = 3
ASYNC_ROUNDS = 5
THREADS = (1, 4, 16, 64)
GET = text("SELECT n FROM t WHERE n = 1")


def get(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(GET).scalar_one()


def rate(work: Callable[[], None], threads: int, requests: int) -> float:
    each = max(1, requests // threads)

    def run(number: int) -> None:
        for _ in range(each):
            work()

    return each * threads / in_threads(threads, run)


def engine_per_request(url: str) -> None:
    engine = no_pool(url)
    get(engine)
    engine.dispose()


def read(db: Registry) -> None:
    with db.session(read_only=True) as session:
        session.scalar(GET)


def measure(url: str, threads: int, where: str, kind: str, requests: int, rounds: int) -> None:
    engines = {
        "NullPool": no_pool(url),
        "stock": stock(url),
        "stock + pre-ping": stock(url, pre_ping=True),
        "ours": ours(url),
    }
    runs: dict[str, Callable[[], float]] = {
        name: partial(rate, partial(get, engine), threads, requests // 10 if name == "NullPool" else requests)
        for name, engine in engines.items()
    }
    db = Registry.from_profile(Profile(name="benchmark", url=url, pool_size=5, **connect_args_of(url)))
    runs["ours, read only"] = partial(rate, partial(read, db), threads, requests)
    runs["engine per request"] = partial(rate, partial(engine_per_request, url), threads, max(threads, requests // 30))
    for run in runs.values():
        run()
    results = medians(paired(runs, rounds))
    rows = [
        (name, each, each / results["stock"], each / results["stock + pre-ping"], each / results["engine per request"])
        for name, each in results.items()
    ]
    report(
        f"4. one get per request, {threads} threads, {where}, {kind}",
        ("engine", "requests/s", "to stock", "to stock + pre-ping", "to engine per request"),
        rows,
        "never below stock; at 1 ms ≥ 1.2 × stock + pre-ping; ≥ 5 × engine per request",
    )
    for engine in engines.values():
        engine.dispose()
    db.dispose()


async def async_get(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        (await connection.execute(GET)).scalar_one()


async def async_read(db: Registry) -> None:
    async with db.async_session(read_only=True) as session:
        await session.scalar(GET)


async def async_rate(work: Callable[[], Awaitable[None]], tasks: int, requests: int) -> float:
    each = max(1, requests // tasks)

    async def run() -> None:
        for _ in range(each):
            await work()

    began = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(tasks)))
    return each * tasks / (time.perf_counter() - began)


async def asynchronous(driver: str, url: str, where: str) -> None:
    """One get at a distance; the network is a process of its own."""
    for tasks, requests in ((1, 100), (16, 480)):
        settings: dict[str, Any] = {"pool_size": 16, "max_overflow": 0}
        profile = Profile(name="benchmark", url=url, **settings)
        async with async_engines(url, **settings) as engines, Registry.from_profile(profile) as db:
            runs = {
                name: partial(async_rate, partial(async_get, each), tasks, requests) for name, each in engines.items()
            }
            runs["ours, read only"] = partial(async_rate, partial(async_read, db), tasks, requests)
            for run in runs.values():
                await run()
            results = medians(await async_paired(runs, ASYNC_ROUNDS))
        rows = [
            (name, each, each / results["stock"], each / results["stock + pre-ping"]) for name, each in results.items()
        ]
        report(
            f"4. one get per request, {tasks} tasks, {where}, {driver} (asyncio)",
            ("engine", "requests/s", "to stock", "to stock + pre-ping"),
            rows,
            "never below stock; at 1 ms ≥ 1.2 × stock + pre-ping",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, and half as many requests")
    parser.add_argument("--threads-only", action="store_true", help="leave asyncio out")
    given = parser.parse_args()
    rounds, requests, far = (1, 1000, 64) if given.quick else (ROUNDS, 2000, 128)
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            setup = no_pool(url_of(server))
            with setup.begin() as connection:
                connection.execute(text("CREATE TABLE t (n int)"))
                connection.execute(text("INSERT INTO t VALUES (1)"))
            with delayed(server.host, server.port, 0.001) as port:
                for driver, (system, drivername) in ASYNC_DRIVERS.items():
                    if system == kind and not given.threads_only:
                        url = make_url(url_of(server, driver=drivername)).set(port=port)
                        asyncio.run(asynchronous(driver, url.render_as_string(hide_password=False), "1 ms of delay"))
                for threads in THREADS:
                    url = make_url(url_of(server)).set(port=port).render_as_string(hide_password=False)
                    measure(url, threads, "1 ms of delay", kind, max(far, threads), rounds)
            for threads in THREADS:
                measure(url_of(server), threads, "loopback", kind, requests, rounds)


if __name__ == "__main__":
    main()
