"""The watch over calls, forks, and the ends of pools: what is decided by a clock or by who comes first."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine.default import DefaultDialect

from dbconfig.engine import pool as pool_package
from dbconfig.engine.pool import call_watchdog, driver, forks, idle, judgements, thread_places, threads
from dbconfig.engine.pool.call_watchdog import Watch
from dbconfig.engine.pool.driver import Driver
from dbconfig.engine.pool.options import SYSTEM_ERRORS, LineOptions
from dbconfig.engine.pool.refusal import NEVER
from tests.engine.pool.support import JUDGE, FakeServer, eventually, fair_pool

# The watch


def test_a_call_that_takes_too_long_is_ended_before_anybody_goes_on() -> None:
    watch, released, ended = Watch(), threading.Event(), []

    def late() -> None:
        released.set()
        time.sleep(0.02)  # the call has ended, and this has not
        ended.append(1)

    assert watch.guard(late, 0.01, released.wait, 30) == (True, False)
    assert ended == [1]  # or the descriptor might be somebody else's by then
    assert watch._guards == {}


def test_a_call_that_is_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_watchdog, "TICK", 0.001)
    watch, late = Watch(), []

    def call(result: str) -> str:
        before = watch._round_at
        assert eventually(lambda: watch._round_at > before + 0.003)  # the watch has looked at it several times
        return result

    assert watch.guard(lambda: late.append(1), 3600, call, "done") == ("done", True)
    assert late == []
    thread = watch._thread
    assert thread is not None
    assert watch.guard(lambda: late.append(1), 3600, call, result="again") == ("again", True)
    assert watch._thread is thread  # one serves all
    assert watch.call(None, 0.0, lambda: "no socket") == ("no socket", True)
    monkeypatch.setattr(call_watchdog, "LINGER", 0.0)
    thread.join(30)
    assert not thread.is_alive()
    assert watch._thread is None


def test_a_call_that_fails_leaves_no_guard() -> None:
    watch = Watch()
    with pytest.raises(ZeroDivisionError):
        watch.guard(lambda: None, 3600, lambda: 1 // 0)
    assert watch._guards == {}


def test_a_fork_ends_the_watch_of_the_parent_for_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_resets", [])
    watch = Watch()
    watch._guards[threading.Lock()] = (0.0, lambda: None)
    watch._thread = threading.current_thread()
    forks._free_locks()
    assert (watch._guards, watch._thread) == ({}, None)


# Forks


class Clock:
    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return 1000 + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_a_fork_waits_for_a_connect_for_a_second_and_a_connect_for_a_fork_for_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(forks, "time", clock)
    connects = forks.Connects()
    another = threading.get_ident() + 1
    connects.begin((another, object()))
    connects.pause()
    assert clock.slept == pytest.approx(1.0, abs=0.01)
    clock.slept = 0.0
    token = (another, object())
    connects.begin(token)
    assert clock.slept == pytest.approx(2.0, abs=0.01)
    assert token in connects._under_way
    connects.go_on()
    clock.slept = 0.0
    connects.end(token)
    connects.begin(token)
    assert clock.slept == 0.0
    connects.forget()
    assert not connects._under_way
    connects.pause()
    assert clock.slept == 0.0


def test_who_is_guarded_is_told_of_a_fork_before_and_after() -> None:
    told: list[str] = []

    class Guarded:
        def before_fork(self) -> None:
            told.append("before")

        def after_fork_in_parent(self) -> None:
            told.append("after")

        def after_fork_in_child(self) -> None:
            os.write(writes, b"child")

    guarded = Guarded()
    forks.guard(guarded)
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert told == ["before", "after"]
    assert os.read(reads, 100) == b"child"
    os.close(reads)
    os.close(writes)
    del guarded


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no page that a fork wipes")
def test_a_mark_is_gone_in_a_child() -> None:
    mark = forks.mark()
    assert mark[0]
    assert not isinstance(mark, forks._Pid)
    pid = os.fork()
    if pid == 0:
        os._exit(mark[0])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert mark[0]


def test_a_pool_begins_afresh_after_a_fork_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_pinned", [])
    begun: list[Any] = []
    ended: list[Any] = []
    monkeypatch.setattr(idle.caretaker, "add", lambda key, job, delay: begun.append(delay))
    monkeypatch.setattr(idle.caretaker, "remove", ended.append)
    server = FakeServer()
    dialect = DefaultDialect()
    dialect.name = "sqlite"
    pool = fair_pool(server, line=LineOptions(min_idle=1, judge=JUDGE), dialect=dialect)
    pool.connect().close()
    pool.connect().close()
    assert begun == pytest.approx([judgements.SHORTEST_ROUND], abs=0.02)
    (place,) = pool.idle
    record = place.connection
    before = pool.lock
    pool._start_afresh()
    assert (pool.open, pool.connecting, len(pool.idle), len(pool.lent), len(pool.waiters)) == (0, 0, 0, 0, 0)
    assert pool.lock is not before
    assert pool.line.rules.callers_connect
    assert place not in pool.line.places
    assert forks._pinned == [(record, record.dbapi_connection)]
    assert server.open == 1  # it is the parent's
    pool.connect().close()
    assert begun == pytest.approx([judgements.SHORTEST_ROUND] * 2, abs=0.02)
    assert (server.open, pool.open) == (2, 1)
    pool.dispose()
    assert ended == [id(pool)]


def test_the_first_checkout_after_a_fork_in_c_leaves_idle_connections_to_the_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "_pinned", [])
    server = FakeServer()
    pool = fair_pool(server)
    pool.connect().close()
    pool.in_its_process = [0]  # as the page that such a fork wipes
    connection = pool.connect()
    assert connection.dbapi_connection is server.made[1]
    connection.close()
    assert (server.open, pool.open, len(pool.idle)) == (2, 1, 1)
    assert pool.in_its_process[0]
    pool.connect().close()  # the next one finds it
    assert server.attempts == 2
    pool.dispose()
    assert [each.closed for each in server.made] == [False, True]


def test_a_forked_child_disposes_of_no_connection_and_keeps_the_pools_of_event_loops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks, "_pinned", [])
    disposed: list[Any] = []
    pinned: list[Any] = []

    def engine(*, is_async: bool) -> Any:
        made = SimpleNamespace(pool=object(), dialect=SimpleNamespace(is_async=is_async))
        made.dispose = lambda *, close: disposed.append((made, close))
        return made

    of_threads, of_tasks = engine(is_async=False), engine(is_async=True)
    monkeypatch.setattr(pool_package, "engines", lambda: [of_threads, of_tasks])
    monkeypatch.setattr(pool_package, "pin_in_flight", pinned.append)
    pool_package._leave_to_the_parent()
    assert pinned == [of_threads, of_tasks]
    assert disposed == [(of_threads, False), (of_tasks, False)]
    assert forks._pinned == [of_tasks.pool]


# The care of a pool of threads


def test_a_round_of_care_says_when_the_next_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    pool = fair_pool(server, line=LineOptions(min_idle=2, idle_timeout=4.0, keepalive=7.0, judge=JUDGE), pool_size=5)
    care = idle.Care(pool)
    now = [1000.0]
    for module in (idle, threads, thread_places):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(idle.caretaker, "add", lambda *_: None)  # the rounds are ours
    pool.connect().close()
    assert care() == 4.0  # one is missing, and a helper is at it
    assert eventually(lambda: len(pool.idle) == 2 and not pool.connecting)
    assert care() == 4.0
    pool.idle[0].checked_at = pool.idle[0].returned_at = 994.0
    pool.idle[1].checked_at = pool.idle[1].returned_at = 999.0
    pool.line.rules = replace(pool.line.rules, idle_timeout=None)
    assert care() == 1.0  # then one is asked
    pool.idle[0].expires = 1000.5
    assert care() == 0.5
    server.gate = threading.Event()
    pool.line.rules = replace(pool.line.rules, min_idle=6)
    pool.line.failures = 3
    now[0] = 1000.1
    pool.idle[0].expires = NEVER
    assert care() == pytest.approx(judgements.SHORTEST_ROUND * 8)  # three connect, and one is still missing
    assert pool.connecting == 3
    server.gate.set()
    assert eventually(lambda: not pool.connecting)
    pool.dispose()
    assert care() is None


# Errors and drivers


@pytest.mark.parametrize(
    ("error", "again"),
    [(ConnectionRefusedError(), True), (TimeoutError(), True), (PermissionError(), False), (ValueError(), False)],
)
def test_a_pool_that_knows_no_database_goes_by_the_operating_system(error: Exception, again: bool) -> None:
    assert SYSTEM_ERRORS.connects_again(error) is again
    assert SYSTEM_ERRORS.ends_connection(error) is False
    assert SYSTEM_ERRORS.refuses_writes(error) is False
    assert SYSTEM_ERRORS.read_only_because(nullcontext) == ""


def test_the_socket_of_a_connection_is_that_of_its_transport() -> None:
    class Plain(Driver):
        def transport(self, connection: Any) -> Any:
            return connection

    plug = SimpleNamespace(fileno=lambda: 7)
    found = SimpleNamespace(get_extra_info={"socket": plug}.get)
    assert Plain().plug(found) is plug
    assert Plain().socket(found) == 7
    assert Plain().plug(None) is None
    assert Plain().socket(None) is None
    for odd in (-1, "7", None):
        plug.fileno = lambda odd=odd: odd
        assert Plain().socket(found) is None
    assert Driver().plug(found) is None


def test_a_dialect_that_was_never_introduced_has_a_driver_that_knows_nothing() -> None:
    class Dialect: ...

    dialect, known = Dialect(), Driver()
    assert type(driver.of(dialect)) is Driver
    driver.introduce(dialect, known)
    assert driver.of(dialect) is known
