"""`pool_queue_target`: under overload those who are served are served soon, in threads and in tasks alike."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, exc

from dbconfig.engine import create
from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool import timeout_errors
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import Caller, Close, Connect, Refusal, Rules
from dbconfig.engine.pool.shedding import Shedding
from dbconfig.engine.pool.tally import Counters
from tests.support import clock as clocks

from .support import FakeServer, LineOptions, Settings, callers, eventually, fair_pool, impatient

TARGET = 0.05


class Threads:
    """A pool of one connection, and callers that are threads."""

    def __init__(self, file: Path, **settings: Any) -> None:
        chosen = Settings(pool_size=1, max_overflow=0, **settings)
        self.engine = create_engine(
            f"sqlite:///{file}", **dbconfig_pool.pool_arguments(chosen, name="testing/default", patient=True)
        )
        driver = driver_protocol.of(self.engine.dialect)
        dbconfig_pool.attach(self.engine, chosen, name="testing/default", driver=driver)
        self.pool: Any = self.engine.pool
        self.served: list[int] = []
        self.errors: dict[int, BaseException] = {}
        self._threads: list[threading.Thread] = []
        self._held: Any = None

    def hold(self) -> None:
        self._held = self.engine.connect()

    def give_back(self) -> None:
        self._held.close()

    def ask(self, number: int) -> None:
        """Let somebody come who gives the connection back at once."""
        waiting = len(self.pool.waiters)
        thread = threading.Thread(target=self._use, args=(number,), daemon=True)
        self._threads.append(thread)
        thread.start()
        assert eventually(lambda: len(self.pool.waiters) == waiting + 1)

    def ask_alone(self, number: int) -> None:
        """Let somebody come, and return when it has been served or refused."""
        self._use(number)

    def _use(self, number: int) -> None:
        try:
            with self.engine.connect():
                self.served.append(number)
        except exc.TimeoutError as error:
            self.errors[number] = error

    def until(self, condition: Callable[[], bool]) -> None:
        assert eventually(condition)

    def end(self) -> None:
        for thread in self._threads:
            thread.join(30)
        self.engine.dispose()


class Tasks:
    """The same of asyncio."""

    def __init__(self, file: Path, **settings: Any) -> None:
        pytest.importorskip("aiosqlite")
        from sqlalchemy.ext.asyncio import create_async_engine

        chosen = Settings(pool_size=1, max_overflow=0, **settings)
        arguments = dbconfig_pool.pool_arguments(chosen, name="testing/default", patient=True, is_async=True)
        create.check_version()
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{file}", **arguments)
        self.engine = self._engine.sync_engine
        driver = driver_protocol.of(self.engine.dialect)
        dbconfig_pool.attach(self.engine, chosen, name="testing/default", driver=driver)
        self.pool: Any = self.engine.pool
        self.served: list[int] = []
        self.errors: dict[int, BaseException] = {}
        self._runner = asyncio.Runner()
        self._tasks: list[asyncio.Task[None]] = []
        self._held: Any = None

    def hold(self) -> None:
        async def hold() -> Any:
            return await self._engine.connect()

        self._held = self._runner.run(hold())

    def give_back(self) -> None:
        self._runner.run(self._held.close())

    def ask(self, number: int) -> None:
        async def ask() -> None:
            waiting = len(self.pool.waiters)
            self._tasks.append(asyncio.create_task(self._use(number)))
            while len(self.pool.waiters) == waiting:
                await asyncio.sleep(0)

        self._runner.run(ask())

    def ask_alone(self, number: int) -> None:
        self._runner.run(self._use(number))

    async def _use(self, number: int) -> None:
        try:
            async with self._engine.connect():
                self.served.append(number)
        except exc.TimeoutError as error:
            self.errors[number] = error

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(30):
                while not condition():
                    await asyncio.sleep(0.005)

        self._runner.run(wait())

    def end(self) -> None:
        async def end() -> None:
            await asyncio.gather(*self._tasks)
            await self._engine.dispose()

        self._runner.run(end())
        self._runner.close()


@pytest.fixture(params=[Threads, Tasks])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Threads | Tasks]]:
    made: list[Threads | Tasks] = []

    def make(**settings: Any) -> Threads | Tasks:
        made.append(request.param(tmp_path / "a.db", **settings))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> clocks.Clock:
    return clocks.install(monkeypatch)


def test_while_the_line_stands_late_callers_are_dropped_and_the_last_one_is_served(
    world: Callable[..., Threads | Tasks], clock: clocks.Clock
) -> None:
    here = world(pool_queue_target=TARGET)
    here.hold()
    for number in range(3):
        here.ask(number)
    clock.advance(1.0)
    here.give_back()  # a first use of the connection after which somebody has waited for too long
    here.until(lambda: len(here.served) + len(here.errors) == 3)
    assert here.served == [0, 1, 2], "a burst is served, however long it takes"

    here.hold()
    for number in range(3, 6):
        here.ask(number)
    shedding = (getattr(here.pool, "line", None) or here.pool).shedding
    shedding.served(1.0, clock())  # as if others before them had waited for that long
    clock.advance(1.0)
    here.give_back()
    here.until(lambda: len(here.served) + len(here.errors) == 6)
    assert sorted(here.errors) == [3, 4]
    for error in here.errors.values():
        told = re.match(r"dropped after waiting ([0-9.]+) s ", str(error))
        assert told is not None
        assert 1.0 <= float(told[1]) <= 120.0
    assert here.served[3:] == [5], "a connection never rests for want of callers"
    assert dbconfig_pool.stats(here.engine).refused == 2


def test_while_every_connection_is_stuck_late_callers_are_dropped_too(world: Callable[..., Threads | Tasks]) -> None:
    here = world(pool_queue_target=0.01)
    here.hold()
    for number in range(4):
        here.ask(number)
    here.until(lambda: len(here.errors) >= 3)
    assert sorted(here.errors) == [0, 1, 2]
    assert len(here.pool.waiters) == 1
    here.give_back()
    here.until(lambda: here.served == [3])


@pytest.mark.parametrize("settings", [{}, {"pool_queue_target": 30.0}], ids=["without the key", "with the key"])
def test_who_is_not_dropped_waits_until_its_own_time_is_over(
    world: Callable[..., Threads | Tasks], settings: dict[str, float]
) -> None:
    here = world(**settings)
    here.hold()
    impatient(here.engine, 0.5)
    start = monotonic()
    here.ask_alone(1)
    assert monotonic() - start >= 0.5
    assert "connection timed out" in str(here.errors[1])
    counted = dbconfig_pool.stats(here.engine)
    assert (counted.timeouts, counted.refused) == (1, 0)
    here.give_back()


def test_without_the_key_everybody_waits(world: Callable[..., Threads | Tasks], clock: clocks.Clock) -> None:
    here = world()
    here.hold()
    for number in range(3):
        here.ask(number)
    clock.advance(20.0)
    here.give_back()
    here.until(lambda: here.served == [0, 1, 2])


def test_the_error_says_why_and_where_the_target_was_set(world: Callable[..., Threads | Tasks]) -> None:
    here = world(pool_queue_target=0.01, origins={"pool_queue_target": "config/production.yaml:7:1"})
    here.hold()
    here.ask(1)
    here.ask(2)
    here.until(lambda: bool(here.errors))
    error = here.errors[1]
    assert isinstance(error, exc.TimeoutError)
    assert "callers wait longer than pool_queue_target" in str(error)
    notes = "\n".join(error.__notes__)
    assert notes.startswith("dbconfig[pool-overloaded]: testing/default: 1 in use of 1 + 0")
    assert "pool_queue_target (config/production.yaml:7:1)" in notes
    here.give_back()


def test_hundreds_who_are_turned_away_share_an_explanation(world: Callable[..., Threads | Tasks]) -> None:
    """Writing one costs as much as serving half a caller, which is what there is too little of."""
    here = world(pool_max_waiting=0, pool_queue_target=TARGET)
    written: list[str] = []
    here.pool.explain = lambda slug: written.append(slug) or [f"dbconfig[{slug}]"]
    errors = [timeout_errors.shed(here.pool, 0.2) for _ in range(100)]
    errors += [timeout_errors.full(here.pool, "the queue is full", refused=True) for _ in range(100)]
    assert written == ["pool-overloaded", "pool-timeout"]
    assert {error.__notes__[-1] for error in errors} == {"dbconfig[pool-overloaded]", "dbconfig[pool-timeout]"}
    timeout_errors.full(here.pool, "waited")
    assert written[2:] == ["pool-timeout"], "who has waited in vain gets its own"


def test_who_has_waited_for_a_server_that_was_away_is_not_dropped() -> None:
    """By the rules of both worlds: the line, and the pool for threads."""
    line = Line(Rules(size=1, limit=1, queue_target=TARGET), Counters())
    first = [Caller(30.0, 0.0)]
    line.ask(first[0], 0.0)
    line.connected(_connect(line), 0.0)
    line.lost(first[0].place, 1.0)  # type: ignore[arg-type]
    waiting = [Caller(30.0, 1.0) for _ in range(3)]
    for caller in waiting:
        line.ask(caller, 1.0)
    line.connect_failed(_connect(line), ConnectionRefusedError(), transient=True, now=1.0)
    for now in (2.0, 3.0, 4.0):
        line.tick(now)
        line.connect_failed(_connect(line), ConnectionRefusedError(), transient=True, now=now)
    line.tick(9.0)
    line.connected(_connect(line), 9.0)
    for caller in waiting:
        assert caller.place is not None
        line.give_back(caller.place, 9.01)
    assert [caller.error for caller in waiting] == [None] * 3


def _connect(line: Line) -> Any:
    connects = [command.place for command in line.commands if isinstance(command, Connect)]
    line.commands.clear()
    return connects[-1]


def test_threads_that_have_waited_for_a_server_that_was_away_are_not_dropped(clock: clocks.Clock) -> None:
    server = FakeServer()
    pool = fair_pool(server, line=LineOptions(queue_target=TARGET), pool_size=1, max_overflow=0)
    held = pool.connect()
    server.error = ConnectionRefusedError("away")

    def use() -> None:
        pool.connect().close()

    with callers() as run:
        held.invalidate()
        waiting = [run(use) for _ in range(3)]
        assert eventually(lambda: len(pool.waiters) == 3 and server.attempts > 1)
        clock.advance(10.0)
        server.error = None
        for each in waiting:
            each.result(30)
    assert pool.counters.refused == 0
    pool.dispose()


class TestTheRule:
    def test_nobody_is_dropped_before_the_line_has_stood_for_ten_times_the_target(self) -> None:
        rule = Shedding(TARGET)
        rule.served(0.2, 100.0)
        assert not rule.drops(5.0, 100.49)
        assert rule.drops(5.0, 100.51)

    def test_one_caller_that_is_served_soon_shows_that_the_line_does_not_stand(self) -> None:
        rule = Shedding(TARGET)
        rule.served(0.2, 100.0)
        rule.served(0.05, 100.4)
        rule.served(0.2, 100.45)
        assert not rule.drops(5.0, 100.9)

    def test_who_has_waited_for_less_than_twice_the_target_stays(self) -> None:
        rule = Shedding(TARGET)
        rule.served(0.2, 100.0)
        assert not rule.drops(0.1, 101.0)
        assert rule.drops(0.11, 101.0)

    def test_the_next_look_is_when_something_can_have_changed(self) -> None:
        rule = Shedding(TARGET)
        assert rule.due(100.0, 100.0) == pytest.approx(100.05, abs=0.01)
        rule.stands(0.051, 100.051)
        assert rule.due(100.0, 100.051) == pytest.approx(100.551, abs=0.01)
        assert rule.due(100.6, 100.6) == pytest.approx(100.7, abs=0.01)
        assert rule.due(100.0, 101.0) == pytest.approx(101.5, abs=0.01)


def test_the_last_of_a_line_that_stands_is_kept_also_when_a_connection_must_close() -> None:
    line = Line(Rules(size=1, limit=1, queue_target=TARGET), Counters())
    holder, first, last = Caller(30.0, 0.0), Caller(30.0, 0.0), Caller(30.0, 0.0)
    line.ask(holder, 0.0)
    line.connected(_connect(line), 0.0)
    line.ask(first, 0.0)
    line.ask(last, 0.0)
    line.tick(0.06)
    line.tick(0.7)
    assert (first.error, last.error) == (Refusal.SHED, None)
    assert holder.place is not None
    holder.place.condemned = True
    line.give_back(holder.place, 0.8)
    assert any(isinstance(command, Close) for command in line.commands)
    line.commands.clear()
    line.closed(holder.place, 0.8)
    line.connected(_connect(line), 0.9)
    assert last.place is not None
