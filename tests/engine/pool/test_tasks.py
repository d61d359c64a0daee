"""The line driven by asyncio: who is served when, and that a cancellation at any moment costs nothing."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_only

from dbconfig.engine import create
from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool import TaskPool, deadline, farewell, stats
from tests.support.drivers import ASYNCHRONOUS, BY_NAME, Driver, params
from tests.support.proxy import Proxy

from .support import Settings, url_of

LIMIT = 60.0  # seconds after which a test counts as hanging


class Engines:
    """Makes engines of one driver, each with its behaviours attached."""

    def __init__(
        self,
        request: pytest.FixtureRequest,
        driver: Driver,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._loop_factory = loop_factory
        pytest.importorskip(driver.module)
        self.name = driver.module
        self.driver = driver.scheme
        self.server: Any = request.getfixturevalue(driver.server) if driver.server else None
        self._made: list[AsyncEngine] = []
        self._folder = request.getfixturevalue("tmp_path")

    def make(self, at: Any = None, **settings: Any) -> AsyncEngine:
        url = (
            url_of(self.server, at, self.driver) if self.server is not None else f"{self.driver}:///{self._folder}/a.db"
        )
        chosen = Settings(**settings)
        arguments = dbconfig_pool.pool_arguments(chosen, name="testing/default", patient=True, is_async=True)
        create.check_version()
        engine = create_async_engine(url, **arguments)
        driver = driver_protocol.of(engine.dialect)
        dbconfig_pool.attach(engine.sync_engine, chosen, name="testing/default", driver=driver)
        self._made.append(engine)
        return engine

    def run(self, work: Awaitable[Any]) -> Any:
        """Run this in a loop of its own, in which the engines end, too."""

        async def main() -> Any:
            try:
                async with asyncio.timeout(LIMIT):
                    return await work
            finally:
                for engine in self._made:
                    await engine.dispose()
                self._made.clear()

        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            return runner.run(main())

    async def connections(self, expected: int) -> bool:
        """Wait until the server has so many connections besides our own question."""
        if self.server is None:
            return True
        for _ in range(600):
            if len(await asyncio.to_thread(self.server.connections)) == expected:
                return True
            await asyncio.sleep(0.05)
        return False


@pytest.fixture(params=params(ASYNCHRONOUS))
def engines(request: pytest.FixtureRequest) -> Engines:
    """Each asynchronous driver in turn."""
    return Engines(request, request.param)


def pool_of(engine: AsyncEngine) -> TaskPool:
    pool = engine.sync_engine.pool
    assert isinstance(pool, TaskPool)
    return pool


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def select(engine: AsyncEngine) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 1"))


def test_a_review_leaves_alone_what_a_task_is_about_to_return(engines: Engines) -> None:
    """The isolation level is reset, and listeners are called, when SQLAlchemy has let go of the loan already."""

    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0)
        seen = []

        def review(*_: Any) -> None:
            pool_of(engine)._review()

        def reset(connection: Any) -> None:
            await_only(asyncio.sleep(0))
            review()
            own(connection)

        dialect: Any = engine.dialect
        own = dialect.reset_isolation_level
        dialect.reset_isolation_level = reset
        event.listen(engine.sync_engine, "checkin", review)
        event.listen(engine.sync_engine, "reset", review)
        for _ in range(2):
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="SERIALIZABLE")
                seen.append((await connection.get_raw_connection()).driver_connection)
                await connection.scalar(text("SELECT 1"))
        assert seen[0] is seen[1]
        assert not stats(engine).closed
        await assert_whole(engine)

    engines.run(main())


async def assert_whole(engine: AsyncEngine) -> None:
    pool = pool_of(engine)
    await until(lambda: pool.connecting == 0 and not pool._closes)
    assert not pool.waiters
    assert pool.open == len(pool.idle)
    assert pool.checkedout() == 0


def test_it_is_a_pool_of_sqlalchemy(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make()
        assert isinstance(engine.pool, AsyncAdaptedQueuePool)
        assert engine.pool.status().startswith("Pool size: 5  Connections in pool: 0")
        assert await select(engine) == 1
        await engine.dispose()

    engines.run(main())


def test_waiters_are_served_in_the_order_of_arrival(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0)
        served: list[int] = []

        async def wait(number: int) -> None:
            async with engine.connect():
                served.append(number)

        async with engine.connect():
            tasks = [asyncio.create_task(wait(number)) for number in range(8)]
            await until(lambda: len(pool_of(engine).waiters) == 8)
        await asyncio.gather(*tasks)
        assert served == list(range(8))
        await assert_whole(engine)
        await engine.dispose()

    engines.run(main())


def test_a_wait_needs_no_timer_of_its_own_and_ends_in_time(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    timers = 0

    async def main() -> None:
        nonlocal timers
        engine = engines.make(pool_size=1, max_overflow=0, pool_timeout=30.0)
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def counting(when: float, callback: Any, *arguments: Any, **keywords: Any) -> Any:
            nonlocal timers
            timers += "dbconfig" in callback.__module__
            return call_at(when, callback, *arguments, **keywords)

        began = time.monotonic()
        async with engine.connect():
            monkeypatch.setattr(loop, "call_at", counting)
            waiting = [asyncio.create_task(select(engine)) for _ in range(200)]
            await until(lambda: len(pool_of(engine).waiters) == 200)
        await asyncio.gather(*waiting)
        # Two for each review, every tenth of a second; stock and our former pool had one or two for each caller.
        assert timers <= 4 + 4 * (time.monotonic() - began) / 0.1

    engines.run(main())


def test_a_deadline_that_ends_before_those_of_earlier_waiters_is_kept(engines: Engines) -> None:
    async def late(engine: AsyncEngine) -> None:
        with deadline.Deadline(0.05), pytest.raises(deadline.DeadlineExceeded):
            await engine.connect().start()

    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0, pool_timeout=30.0)
        pool = pool_of(engine)
        async with engine.connect():
            patient = asyncio.create_task(select(engine))
            while len(pool.waiters) < 1:
                await asyncio.sleep(0)
            other = asyncio.create_task(late(engine))
            while len(pool.waiters) < 2 and not other.done():
                await asyncio.sleep(0)
            if not other.done():  # on a busy machine its time may be over already
                assert pool._timers[0].when() <= asyncio.get_running_loop().time() + 0.05
            await other
        assert await patient == 1

    engines.run(main())


def test_many_tasks_on_few_connections_get_the_same_share(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=2, max_overflow=0)
        shares: Counter[int] = Counter()

        async def work(number: int) -> None:
            while sum(shares.values()) < 1000:
                await select(engine)
                shares[number] += 1

        await asyncio.gather(*(work(number) for number in range(20)))
        assert min(shares[number] for number in range(20)) >= 0.8 * max(shares.values())
        await engine.dispose()

    engines.run(main())


def test_a_burst_makes_few_connections(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=50, max_overflow=0)
        held = [await engine.connect() for _ in range(5)]
        for connection in held:
            await connection.close()
        before = stats(engine.sync_engine).created
        served = asyncio.Event()

        @event.listens_for(engine.sync_engine, "do_connect")
        def slowly(*_: Any) -> None:
            from sqlalchemy.util import await_only

            await_only(served.wait())

        await asyncio.gather(*(select(engine) for _ in range(50)))  # nobody waits for a connect
        served.set()
        await until(lambda: pool_of(engine).connecting == 0)
        assert stats(engine.sync_engine).created - before <= 3
        await engine.dispose()

    engines.run(main())


def test_overflow_connections_are_kept(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=3)
        for _ in range(3):
            for connection in [await engine.connect() for _ in range(4)]:
                await connection.close()
        assert stats(engine.sync_engine).created == 4
        await engine.dispose()
        assert await engines.connections(0)

    engines.run(main())


def test_one_deadline_bounds_wait_connect_and_check(engines: Engines, proxy: Callable[[Any], Proxy]) -> None:
    if engines.server is None:
        pytest.skip("SQLite uses no network")

    async def main() -> None:
        wire = proxy(engines.server)
        engine = engines.make(at=wire, pool_timeout=1.0, connect_timeout=60.0, pool_pre_ping=True)
        await select(engine)
        wire.swallow()
        began = time.monotonic()
        with pytest.raises((exc.TimeoutError, exc.DBAPIError, OSError)) as caught:
            await engine.connect()
        assert time.monotonic() - began < 30  # the driver's own limit is 60 s
        if isinstance(caught.value, exc.TimeoutError):
            assert f"{wire.host}:{wire.port} did not answer within 1 s (pool_timeout)" in str(caught.value)
        wire.pass_through()
        assert await select(engine) == 1
        await engine.dispose()

    engines.run(main())


def test_a_full_pool_says_who_holds_its_connections(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0, pool_leak_warning=30.0)
        held = asyncio.Event()

        async def rebuild_index() -> None:
            async with engine.connect():
                held.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(rebuild_index(), name="nightly")
        await asyncio.wait_for(held.wait(), 30)  # counted as checked out it is before it is open
        pool_of(engine)._timeout = 0.2
        with pytest.raises(exc.TimeoutError, match=r"held longest: .* s at .*test_tasks.py:\d+ in rebuild_index"):
            await engine.connect()
        holder.cancel()
        await asyncio.wait([holder])
        await assert_whole(engine)
        await engine.dispose()

    engines.run(main())


def test_without_leak_reports_a_full_pool_says_where_its_holders_are_now(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0)
        held = asyncio.Event()

        async def sleep() -> None:
            held.set()
            await asyncio.Event().wait()

        async def rebuild_index() -> None:
            async with engine.connect():
                await sleep()

        holder = asyncio.create_task(rebuild_index())
        await asyncio.wait_for(held.wait(), 30)
        pool_of(engine)._timeout = 0.2
        with pytest.raises(exc.TimeoutError, match=r"its task now at .*test_tasks.py:\d+ in sleep"):
            await engine.connect()
        holder.cancel()
        await asyncio.wait([holder])
        await engine.dispose()

    engines.run(main())


def test_pool_max_waiting_turns_the_next_caller_away(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0, pool_max_waiting=1)
        async with engine.connect():
            waiting = asyncio.create_task(select(engine))
            await until(lambda: len(pool_of(engine).waiters) == 1)
            with pytest.raises(exc.TimeoutError) as caught:
                await engine.connect()
            assert "the queue is full: 1 waiting (pool_max_waiting is 1)" in caught.value.__notes__
        assert await waiting == 1
        assert stats(engine.sync_engine).refused == 1
        await engine.dispose()

    engines.run(main())


def test_pool_min_idle_keeps_connections_ready(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=5, pool_min_idle=4)
        assert stats(engine.sync_engine).created == 0  # nothing happens before the first use
        await select(engine)
        await until(lambda: len(pool_of(engine).idle) >= 4)
        if engines.server is not None:
            engines.server.terminate()
            await until(lambda: stats(engine.sync_engine).closed.get("ping", 0) >= 1 or len(pool_of(engine).idle) < 4)
        await engine.dispose()
        assert await engines.connections(0)

    if engines.server is not None:
        run_with_keepalive = engines.make

        def make(**settings: Any) -> AsyncEngine:
            return run_with_keepalive(**{**settings, "pool_keepalive": 0.05})

        engines.make = make  # type: ignore[method-assign]  # the dead ones are found soon
    engines.run(main())


def test_what_rests_too_long_is_closed_down_to_pool_min_idle(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=4, pool_min_idle=1, pool_idle_timeout=0.2)
        for connection in [await engine.connect() for _ in range(5)]:
            await connection.close()
        await until(lambda: len(pool_of(engine).idle) == 1)
        await until(lambda: pool_of(engine).open == 1)
        assert stats(engine.sync_engine).closed == {"idle": 4}
        assert await engines.connections(1)
        await engine.dispose()

    engines.run(main())


def test_a_connection_that_died_while_it_rested_is_seen_without_a_round_trip(engines: Engines) -> None:
    if engines.server is None:
        pytest.skip("SQLite uses no network")

    async def main() -> None:
        engine = engines.make(pool_size=3, pool_pre_ping=3600.0)  # looked at, and never asked
        held = [await engine.connect() for _ in range(3)]
        for connection in held:
            await connection.close()
        await asyncio.to_thread(engines.server.terminate)
        assert await engines.connections(0)
        for place in pool_of(engine).idle:  # a fast server ends them while they are still trusted after their return
            place.connection.doubtful_at = 0.0
        for _ in range(4):
            assert await select(engine) == 1
        await engine.dispose()

    engines.run(main())


def test_a_connect_that_fails_hands_its_place_on(engines: Engines) -> None:
    """Immediately, or else at the next review: test_task_parts and test_line_events have the former alone."""

    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0)
        fail = [True]

        @event.listens_for(engine.sync_engine, "do_connect")
        def refuse(*_: Any) -> None:
            if fail.pop() if fail else False:
                raise ValueError("wrong password")

        results = await asyncio.gather(*(select(engine) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["wrong password", "1", "1"]
        await assert_whole(engine)
        await engine.dispose()

    engines.run(main())


@pytest.mark.parametrize("seed", range(2))
def test_cancellations_at_any_moment_lose_nothing(engines: Engines, seed: int) -> None:
    """Tasks that open, ask, and close are cancelled at random, now and then twice."""
    pick = random.Random(seed)

    async def main() -> None:
        engine = engines.make(pool_size=3, max_overflow=1, pool_min_idle=2, pool_pre_ping=True)
        await select(engine)
        began = time.monotonic()
        for _ in range(5):
            await select(engine)
        usual = (time.monotonic() - began) / 5

        async def work(number: int) -> None:
            async with engine.connect() as connection:
                if number % 3 == 0:
                    await connection.invalidate()
                    return
                assert await connection.scalar(text(f"SELECT {number}")) == number

        number = 0
        for _ in range(40):
            tasks = []
            for _ in range(8):
                number += 1
                tasks.append(asyncio.create_task(work(number)))
            for _ in range(5):
                await asyncio.sleep(usual * pick.random())
                victim = pick.choice(tasks)
                victim.cancel()
                if pick.random() < 0.3:
                    await asyncio.sleep(0)
                    victim.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            wrong = [each for each in results if not isinstance(each, asyncio.CancelledError | None)]
            assert not wrong
        await assert_whole(engine)
        await until(lambda: pool_of(engine).line.open >= 2)
        assert sum(await asyncio.gather(*(select(engine) for _ in range(20)))) == 20
        await engine.dispose()
        assert await engines.connections(0)

    engines.run(main())


def test_a_close_that_never_ends_is_cut_off_and_a_second_cancellation_does_not_stop_it(
    engines: Engines, proxy: Callable[[Any], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    if engines.server is None:
        pytest.skip("SQLite uses no network")
    monkeypatch.setattr(farewell, "CLOSE_LIMIT", 0.3)

    async def main() -> None:
        wire = proxy(engines.server)
        engine = engines.make(at=wire)
        held = asyncio.Event()

        async def work() -> None:
            async with engine.connect() as connection:
                await connection.scalar(text("SELECT 1"))
                wire.swallow()
                held.set()
                await connection.scalar(text("SELECT 2"))

        task = asyncio.create_task(work())
        await held.wait()
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        await asyncio.wait([task], timeout=20)
        assert task.done()
        await assert_whole(engine)
        wire.pass_through()
        assert await select(engine) == 1
        await engine.dispose()

    engines.run(main())


def test_connections_in_use_at_dispose_close_when_they_come_back(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make()
        connection = await engine.connect()
        await connection.execute(text("SELECT 1"))
        old = pool_of(engine)
        await engine.dispose()
        assert await connection.scalar(text("SELECT 1")) == 1
        await connection.close()
        await until(lambda: old.open == 0)
        assert await engines.connections(0)
        await engine.dispose()

    engines.run(main())


def test_an_engine_serves_one_loop_after_another_and_not_two_at_once(engines: Engines) -> None:
    engine = engines.make()

    async def main() -> None:
        failed: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(select(engine))
            except RuntimeError as error:
                failed.append(error)

        async with engine.connect():
            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)
        assert "belongs to one event loop" in str(failed[0])
        await engine.dispose()

    async def again() -> None:
        assert await select(engine) == 1
        await engine.dispose()

    async def first() -> None:
        assert await select(engine) == 1
        await engine.dispose()

    asyncio.run(first())
    asyncio.run(again())
    asyncio.run(main())


def test_statistics_count_what_happens(engines: Engines) -> None:
    async def main() -> None:
        engine = engines.make(pool_size=2, max_overflow=1)
        async with engine.connect() as one, engine.connect():
            now = stats(engine.sync_engine)
            assert (now.size, now.max, now.used, now.idle, now.waiting) == (2, 3, 2, 0, 0)
            await one.invalidate()
        now = stats(engine.sync_engine)
        assert (now.created, now.used, now.idle) == (2, 0, 1)
        assert now.closed == {"invalidated": 1}
        assert now.use.count == 2
        await engine.dispose()
        assert stats(engine.sync_engine).closed == {"invalidated": 1, "disposed": 1}

    engines.run(main())


def test_the_connections_of_a_loop_that_has_ended_are_not_lent_in_the_next(request: pytest.FixtureRequest) -> None:
    """Also while they are trusted without a look."""
    engines = Engines(request, BY_NAME["aiosqlite"])
    engine = engines.make(pool_size=1, max_overflow=0, pool_pre_ping=False)
    left: list[Any] = []

    async def use() -> None:
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
            left.append((await connection.get_raw_connection()).driver_connection)
        assert pool_of(engine).open == 1

    asyncio.run(use())
    engines.run(use())
    assert left[0] is not left[1]
    assert pool_of(engine).open == 0
    left[0].stop()


def test_who_listens_later_hears_of_every_loan_and_a_reset_that_fails_closes_its_connection(engines: Engines) -> None:
    """While nobody listens the way back is a short one."""

    async def main() -> None:
        engine = engines.make(pool_size=1, max_overflow=0)
        heard: list[str] = []
        await select(engine)
        for name in ("checkout", "reset", "checkin"):
            event.listen(engine.sync_engine, name, lambda *_, name=name: heard.append(name))
        await select(engine)
        assert heard == ["checkout", "reset", "checkin"]

        other = engines.make(pool_size=1, max_overflow=0)
        rollback, fail = other.sync_engine.dialect.do_rollback, [True]

        def refuse(proxied: Any) -> None:
            if fail:
                fail.pop()
                raise ValueError("the reset fails")
            rollback(proxied)

        connection = await other.connect()
        other.sync_engine.dialect.do_rollback = refuse  # type: ignore[method-assign]
        await connection.close()
        assert stats(other.sync_engine).closed == {"invalidated": 1}
        assert await select(other) == 1
        await assert_whole(other)

    engines.run(main())
