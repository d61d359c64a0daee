"""Small parts of the pool on their own: the watch, cancel requests, how connections close, which clock is read."""

from __future__ import annotations

import asyncio
import logging
import time
from _thread import allocate_lock
from contextlib import nullcontext
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.util import await_only

from dbconfig.engine import draining
from dbconfig.engine.pool import (
    advice,
    call_watchdog,
    clock,
    deadline,
    deadline_limit,
    farewell,
    idle,
    judgements,
    retiring,
)
from dbconfig.engine.pool.call_watchdog import TICK, Watch
from dbconfig.engine.pool.cancelling import Request
from dbconfig.engine.pool.deadline import COMMITTING, STATEMENTS
from dbconfig.engine.pool.driver import Left
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import Caller, Connect, Place, Rules
from dbconfig.engine.pool.tally import Counters
from tests.engine.pool.support import JUDGE, FakeServer, LineOptions, assert_whole, eventually, fair_pool
from tests.engine.pool.test_line_rules import connections

# The watch


def test_a_guard_that_an_interrupted_caller_has_left_is_dropped() -> None:
    watch, called = Watch(), []
    left, due = allocate_lock(), allocate_lock()
    left.acquire()
    watch._guards[left] = (0.0, lambda: called.append("left"))  # its caller has finished, and was struck then
    watch._guards[due] = (0.0, lambda: called.append("due"))
    watch._start()
    try:
        assert eventually(lambda: not watch._guards)
    finally:
        watch._thread = None  # ends its thread
    assert called == ["due"]


class Bell:
    """Notes for how long somebody would wait for it."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def get(self, timeout: float) -> None:
        self.waits.append(timeout)
        raise Empty


def test_the_watch_rests_until_the_next_guard_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_watchdog, "monotonic", lambda: 100.0)
    watch = Watch()
    watch._bell = bell = Bell()  # type: ignore[assignment]  # all that it asks of a queue
    for due, waits in ((None, TICK), (100.03, 0.03), (99.0, 0.0), (500.0, TICK)):
        watch._guards.clear()
        if due is not None:
            watch._guards[allocate_lock()] = (due, lambda: None)
        watch._rest(100.0)
        assert bell.waits.pop() == pytest.approx(waits)
        assert watch._round_at == pytest.approx(min(100.0 + TICK, due or 1000.0))


def test_only_a_guard_that_is_due_before_the_next_round_rings() -> None:
    watch = Watch()
    watch._thread = object()  # type: ignore[assignment]  # one runs
    watch._round_at = clock.monotonic() + 1000
    assert watch.guard(lambda: None, 2000, lambda: 5) == (5, True)
    assert watch._bell.empty()
    assert watch.guard(lambda: None, 500, lambda: 6) == (6, True)
    assert not watch._bell.empty()
    assert not watch._guards


# How connections close


@pytest.mark.parametrize(
    ("terminate", "has_terminate", "graceful", "done"),
    [
        (True, True, True, "graceful"),
        (True, True, False, "close"),
        (True, False, True, "close"),
        (False, True, True, "close"),
    ],
)
def test_a_connection_takes_leave_as_its_dialect_can(
    terminate: bool, has_terminate: bool, graceful: bool, done: str
) -> None:
    told: list[str] = []

    async def take_leave() -> None:
        told.append("graceful")

    connection = SimpleNamespace(**({"_terminate_graceful_close": take_leave} if graceful else {}))
    dialect = SimpleNamespace(has_terminate=has_terminate, do_close=lambda each: told.append("close"))
    asyncio.run(farewell.close(dialect, connection, terminate=terminate))
    assert told == [done]


@pytest.mark.parametrize("terminate", [True, False])
def test_a_connection_whose_leave_is_cancelled_is_closed_immediately(
    terminate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a loop cancels its tasks; otherwise the server would count a connection that is left open."""
    told: list[str] = []
    own = SimpleNamespace(transport=lambda under: None)
    monkeypatch.setattr(farewell.driver, "of", lambda dialect: own)

    async def main() -> None:
        begun = asyncio.Event()

        async def take_leave() -> None:
            begun.set()
            await asyncio.Event().wait()

        connection = SimpleNamespace(_terminate_graceful_close=take_leave)
        dialect = SimpleNamespace(
            has_terminate=True,
            do_close=lambda each: await_only(take_leave()),
            do_terminate=lambda each: told.append("closed"),
            get_driver_connection=lambda each: each,
        )
        monkeypatch.setattr(farewell, "CLOSE_LIMIT", 600.0)  # which is not awaited
        closing = asyncio.create_task(farewell.close(dialect, connection, terminate=terminate))
        await begun.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    asyncio.run(main())
    assert told == ["closed"]


@pytest.mark.parametrize("struck_by", [KeyboardInterrupt(), OSError("the socket is in use")], ids=repr)
@pytest.mark.parametrize("again", [None, OSError("it is closed")], ids=["", "then it fails"])
def test_a_close_that_is_struck_is_done_again_and_only_an_interrupt_is_raised(
    struck_by: BaseException, again: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Ctrl-C at that moment leaves the socket open, and the server counts its connection until it ends."""
    told: list[str] = []
    happens: list[BaseException | None] = [struck_by, again]

    def terminate(connection: str) -> None:
        error = happens.pop(0)
        if error is not None:
            raise error
        told.append(f"closed {connection}")

    own = SimpleNamespace(transport=lambda under: None)
    monkeypatch.setattr(farewell.driver, "of", lambda dialect: own)
    dialect = SimpleNamespace(has_terminate=True, do_terminate=terminate, get_driver_connection=lambda each: each)
    with pytest.raises(KeyboardInterrupt) if isinstance(struck_by, KeyboardInterrupt) else nullcontext():
        farewell.cut(dialect, "it")
    assert happens == []
    assert told == ([] if again else ["closed it"])


# Clocks


def test_the_clock_counts_while_the_machine_sleeps_where_there_is_such_a_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def gettime(number: int) -> float:
        read.append(number)
        if number < 0:
            raise OSError
        return 5.0

    monkeypatch.setattr(time, "clock_gettime", gettime, raising=False)
    for platform, name in (("linux", "CLOCK_BOOTTIME"), ("darwin", "CLOCK_MONOTONIC")):
        monkeypatch.setattr(clock.sys, "platform", platform)
        monkeypatch.setattr(time, name, 7, raising=False)
        assert clock._choose()() == 5.0
        assert read == [7, 7]
        read.clear()
        monkeypatch.setattr(time, name, -1)  # a kernel without it
        assert clock._choose() is time.monotonic
        monkeypatch.delattr(time, name)
        assert clock._choose() is time.monotonic
        read.clear()


# The queue


def callers(line: Line, count: int, now: float) -> list[Caller]:
    found = [Caller(now + 30, now) for _ in range(count)]
    for caller in found:
        line.ask(caller, now)
    return found


def connects(line: Line) -> list[Place]:
    found = [command.place for command in line.commands if isinstance(command, Connect)]
    line.commands.clear()
    return found


def test_a_permanent_error_is_told_unless_one_connection_is_in_use() -> None:
    for in_use in (0, 1):
        line = Line(Rules(limit=3), Counters())
        held = connections(line, 1)
        if not in_use:
            line.retire(held[0], "idle")
            line.closed(held[0], 0.0)
        (waiter,) = callers(line, 1, 1.0)
        (place,) = connects(line)
        line.connect_failed(place, PermissionError(), transient=False, now=1.0)
        assert (waiter.error is None) is bool(in_use)
        assert (waiter in line.callers) is bool(in_use)


def test_up_to_the_steady_size_connections_take_turns_and_beyond_it_the_last_is_the_next() -> None:
    for count, first in ((1, 0), (2, 0), (3, 2)):
        line = Line(Rules(size=2, limit=4), Counters())
        held = connections(line, count)
        for place in held:
            line.give_back(place, 1.0)
        assert line.take(2.0) is held[first]


def test_a_tick_connects_again_when_it_is_time() -> None:
    line = Line(Rules(limit=3), Counters())
    (held,) = connections(line, 1)
    callers(line, 1, 1.0)
    (place,) = connects(line)
    line.connect_failed(place, ConnectionRefusedError(), transient=True, now=1.0)
    due = line.retry_at
    line.tick(due - 0.01)
    assert connects(line) == []
    line.tick(due)
    assert len(connects(line)) == 1
    line.give_back(held, due)


# Advice


@pytest.mark.parametrize(("checkouts", "told"), [(advice.ENOUGH - 1, False), (advice.ENOUGH, True)])
def test_a_short_life_is_told_from_enough_checkouts_on(checkouts: int, told: bool) -> None:
    pool: Any = SimpleNamespace(
        closed={"recycled": checkouts},
        use=SimpleNamespace(count=checkouts),
        create=SimpleNamespace(sum=1.0, count=10),
    )
    assert bool(advice._recycled(pool)) is told


# Statements that another thread executes


@pytest.mark.parametrize(
    ("pooled", "own", "told"),
    [
        (None, {}, []),
        ({"_connection_record": None}, {}, []),
        ({"dbapi_connection": None}, {}, []),
        ({"returned": True}, {}, ["invalidated"]),
        ({}, {"interrupts": True}, ["invalidated", ("interrupt", "under")]),
        ({}, {"number": None}, ["invalidated"]),
        ({}, {"number": 7}, ["invalidated", ("cancel", "pool", [7])]),
        ({}, {"number": 8, "fd": 99}, ["invalidated", ("cancel", "pool", [8]), ("shut", 99)]),
        ({}, {"number": 8, "fd": None}, ["invalidated", ("cancel", "pool", [8])]),
    ],
    ids=[
        "detached",
        "closed",
        "invalid",
        "returned",
        "in process",
        "no number",
        "by the server",
        "it is down",
        "no fd",
    ],
)
def test_a_statement_that_another_thread_executes_is_ended(
    monkeypatch: pytest.MonkeyPatch, pooled: dict[str, Any] | None, own: dict[str, Any], told: list[Any]
) -> None:
    found: list[Any] = []
    state = pooled or {}

    def invalidate(*, soft: bool) -> None:
        assert soft
        found.append("invalidated")
        if "returned" in state:
            fairy._connection_record = None

    def cancel(pool: Any, own: Any, requests: list[Request]) -> None:
        found.append(("cancel", pool, [request.number for request in requests]))
        if requests == [Request(8)]:
            raise OSError("away")

    connected = state.get("dbapi_connection", "connection")
    record = SimpleNamespace(dbapi_connection=connected, driver_connection="under", invalidate=invalidate)
    fairy = SimpleNamespace(_connection_record=state.get("_connection_record", record))
    driver = SimpleNamespace(
        interrupts=own.get("interrupts", False),
        interrupt=lambda under: found.append(("interrupt", under)),
        number=lambda under: own.get("number"),
        socket=lambda under: own.get("fd"),
    )
    monkeypatch.setattr(retiring.driver, "of", lambda dialect: driver)
    monkeypatch.setattr(retiring, "cancel_beside", cancel)
    monkeypatch.setattr(retiring.sockets, "shut", lambda fd: found.append(("shut", fd)))
    engine = SimpleNamespace(dialect=None, pool="pool", logging_name="shop")
    connection: Any = SimpleNamespace(_dbapi_connection=None if pooled is None else fairy, engine=engine)
    retiring.interrupt(connection)
    assert found == told


def test_a_drain_of_a_loop_asks_to_cancel_and_waits_for_it_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def ask() -> None:
        told.append("asked")
        if len(told) == 2:
            await_only(asyncio.sleep(60))

    late: Any = SimpleNamespace(name="shop", ask_to_cancel=ask)
    with caplog.at_level(logging.INFO):
        asyncio.run(draining._cancel(late))
        assert caplog.messages == []
        monkeypatch.setattr(draining, "CANCEL_LIMIT", 0.01)
        asyncio.run(draining._cancel(late))
    assert told == ["asked", "asked"]
    assert caplog.messages == ["shop: the server did not accept the cancel request within 0.01 s"]


# Deadlines of asynchronous drivers


LEFT = Left("SELECT 1")


class Loop(deadline_limit._OfLoop):
    """The limit of a driver with a socket, or without one."""

    def __init__(self, fd: int | None, number: int | None) -> None:
        self.asked: list[Request] = []
        self.driver: Any = SimpleNamespace(
            socket=lambda connection: fd, number=lambda connection: number, leave=lambda connection: LEFT
        )
        self.canceller: Any = SimpleNamespace(ask=self.asked.append)


def both(*arguments: Any) -> Any:
    return arguments


@pytest.mark.parametrize(("fd", "number", "asked"), [(99, 7, True), (99, None, False), (None, 7, False)])
def test_whose_connection_was_shut_has_left_it(
    fd: int | None, number: int | None, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut: list[int] = []
    monkeypatch.setattr(deadline_limit.sockets, "shut", shut.append)
    limit, late = Loop(fd, number), deadline_limit._Late()
    cancel, cut = limit.steps(late, object(), fd)
    cancel()
    assert (late.came, late.shut) == (True, False)
    assert limit.asked == ([] if number is None else [Request(7)])
    cut()
    assert late.shut is (fd is not None)
    assert shut == ([] if fd is None else [99])
    assert limit.asked[1:] == ([Request(7, LEFT)] if asked else [])


@pytest.mark.parametrize("fd", [None, 99])
@pytest.mark.parametrize("way", ["call", "cut"])
def test_timers_of_a_call_end_with_it(fd: int | None, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, late = Loop(fd, 7), deadline_limit._Late()

    async def main() -> None:
        timers: list[Any] = []
        loop = asyncio.get_running_loop()
        later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda *given: timers.append(later(*given)) or timers[-1])
        assert getattr(limit, way)(late, object(), 500.0, both, "cursor", "SELECT") == ("cursor", "SELECT")
        assert len(timers) == {"call": 2, "cut": int(fd is not None)}[way]
        assert all(timer.cancelled() for timer in timers)

    asyncio.run(main())
    assert not late.came


@pytest.mark.parametrize("fd", [None, 99])
def test_a_call_of_a_thread_that_is_in_time_returns_what_the_driver_returns(fd: int | None) -> None:
    limited: Any = object.__new__(deadline_limit._Limited)
    limited.driver, limited.canceller = Loop(fd, 7).driver, Loop(fd, 7).canceller
    late = deadline_limit._Late()
    for way in (limited.call, limited.cut):
        assert way(late, object(), 500.0, both, "cursor", "SELECT") == ("cursor", "SELECT")
    assert not late.came


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("way", "what"), [("statement", STATEMENTS), ("commit", COMMITTING)])
def test_the_time_of_a_call_counts_as_spent_on_it_even_if_it_fails(
    monkeypatch: pytest.MonkeyPatch, way: str, what: str, fails: bool
) -> None:
    now = [10.0]
    monkeypatch.setattr(deadline, "monotonic", lambda: now[0])
    monkeypatch.setattr(deadline_limit, "monotonic", lambda: now[0])

    def call(*_: Any) -> None:
        now[0] += 3.0
        if fails:
            raise OSError("away")

    limited, sent = Loop(None, 7), ("SELECT 1",) if way == "statement" else ()
    limited.driver.interrupts = False

    async def main() -> dict[str, float]:
        with deadline.Deadline(60) as limit:
            now[0] += 1.0
            with pytest.raises(OSError, match="away") if fails else nullcontext():
                getattr(limited, way)(limit, call, SimpleNamespace(_connection=object()), *sent)
            return limit.exceeded("it was asked").spent

    assert asyncio.run(main()) == {what: 3.0, deadline.ELSEWHERE: 1.0}


def test_what_took_several_turns_is_told_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "monotonic", lambda: 10.0)
    with deadline.Deadline(60) as outer, deadline.Deadline(70) as limit:
        for what, times in ((STATEMENTS, 3), (COMMITTING, 1)):
            for _ in range(times):
                limit.spend(what, 0.5)
        error = limit.exceeded("it was asked")
    spent = f"1.50 s {STATEMENTS} (3 times), 0.50 s {COMMITTING}, 0.00 s {deadline.ELSEWHERE}"
    assert str(error).endswith(f"while it was asked: {spent}")
    assert (error.seconds, outer.exceeded("").spent) == (60, error.spent)  # the one that ends first


def test_what_takes_too_long_is_cancelled_and_then_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    shut: list[int] = []
    monkeypatch.setattr(deadline_limit.sockets, "shut", shut.append)
    for number in (7, None):
        limit, late = Loop(99, number), deadline_limit._Late()

        async def main(limit: Loop = limit, late: Any = late) -> None:
            loop = asyncio.get_running_loop()
            scheduled: list[Any] = []
            monkeypatch.setattr(
                loop,
                "call_later",
                lambda seconds, work, *given: scheduled.append((seconds, work, given)) or SimpleNamespace(cancel=str),
            )
            limit.call(late, object(), 5.0, both, "cursor", "SELECT 1")
            (first, cancel, none), (second, cut, given) = scheduled
            assert (first, second) == (5.0, 5.0 + deadline_limit.GRACE)
            cancel(*none)
            assert (late.came, late.shut) == (True, False)
            cut(*given)
            assert late.shut

        asyncio.run(main())
        assert limit.asked == ([Request(7), Request(7, LEFT)] if number else [])
    assert shut == [99, 99]


def test_rows_of_a_database_in_this_process_end_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(deadline_limit, "monotonic", lambda: now[0])
    limit: Any = SimpleNamespace(at=11.0, exceeded=lambda during, whole: (during, whole))
    monkeypatch.setattr(deadline, "current", lambda: limit)
    ours: Any = object.__new__(deadline_limit._InProcess)
    ours.driver = SimpleNamespace(was_cancelled=lambda error: error == "cancelled")
    for at, error, found in (
        (10.9, "cancelled", None),
        (11.0, "cancelled", ("rows were read", True)),
        (12.0, "another", None),
    ):
        now[0] = at
        assert ours.name(SimpleNamespace(original_exception=error)) == found
    monkeypatch.setattr(deadline, "current", lambda: None)
    assert ours.name(SimpleNamespace(original_exception="cancelled")) is None


def test_where_the_cursors_connection_is() -> None:
    ours: Any = object.__new__(deadline_limit._InProcess)
    for is_async, found in ((True, "adapted"), (False, "driver's")):
        ours.dialect = SimpleNamespace(is_async=is_async)
        assert ours.under(SimpleNamespace(_connection="adapted", connection="driver's")) == found


def test_a_pool_that_has_never_failed_fills_itself_without_a_pause() -> None:
    server = FakeServer()
    pool = fair_pool(server, line=LineOptions(judge=JUDGE, min_idle=3), pool_size=3, max_overflow=0)
    pool.connect().close()
    assert pool.line.failures == 0
    assert idle.Care(pool)() == pytest.approx(judgements.LONGEST_ROUND, abs=0.1)  # as many as are missing are coming
    assert pool.connecting + len(pool.idle) == 3
    assert eventually(lambda: len(pool.idle) == 3)
    idle.Care(pool)()
    assert pool.open == 3
    assert_whole(pool)
    pool.dispose()
