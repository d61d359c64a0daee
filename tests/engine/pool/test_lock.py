"""Who holds the pool's lock waits for nothing: any thread may have to wait for it where Python collects garbage."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import exc

from dbconfig.engine.pool import idle
from dbconfig.engine.pool.maintenance import Caretaker
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.place import Caller
from dbconfig.engine.pool.threads import FairPool

from .support import JUDGE, FakeServer, assert_whole, callers, eventually, fair_pool
from .test_interrupts import LIMIT, SCENARIOS, Scenario

Wrong = list[str]


def is_held_here(pool: FairPool) -> bool:
    held: bool = pool.lock._is_owned()  # type: ignore[attr-defined]  # what threading.Condition asks of a lock
    return held


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[FairPool], None]]:
    """Fail a test in which one who holds the lock of a watched pool waits for a thread, a log or a report."""
    pools: weakref.WeakSet[FairPool] = weakref.WeakSet()
    wrong: Wrong = []

    def note(what: str) -> None:
        wrong.extend(what for pool in list(pools) if is_held_here(pool))

    def begin(pool: FairPool) -> None:
        pools.add(pool)
        pool.explain = lambda _: (note("a report"), [])[1]  # type: ignore[func-returns-value]  # a note, and no lines

    start, handle = threading.Thread.start, logging.Logger.handle
    monkeypatch.setattr(threading.Thread, "start", lambda self: (note(f"the thread {self.name}"), start(self))[1])
    monkeypatch.setattr(logging.Logger, "handle", lambda self, record: (note(record.msg), handle(self, record))[1])
    caplog.set_level(logging.DEBUG, "dbconfig")
    yield begin
    assert not wrong


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nobody_waits_while_he_holds_the_lock(scenario: Scenario, watched: Callable[[FairPool], None]) -> None:
    server = FakeServer()
    options = LineOptions(min_idle=1, idle_timeout=600.0, judge=JUDGE)
    pool = fair_pool(server, pool_size=1, max_overflow=LIMIT - 1, timeout=20.0, line=options)
    pool.server_of_test = server  # type: ignore[attr-defined]  # for a failed connect
    watched(pool)
    work = scenario(pool)
    work()
    for thread in getattr(work, "threads", ()):
        thread.join(30)
        assert not thread.is_alive()
    pool.dispose()


def test_a_full_line_is_reported_without_the_lock(watched: Callable[[FairPool], None]) -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0, line=LineOptions(max_waiting=0, judge=JUDGE))
    watched(pool)
    with_one = pool.connect()
    with pytest.raises(exc.TimeoutError, match="reached") as raised:
        pool.connect()
    assert raised.value.__notes__ == ["the queue is full: 0 waiting (pool_max_waiting is 0)"]
    assert pool.counters.refused == 1
    with_one.close()
    assert_whole(pool)
    pool.dispose()


def test_a_connect_that_fails_for_nobody_is_told_without_the_lock(
    watched: Callable[[FairPool], None], caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=2, max_overflow=0, timeout=0.2)
    watched(pool)
    held = pool.connect()
    server.gate, server.error = threading.Event(), ValueError("too late")
    with suppress(exc.TimeoutError):
        pool.connect()  # leaves while the helper connects
    server.gate.set()
    assert eventually(lambda: "no caller waits for" in caplog.text)
    held.close()
    assert_whole(pool)
    pool.dispose()


def test_a_second_helper_that_fails_gives_its_place_back_without_the_lock(watched: Callable[[FairPool], None]) -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=3, max_overflow=0, timeout=20.0)
    watched(pool)
    held = pool.connect()
    server.gate, server.error = threading.Event(), ConnectionRefusedError("down")
    with callers() as run:
        waiting = [run(pool.connect) for _ in range(3)]
        assert eventually(lambda: server.attempts == 3)
        server.gate.set()
        assert eventually(lambda: pool.line.failures >= 2)
        server.error = None
        connections = [held]
        for _ in range(3):  # two places are free, and the third is served by what comes back
            done = next(each for each in waiting if eventually(each.done))
            waiting.remove(done)
            connections.append(done.result(30))
            connections.pop(0).close()
        connections.pop().close()
    assert_whole(pool)
    pool.dispose()


def test_a_connection_that_is_collected_under_the_lock_serves_who_waits(watched: Callable[[FairPool], None]) -> None:
    """The place goes to the waiter, who connects himself: a helper thread cannot be started there."""
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=1, timeout=30.0)
    watched(pool)
    held = pool.connect()
    forgotten = [pool._do_get()]  # SQLAlchemy has it, and nobody else: an exception struck before its caller got it
    with callers() as run:
        waiting = run(pool.connect)
        assert eventually(lambda: len(pool.waiters) == 1)
        with pool.lock:
            forgotten.clear()
            assert not pool.waiters
            assert pool.open == 2
        waiting.result(30).close()
    held.close()
    gc.collect(0)
    assert_whole(pool)
    pool.dispose()


@pytest.mark.parametrize("inner", ["_fit", "_line_up", "_staff"])
def test_a_connection_that_is_collected_in_an_event_serves_who_waits(
    inner: str, monkeypatch: pytest.MonkeyPatch, watched: Callable[[FairPool], None]
) -> None:
    """The event of the collector takes place when the one has ended in which it ran."""
    pool = fair_pool(FakeServer(), pool_size=2, max_overflow=0, timeout=30.0)
    watched(pool)
    held = pool.connect()
    forgotten = [pool._do_get()]
    own = getattr(pool.line, inner)

    def collect(*arguments: Any, **named: Any) -> Any:
        found = own(*arguments, **named)
        if pool.inside:
            forgotten.clear()
        return found

    monkeypatch.setattr(pool.line, inner, collect)
    began = time.monotonic()
    pool.connect().close()
    assert not forgotten
    assert time.monotonic() - began < 15  # not at the half of its time, when the pool looks for garbage
    held.close()
    assert_whole(pool)
    pool.dispose()


def test_a_connection_that_is_collected_at_the_end_of_an_event_serves_who_waits() -> None:
    """The last moment at which the one who is inside could still see it has passed."""
    pool = fair_pool(FakeServer(), pool_size=2, max_overflow=0, timeout=30.0)
    held = pool.connect()
    forgotten = [pool._do_get()]

    class Gate:
        """Of a caller to whom the first connection is given."""

        def locked(self) -> bool:
            return True

        def release(self) -> None:
            assert pool.inside
            forgotten.clear()

    first = Caller(float("inf"), 0.0, Gate())
    pool.asking.add(first)
    pool.waiters[first] = None
    with callers() as run:
        waiting = run(pool.connect)
        assert eventually(lambda: len(pool.waiters) == 2)
        began = time.monotonic()
        held.close()
        assert not pool._later
        waiting.result(30).close()
        assert time.monotonic() - began < 10
    assert not forgotten
    pool._abandon(first)
    pool.asking.discard(first)
    assert_whole(pool)
    pool.dispose()


def test_a_start_may_wait_for_a_thread_that_collects_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Thread.start` returns when the new thread has begun, and the new one may first have to collect garbage."""
    server = FakeServer()
    pool = fair_pool(server, pool_size=2, max_overflow=0, line=LineOptions(min_idle=1, judge=JUDGE))
    forgotten: list[Any] = []
    event_set = threading.Event.set

    def collect_and_set(self: threading.Event) -> None:
        if threading.get_ident() not in known:
            forgotten.clear()  # as the collector does, which runs wherever it likes
        event_set(self)

    forgotten.append(pool._do_get())  # SQLAlchemy has it, and nobody else
    idle.end(pool)
    pool.line.warm, pool.line.care.due = False, float("inf")  # the next connection begins the care
    ready, go = threading.Event(), threading.Lock()
    go.acquire()

    def use() -> None:
        ready.set()
        with go:
            pool.connect().close()

    user = threading.Thread(target=use, daemon=True)
    user.start()
    ready.wait()
    known = {threading.get_ident(), user.ident}
    monkeypatch.setattr(idle, "caretaker", Caretaker())  # whose thread has not begun
    monkeypatch.setattr(threading.Event, "set", collect_and_set)
    go.release()
    user.join(60)
    assert not user.is_alive(), "it waits for a thread that waits for its lock"
    assert not forgotten
    monkeypatch.undo()
    assert_whole(pool)
    pool.dispose()
