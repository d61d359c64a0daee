"""5. A server that has gone silent: the longest time that a caller waits, against pool_timeout."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.engines import ASYNC_DRIVERS, async_engines, native_pool, ours, stock
from benchmarks.harness import in_threads, report, servers
from tests.engine.pool.support import url_of
from tests.support.proxy import Proxy

POOL_TIMEOUT = 2.0
CALLERS = 12
GIVE_UP = 20.0  # then the server is let go on, so that the stock pool's callers come back at all
ASYNC_GIVE_UP = 8.0
WARM = 4


def longest_wait(engine: Engine, silence: Any, heal: Any) -> float:
    """Return the longest acquisition; the statement that follows is not part of it."""
    import threading

    held = [engine.connect() for _ in range(WARM)]
    for connection in held:
        connection.execute(text("SELECT 1"))
        connection.close()
    time.sleep(1.2)  # longer than a connection may rest without a ping
    waits = [0.0] * CALLERS
    silence()
    timer = threading.Timer(GIVE_UP, heal)
    timer.start()

    def call(number: int) -> None:
        began = time.perf_counter()
        with suppress(Exception):
            engine.connect().close()
        waits[number] = time.perf_counter() - began

    in_threads(CALLERS, call)
    timer.cancel()
    heal()
    time.sleep(0.5)
    engine.dispose()
    return max(waits)


def _heal(wire: Proxy) -> None:
    wire.pass_through()  # for new connections; the silent ones are broken off
    wire.reset()


async def async_longest_wait(url: str, name: str, driver: str, silence: Any, heal: Any) -> float:
    settings: dict[str, Any] = {"pool_size": 5, "max_overflow": 10, "pool_timeout": POOL_TIMEOUT}
    native = None
    if name not in ("stock", "stock + pre-ping", "ours"):
        native = native_pool(driver, url, least=WARM, most=15, timeout=POOL_TIMEOUT, check=True)
    async with async_engines(url, **settings) as engines:

        async def take() -> None:
            if native is not None:
                await native.give(await native.take())
            else:
                await (await engines[name].connect()).close()

        if native is not None:
            await native.open()
            await asyncio.gather(*(native.select() for _ in range(WARM)))
        else:
            for connection in [await engines[name].connect() for _ in range(WARM)]:
                await connection.execute(text("SELECT 1"))
                await connection.close()
        await asyncio.sleep(1.2)  # longer than a connection may rest without a ping
        await asyncio.to_thread(silence)
        healing = asyncio.get_running_loop().call_later(ASYNC_GIVE_UP, heal)

        async def call() -> float:
            began = time.perf_counter()
            with suppress(Exception):
                await take()
            return time.perf_counter() - began

        waits = await asyncio.gather(*(call() for _ in range(CALLERS)))
        healing.cancel()
        await asyncio.to_thread(heal)
        if native is not None:
            await native.close()
        return max(waits)


def asynchronous(driver: str, server: Any, drivername: str) -> None:
    native = {"asyncpg": ["asyncpg.create_pool"], "psycopg": ["psycopg_pool, check"]}.get(driver, [])
    rows = []
    for how in ("SIGSTOP", "a proxy that swallows"):
        for name in ("stock", "stock + pre-ping", "ours", *native):
            with Proxy(server.host, server.port) as wire:
                url = url_of(server, wire, drivername)
                heal = partial(_heal, wire)
                acts = (server.pause, server.resume) if how == "SIGSTOP" else (wire.swallow, heal)
                wait = asyncio.run(async_longest_wait(url, name, driver, *acts))
            rows.append((how, name, wait, wait / POOL_TIMEOUT))
    report(
        f"5. silent server, {CALLERS} callers, pool_timeout {POOL_TIMEOUT} s, {driver} (asyncio)",
        ("how", "pool", f"longest wait s (healed after {ASYNC_GIVE_UP:.0f} s)", "× pool_timeout"),
        rows,
        "≤ 1.1 × pool_timeout; what does not look at a connection lends a dead one at once",
    )


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for driver, (kind, drivername) in ASYNC_DRIVERS.items():
            asynchronous(driver, running[kind], drivername)
        for kind, server in running.items():
            rows = []
            for how in ("SIGSTOP", "a proxy that swallows"):
                for name in ("stock + pre-ping", "ours"):
                    with Proxy(server.host, server.port) as wire:
                        url = url_of(server, wire)
                        settings: dict[str, Any] = {"pool_size": 5, "max_overflow": 10, "pool_timeout": POOL_TIMEOUT}
                        engine = ours(url, **settings) if name == "ours" else stock(url, pre_ping=True, **settings)
                        heal = partial(_heal, wire)
                        acts = (server.pause, server.resume) if how == "SIGSTOP" else (wire.swallow, heal)
                        wait = longest_wait(engine, *acts)
                    rows.append((how, name, wait, wait / POOL_TIMEOUT))
            report(
                f"5. silent server, {CALLERS} callers, pool_timeout {POOL_TIMEOUT} s, {kind}",
                ("how", "pool", f"longest wait s (healed after {GIVE_UP:.0f} s)", "× pool_timeout"),
                rows,
                "≤ 1.1 × pool_timeout",
            )


if __name__ == "__main__":
    main()
