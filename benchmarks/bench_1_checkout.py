"""1. Checkout and checkin, uncontended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.engines import ASYNC_DRIVERS, async_engines, native_pool, ours, stock
from benchmarks.harness import async_paired, medians, paired, report, servers
from tests.engine.pool.support import url_of

OPERATIONS = 4000
OFF: dict[str, Any] = {"pool_pre_ping": False, "pool_recycle": -1, "pool_idle_timeout": None, "pool_keepalive": None}
ROUNDS = 21
ASYNC_OPERATIONS = 1000
ASYNC_ROUNDS = 21


def loop(take: Callable[[], Any], give: Callable[[Any], Any], operations: int) -> float:
    began = time.perf_counter()
    for _ in range(operations):
        give(take())
    return (time.perf_counter() - began) / operations * 1e6


def _close(connection: Any) -> None:
    connection.close()


async def async_loop(take: Callable[[], Any], give: Callable[[Any], Any], operations: int) -> tuple[float, float]:
    """Return microseconds of time, and of the processor's, which other programs on the machine do not lengthen."""
    began, used = time.perf_counter(), time.thread_time()
    for _ in range(operations):
        await give(await take())
    return (time.perf_counter() - began) / operations * 1e6, (time.thread_time() - used) / operations * 1e6


async def _connect(engine: AsyncEngine) -> Any:
    return await engine.connect()


async def _aclose(connection: Any) -> None:
    await connection.close()


async def asynchronous(driver: str, url: str) -> None:
    native = native_pool(driver, url, least=5, most=15)
    async with async_engines(url) as engines:
        runs = {
            name: partial(
                async_loop, partial(_connect, engine), _aclose, 100 if "pre-ping" in name else ASYNC_OPERATIONS
            )
            for name, engine in engines.items()
        }
        if native is not None:
            await native.open()
            runs[native.name] = partial(async_loop, native.take, native.give, ASYNC_OPERATIONS)
        for run in runs.values():
            await run()
        results = await async_paired(runs, ASYNC_ROUNDS)
        if native is not None:
            await native.close()
    wall = medians({name: [each[0] for each in found] for name, found in results.items()})
    cpu = medians({name: [each[1] for each in found] for name, found in results.items()})
    rows = [(name, wall[name], wall[name] / wall["stock"], cpu[name], cpu[name] / cpu["stock"]) for name in wall]
    columns = ("pool", "µs", "ratio to stock", "processor µs", "ratio to stock")
    report(f"1. checkout + checkin, uncontended, {driver} (asyncio)", columns, rows, "ours ≤ 1.0 of stock")


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for driver, (kind, drivername) in ASYNC_DRIVERS.items():
            asyncio.run(asynchronous(driver, url_of(running[kind], driver=drivername)))
        for kind, server in running.items():
            url = url_of(server)
            engines = {
                "stock": stock(url),
                "stock + pre-ping": stock(url, pre_ping=True),
                "ours, all defaults": ours(url),
                "ours, all off": ours(url, **OFF),
            }
            runs: dict[str, Callable[[], float]] = {
                name: partial(loop, engine.pool.connect, _close, 400 if "pre-ping" in name else OPERATIONS)
                for name, engine in engines.items()
            }
            psycopg = None
            if kind == "postgresql":
                with suppress(ImportError):
                    from psycopg_pool import ConnectionPool

                    plain = url.replace("postgresql+psycopg2", "postgresql")
                    psycopg = ConnectionPool(plain, min_size=5, max_size=15, open=True)
                    psycopg.wait()
                    runs["psycopg_pool"] = partial(loop, psycopg.getconn, psycopg.putconn, OPERATIONS)
            for run in runs.values():
                run()
            result = medians(paired(runs, ROUNDS))
            rows = [(name, us, us / result["stock"]) for name, us in result.items()]
            title = f"1. checkout + checkin, uncontended, {kind}"
            report(title, ("pool", "µs", "ratio to stock"), rows, "ours ≤ 1.0 of stock")
            for engine in engines.values():
                engine.dispose()
            if psycopg is not None:
                psycopg.close()


if __name__ == "__main__":
    main()
