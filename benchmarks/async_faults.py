"""What asyncio does to pools: A01–A14 with ours, asyncpg.create_pool, psycopg_pool, and stock SQLAlchemy.

Each pool stands before the same PostgreSQL, behind a proxy that can be slow or silent. A cell says "right", or what
went wrong. `python -m benchmarks.async_faults [A01 …] [--pools ours-asyncpg …] [--load 20]` prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.harness import report, servers
from dbconfig import Profile, Registry
from tests.support.proxy import Proxy

SIZE = 2
TIMEOUT = 2.0  # of the pool
LIMIT = 60.0  # seconds after which a situation is said to hang
HARD_LIMIT = 10.0  # seconds in which a connection is given back, with a server that confirms nothing


class Wrong(Exception):
    """What is not right, in a few words."""


class Pool:
    """One of the pools, with the same verbs."""

    name = ""
    closes_in_use = True  # whether `close` returns while a connection is out

    def __init__(self, url: str, size: int = SIZE, timeout: float = TIMEOUT) -> None:
        self.url, self.size, self.timeout = make_url(url), size, timeout

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    async def ask(self, connection: Any, statement: str) -> Any: ...
    async def select(self, statement: str = "SELECT 1") -> Any:
        async with self.connection() as connection:
            return await self.ask(connection, statement)


class Ours(Pool):
    name = "ours, asyncpg"
    driver = "postgresql+asyncpg"

    async def open(self) -> None:
        url = self.url.set(drivername=self.driver).render_as_string(hide_password=False)
        profile = Profile(
            name="bench", url=url, pool_size=self.size, max_overflow=0, pool_timeout=self.timeout, pool_pre_ping=True
        )
        self.db = Registry.from_profile(profile)

    async def close(self) -> None:
        await self.db.async_dispose()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self.db.async_engine().connect()

    async def ask(self, connection: Any, statement: str) -> Any:
        return (await connection.execute(text(statement))).scalar()


class OursPsycopg(Ours):
    name = "ours, psycopg"
    driver = "postgresql+psycopg"


class Stock(Ours):
    name = "SQLAlchemy, asyncpg"

    async def open(self) -> None:
        url = self.url.set(drivername=self.driver)
        self.engine = create_async_engine(
            url, pool_size=self.size, max_overflow=0, pool_timeout=self.timeout, pool_pre_ping=True
        )

    async def close(self) -> None:
        await self.engine.dispose()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self.engine.connect()


class StockPsycopg(Stock):
    name = "SQLAlchemy, psycopg"
    driver = "postgresql+psycopg"


class Asyncpg(Pool):
    name = "asyncpg.create_pool"

    async def open(self) -> None:
        import asyncpg

        address = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.pool = asyncpg.create_pool(address, min_size=0, max_size=self.size)
        await self.pool

    async def close(self) -> None:
        await self.pool.close()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self.pool.acquire(timeout=self.timeout)  # type: ignore[no-any-return]

    async def ask(self, connection: Any, statement: str) -> Any:
        return await connection.fetchval(statement)


class PsycopgPool(Pool):
    name = "psycopg_pool"

    async def open(self) -> None:
        from psycopg_pool import AsyncConnectionPool

        address = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.pool = AsyncConnectionPool(
            address,
            min_size=0,
            max_size=self.size,
            timeout=self.timeout,
            open=False,
            check=AsyncConnectionPool.check_connection,
        )
        await self.pool.open()

    async def close(self) -> None:
        await self.pool.close(timeout=TIMEOUT)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self.pool.connection()

    async def ask(self, connection: Any, statement: str) -> Any:
        return (await (await connection.execute(statement)).fetchone())[0]


POOLS: dict[str, type[Pool]] = {
    "ours-asyncpg": Ours,
    "ours-psycopg": OursPsycopg,
    "asyncpg-pool": Asyncpg,
    "psycopg-pool": PsycopgPool,
    "stock-asyncpg": Stock,
    "stock-psycopg": StockPsycopg,
}


class Stage:
    """A server behind a proxy, and the pools that are opened on it."""

    def __init__(self, kind: type[Pool], server: Any, network: Proxy, load: float) -> None:
        self.kind, self.server, self.network, self.load = kind, server, network, load
        self.url = str(server.url(host=network.host, port=network.port))
        self.pick = random.Random(5)

    def pool(self, **given: Any) -> Pool:
        return self.kind(self.url, **given)

    @asynccontextmanager
    async def opened(self, **given: Any) -> AsyncIterator[Pool]:
        pool = self.pool(**given)
        await pool.open()
        try:
            yield pool
        finally:
            with suppress(Exception):
                async with asyncio.timeout(HARD_LIMIT):
                    await pool.close()

    async def sessions(self) -> int:
        return len(await asyncio.to_thread(self.server.connections))

    async def active(self) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(30)%'"
        query += " AND pid <> pg_backend_pid()"
        return int((await asyncio.to_thread(self.server.sql, query))[0][0])

    async def whole(self, pool: Pool, *, cut_off: bool = False) -> None:
        """All connections of a pool can be had at once, and the server has no others.

        It does not learn of the end of those that were cut off from it.
        """

        async def one(arrived: list[None]) -> None:
            async with pool.connection() as connection:
                await pool.ask(connection, "SELECT 1")
                arrived.append(None)
                while len(arrived) < pool.size:
                    await asyncio.sleep(0.01)

        arrived: list[None] = []
        try:
            async with asyncio.timeout(8):
                await asyncio.gather(*(one(arrived) for _ in range(pool.size)))
        except Exception as error:
            raise Wrong(f"{pool.size - len(arrived)} of {pool.size} places lost ({type(error).__name__})") from error
        if not cut_off:
            await self.at_most(pool.size)

    async def at_most(self, count: int, within: float = 8.0) -> None:
        end = time.monotonic() + within
        while (found := await self.sessions()) > count:
            if time.monotonic() > end:
                raise Wrong(f"{found - count} server sessions too many")
            await asyncio.sleep(0.05)


async def soon(work: Awaitable[Any], seconds: float, what: str) -> Any:
    """Wait for something that has to end in time."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        raise Wrong(f"{what} takes more than {seconds:g} s")
    return task.exception() or task.result() if not task.cancelled() else asyncio.CancelledError()


async def hold(pool: Pool, free: asyncio.Event, held: asyncio.Event) -> None:
    async with pool.connection() as connection:
        await pool.ask(connection, "SELECT 1")
        held.set()
        await free.wait()


async def a01(stage: Stage) -> None:
    """A waiter is cancelled in the step in which it is handed a connection."""
    async with stage.opened(size=1) as pool:
        for steps in [*range(12)] * 3:
            free, held = asyncio.Event(), asyncio.Event()
            holder = asyncio.create_task(hold(pool, free, held))
            await held.wait()
            first = asyncio.create_task(pool.select())
            await asyncio.sleep(0.002)
            second = asyncio.create_task(pool.select("SELECT 2"))
            await asyncio.sleep(0.002)
            free.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            asked = first.cancel()
            results = await asyncio.gather(first, second, return_exceptions=True)
            await holder
            if asked and results[0] == 1 and not first.cancelled() and steps < 2:
                raise Wrong("the cancellation was swallowed")
            if results[1] != 2:
                raise Wrong(f"the next one got {type(results[1]).__name__}")
        await stage.whole(pool)


async def a02(stage: Stage) -> None:
    """A cancellation during the check of a connection."""
    async with stage.opened() as pool:
        await pool.select()
        stage.network.delay(0.02)
        for _ in range(20):
            await asyncio.sleep(0.01)
            task = asyncio.create_task(pool.select())
            await asyncio.sleep(0.005 + stage.pick.random() * 0.06)
            if task.cancel():
                result = await soon(task, 3, "the end of a cancelled caller")
                if not isinstance(result, asyncio.CancelledError | int):
                    raise Wrong(f"{type(result).__name__} instead of the cancellation")
        stage.network.pass_through()
        await stage.whole(pool)


async def a03(stage: Stage) -> None:
    """The caller's own time limit is shorter than the pool's."""
    async with stage.opened(timeout=20.0) as pool:
        await pool.select()
        await asyncio.sleep(0.1)

        async def limited() -> float:
            began = time.monotonic()
            try:
                async with asyncio.timeout(0.5):
                    await pool.select()
            except TimeoutError:
                return time.monotonic() - began
            raise Wrong("the time limit was swallowed")

        stage.network.swallow_existing()
        took = await soon(limited(), 8, "a caller with a limit of 0.5 s, while the server is silent,")
        if isinstance(took, BaseException):
            raise took
        if took > 1.0:
            raise Wrong(f"0.5 s became {took:.1f} s")
        stage.network.pass_through()
        free = asyncio.Event()
        holders = []
        for _ in range(pool.size):
            held = asyncio.Event()
            holders.append(asyncio.create_task(hold(pool, free, held)))
            await soon(held.wait(), 15, "a new connection")
        took = await soon(limited(), 8, "a caller with a limit of 0.5 s, while the pool is full,")
        free.set()
        await asyncio.gather(*holders)
        if isinstance(took, BaseException):
            raise took
        if took > 1.0:
            raise Wrong(f"0.5 s became {took:.1f} s")
        await stage.whole(pool, cut_off=True)


async def a04(stage: Stage) -> None:
    """An anyio task group is cancelled with connections out: each await of the clean-up is cancelled anew."""
    import anyio

    async with stage.opened() as pool:

        async def work() -> None:
            await pool.select("SELECT 1 FROM pg_sleep(30)")

        async def group() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(2 * SIZE):
                    tasks.start_soon(work)
                await anyio.sleep(0.3)
                tasks.cancel_scope.cancel()

        for _ in range(3):
            result = await soon(group(), HARD_LIMIT, "the end of the group")
            if isinstance(result, Exception):
                raise Wrong(f"the group ends with {type(result).__name__}")
        end = time.monotonic() + 5
        while left := await stage.active():
            if time.monotonic() > end:
                raise Wrong(f"{left} statements go on at the server")
            await asyncio.sleep(0.05)
        await stage.whole(pool)


async def a05(stage: Stage) -> None:
    """A cancellation in mid-connect."""
    stage.network.delay(0.005)
    for number in range(30):
        async with stage.opened() as pool:
            task = asyncio.create_task(pool.select())
            await asyncio.sleep(0.004 * number)
            task.cancel()
            result = await soon(task, 5, "a cancelled connect")
            if not isinstance(result, asyncio.CancelledError | int):
                raise Wrong(f"{type(result).__name__} instead of the cancellation")
    stage.network.pass_through()
    await stage.at_most(0)


async def a06(stage: Stage) -> None:
    """The server does not confirm the cancel of a statement."""
    async with stage.opened(size=1) as pool:
        task = asyncio.create_task(pool.select("SELECT 1 FROM pg_sleep(30)"))
        while not await stage.active():
            await asyncio.sleep(0.02)
        stage.network.swallow()
        began = time.monotonic()
        task.cancel()
        await soon(task, HARD_LIMIT, "giving back to a silent server")
        took = time.monotonic() - began
        stage.network.pass_through()
        await asyncio.sleep(max(0.0, 1.0 - took))
        await stage.whole(pool, cut_off=True)


async def a07(stage: Stage) -> None:
    """The pool is closed while callers wait, connect, and are cancelled."""
    pool = stage.pool(size=1)
    await pool.open()
    free, held = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(hold(pool, free, held))
    await held.wait()
    waiters = [asyncio.create_task(pool.select()) for _ in range(4)]
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(pool.close())
    waiters[1].cancel()
    await asyncio.sleep(0.3)
    waiters[2].cancel()
    free.set()
    await asyncio.wait([closing, holder, *waiters], timeout=8)
    waiting = sum(not waiter.done() for waiter in waiters)
    closed = closing.done()
    for task in (closing, holder, *waiters):
        task.cancel()
    await asyncio.gather(closing, holder, *waiters, return_exceptions=True)
    if waiting:
        raise Wrong(f"{waiting} of 4 waiters have no answer after 8 s")
    if not closed:
        raise Wrong("close does not return within 8 s")
    await stage.at_most(0)


async def a08(stage: Stage) -> None:
    """Load of which every tenth request is cancelled: tasks, descriptors, and server sessions stay flat."""
    async with stage.opened(timeout=20.0) as pool:

        async def request(number: int) -> None:
            task = asyncio.create_task(pool.select())
            if number % 10 == 0:
                await asyncio.sleep(stage.pick.random() * 0.01)
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        async def load(seconds: float) -> None:
            end = time.monotonic() + seconds

            async def caller(number: int) -> None:
                while time.monotonic() < end:
                    await request(number)
                    number += 7

            await asyncio.gather(*(caller(number) for number in range(12)))

        async def state() -> tuple[int, int]:
            await asyncio.sleep(0.5)
            gc.collect()
            return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

        await load(2.0)
        tasks, files = await state()
        await load(stage.load)
        tasks_after, files_after = await state()
        if tasks_after > tasks + 2:
            raise Wrong(f"{tasks_after - tasks} tasks more")
        if files_after > files + SIZE:
            raise Wrong(f"{files_after - files} descriptors more")
        await stage.whole(pool)


async def a09(stage: Stage) -> None:
    """Our limit, the driver's, and the caller's at once: the shortest acts, and they are not added."""
    for own, callers in ((1.0, 6.0), (6.0, 1.0)):
        async with stage.opened(size=1, timeout=own) as pool:
            await pool.select()
            stage.network.swallow()
            await asyncio.sleep(0.05)

            async def ask(pool: Pool = pool, seconds: float = callers) -> float:
                began = time.monotonic()
                with suppress(Exception):
                    async with asyncio.timeout(seconds):
                        async with pool.connection():
                            pass
                return time.monotonic() - began

            # A connection is silent, and so is a new one.
            took = [await soon(ask(), 15, f"pool {own:g} s, caller {callers:g} s:") for _ in range(2)]
            stage.network.pass_through()
            if max(took) > 1.0 + 0.5:
                raise Wrong(f"pool {own:g} s, caller {callers:g} s: {max(took):.1f} s")


async def a10(stage: Stage) -> None:
    """Waves of callers of whom a third leaves: those leave at once, and the others are served in order."""
    async with stage.opened(timeout=20.0) as pool:
        await stage.whole(pool)
        for _ in range(5):
            served: list[int] = []

            async def request(number: int, served: list[int] = served) -> None:
                async with pool.connection() as connection:
                    served.append(number)
                    await pool.ask(connection, "SELECT 1 FROM pg_sleep(0.001)")

            tasks = []
            for number in range(200):
                tasks.append(asyncio.create_task(request(number)))
            await asyncio.sleep(0.02)
            gone = [task for number, task in enumerate(tasks) if number % 3 == 1 and not task.done()]
            for task in gone:
                task.cancel()
            began = time.monotonic()
            await asyncio.wait(gone, timeout=5)
            if not all(task.done() for task in gone) or time.monotonic() - began > 1.0:
                raise Wrong("who was cancelled is still there after a second")
            results = await asyncio.gather(*tasks, return_exceptions=True)
            if any(isinstance(each, Exception) for each in results):
                raise Wrong("others got errors")
            # Two work at the same time, so that neighbors may change places; the first have not waited in the line.
            waited = [number for number in served if number >= SIZE]
            if any(number > later + SIZE for place, number in enumerate(waited) for later in waited[place:]):
                raise Wrong("not in the order of arrival")
        await stage.whole(pool)


def a11(stage: Stage) -> None:
    """The loop ends with a connection out; another loop works with the same pool."""
    pool = stage.pool()

    async def first() -> None:
        await pool.open()
        connection = pool.connection()
        await pool.ask(await connection.__aenter__(), "SELECT 1")
        pool.kept = connection  # type: ignore[attr-defined]

    async def second() -> None:
        try:
            for _ in range(3):
                if await soon(pool.select(), 8, "a query in the second loop") != 1:
                    raise Wrong("the second loop gets an error")
        finally:
            with suppress(Exception):
                await soon(pool.close(), 5, "close")

    asyncio.run(first())
    try:
        asyncio.run(second())
    except Wrong:
        raise
    except Exception as error:
        raise Wrong(f"the second loop gets {type(error).__name__}") from error
    finally:
        del pool.kept  # type: ignore[attr-defined]
        gc.collect()

    async def left() -> None:
        await stage.at_most(0)

    asyncio.run(left())


async def a12(stage: Stage) -> None:
    """`gather` over one connection: an error or one after the other, and never mixed answers."""
    async with stage.opened() as pool:
        async with pool.connection() as connection:
            results = await soon(
                asyncio.gather(*(pool.ask(connection, f"SELECT {n}") for n in range(8)), return_exceptions=True),
                10,
                "it",
            )
        if any(not isinstance(each, Exception) and each != n for n, each in enumerate(results)):
            raise Wrong("mixed answers")
        await stage.whole(pool)


async def a13(stage: Stage) -> None:
    """The loop stalls: nobody who was served meanwhile times out, and no connection is called dead."""
    async with stage.opened(size=1, timeout=1.0) as pool:
        free, held = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold(pool, free, held))
        await held.wait()
        before = await asyncio.to_thread(stage.server.connections)
        waiter = asyncio.create_task(pool.select())
        await asyncio.sleep(0.2)
        free.set()
        # The holder gives back in these steps; then the loop stands for longer than the waiter's time.
        while not holder.done():
            await asyncio.sleep(0)
        time.sleep(2.5)
        if isinstance(error := (await asyncio.gather(waiter, return_exceptions=True))[0], BaseException):
            raise Wrong(f"{type(error).__name__} for who was served before the stall")
        if await asyncio.to_thread(stage.server.connections) != before:
            raise Wrong("a sound connection was replaced")
        await stage.whole(pool)


async def a14(stage: Stage) -> None:
    """A task is cancelled twice, the second time during its clean-up."""
    async with stage.opened() as pool:
        for steps in range(15):
            task = asyncio.create_task(pool.select("SELECT 1 FROM pg_sleep(30)"))
            while not await stage.active():  # else there is nothing to cancel yet
                await asyncio.sleep(0.005)
            task.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await soon(task, HARD_LIMIT, "the end of a task that was cancelled twice")
        end = time.monotonic() + 5
        while left := await stage.active():
            if time.monotonic() > end:
                raise Wrong(f"{left} statements go on at the server")
            await asyncio.sleep(0.05)
        await stage.whole(pool)


SITUATIONS: dict[str, Callable[[Stage], Any]] = {
    f"A{number:02}": situation
    for number, situation in enumerate((a01, a02, a03, a04, a05, a06, a07, a08, a09, a10, a11, a12, a13, a14), 1)
}


def cell(situation: Callable[[Stage], Any], stage: Stage) -> str:
    complaints: list[str] = []

    def note(_: Any, context: dict[str, Any]) -> None:
        complaints.append(f"{context['message']}: {context.get('exception')!r} {context.get('future')!r}")

    stage.network.pass_through()
    stage.server.terminate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if asyncio.iscoroutinefunction(situation):

                async def main() -> None:
                    asyncio.get_running_loop().set_exception_handler(note)
                    async with asyncio.timeout(LIMIT + stage.load):
                        await situation(stage)

                asyncio.run(main())
            else:
                situation(stage)
        except Wrong as error:
            return str(error)
        except TimeoutError:
            return "hangs"
        except Exception as error:
            return type(error).__name__
        finally:
            gc.collect()
    unread = [each for each in complaints if "never retrieved" in each]
    if unread:
        print("\n".join(unread), file=sys.stderr)
        return f"right, but {len(unread)} errors that nobody retrieves"
    return "right"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("situations", nargs="*", help="A01 … A14 (default: all)")
    parser.add_argument("--pools", nargs="*", choices=list(POOLS), default=list(POOLS))
    parser.add_argument("--load", type=float, default=20.0, help="seconds of A08 (default: 20)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None  # what a pool leaves behind is seen at the server
    rows: list[tuple[Any, ...]] = []
    with servers("postgresql") as running, Proxy(running["postgresql"].host, running["postgresql"].port) as network:
        for name in options.situations or SITUATIONS:
            row = [name]
            for pool in options.pools:
                row.append(cell(SITUATIONS[name], Stage(POOLS[pool], running["postgresql"], network, options.load)))
                print(f"{name} {POOLS[pool].name}: {row[-1]}", file=sys.stderr, flush=True)
            rows.append(tuple(row))
    report("what asyncio does to pools", ("", *(POOLS[pool].name for pool in options.pools)), rows, "ours are right")
    ours = [number for number, pool in enumerate(options.pools, 1) if pool.startswith("ours")]
    return int(any(row[number] != "right" for row in rows for number in ours))


if __name__ == "__main__":
    sys.exit(main())
