"""Parts of the pool by themselves: places, records, the books of a connect, and what a forked child pins."""

from __future__ import annotations

import gc
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, exc
from sqlalchemy.engine.default import DefaultDialect

from dbconfig.engine.pool import forks, judgements, thread_places, threads, timeout_errors
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.ping import Check
from dbconfig.engine.pool.place import Caller, Place, State
from dbconfig.engine.pool.record import Slot
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.threads import FairPool
from dbconfig.engine.pool.work import Order
from tests.engine.pool.support import JUDGE, FakeServer, assert_whole, callers, eventually, fair_pool, running_engine


def record_of(fairy: Any) -> Any:
    return fairy._connection_record


# Who connects


@pytest.mark.parametrize(
    ("dialect", "timeout", "inline"),
    [("sqlite", 30, True), ("postgresql", 30, False), ("postgresql", 1, False), ("postgresql", 0, True)],
)
def test_a_caller_connects_himself_where_a_connect_takes_no_time_or_he_has_none(
    dialect: str, timeout: float, inline: bool
) -> None:
    kind = DefaultDialect()
    kind.name = dialect
    pool = fair_pool(FakeServer(), timeout=timeout, dialect=kind)
    assert pool.line.rules.callers_connect is inline
    threads: list[int] = []
    connect = pool._creator
    pool._creator = lambda: threads.append(threading.get_ident()) or connect()  # type: ignore[func-returns-value]
    one, other = pool.connect(), pool.connect()
    assert threads[0] == threading.get_ident()  # the first one in any case
    assert (threads[1] == threading.get_ident()) is inline
    one.close()
    other.close()
    pool.dispose()


def test_so_many_helpers_connect_at_most_and_one_while_the_server_is_away() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=20, max_overflow=0, timeout=20.0)
    held = pool.connect()
    server.gate, server.error = threading.Event(), ConnectionRefusedError("down")
    with callers(6) as run:
        waiting = [run(pool.connect) for _ in range(6)]
        assert eventually(lambda: len(pool.waiters) == 6 and server.attempts == 1 + judgements.CONNECTS_AT_ONCE)
        server.gate.set()
        assert eventually(lambda: pool.line.failures >= 5)
        assert pool.connecting <= 1
        server.error = None
        for each in waiting:
            each.result(30).close()
    held.close()
    assert_whole(pool)
    pool.dispose()


def test_a_helper_that_is_done_connects_for_the_next_caller_and_no_other_thread_is_started_for_it() -> None:
    """Otherwise a burst of callers starts a thread for each of its connections."""
    server, used = FakeServer(), list[threading.Thread]()
    pool = fair_pool(server, pool_size=20, max_overflow=0, timeout=30.0)
    pool.line.rules = replace(pool.line.rules, connect_stalls=60.0)  # or a machine that is busy starts a fourth
    connect = pool._creator
    held = [pool.connect()]
    pool._creator = lambda: used.append(threading.current_thread()) or connect()  # type: ignore[func-returns-value]
    server.gate = threading.Event()
    with callers(12) as run:
        waiting = [run(pool.connect) for _ in range(12)]
        assert eventually(lambda: len(pool.waiters) == 12 and len(used) == judgements.CONNECTS_AT_ONCE)
        server.gate.set()
        held += [each.result(30) for each in waiting]
    assert (len(used), len(set(used))) == (12, judgements.CONNECTS_AT_ONCE)
    for each in held:
        each.close()
    assert_whole(pool)
    pool.dispose()


def test_an_order_is_the_starters_until_the_thread_has_begun() -> None:
    place, lock = Place(0.0, 0), threading.RLock()
    order = Order(place, lock)
    assert order.lasts
    assert order.withdraw()
    assert not order.lasts
    assert not order.withdraw()
    assert order.begin() is None
    begun = Order(place, lock)
    assert begun.begin() is place
    assert not begun.withdraw()
    assert begun.lasts


def test_a_place_whose_state_is_not_that_of_a_loan_is_freed_by_no_record() -> None:
    pool = fair_pool(FakeServer())
    with closing(pool.connect()) as fairy:
        place = record_of(fairy).place
        for state in (State.CONNECTING, State.IDLE, State.CLOSING, State.FREE):
            place.state = state
            Slot(pool, place)  # and its end
            gc.collect(0)
            assert pool.open == 1
        place.state = State.LENT
    assert_whole(pool)
    pool.dispose()


def test_a_connect_is_in_the_books_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    pool = fair_pool(server)
    now = [1000.0]
    for module in (threads, thread_places):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    connect = server.connect

    def slow() -> Any:
        now[0] += 0.25
        return connect()

    pool._creator = slow
    with closing(pool.connect()) as fairy:
        record: Any = record_of(fairy)
        assert pool.counters.create.sum == pytest.approx(0.25)
        assert sum(pool.counters.create.counts) == 1
        assert record.returned_at == record.checked_at == 1000.25
    pool.dispose()


def test_a_connect_that_is_interrupted_when_it_is_done_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    pool = fair_pool(server)

    def interrupt(place: Place, record: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "connected", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.connect()
    assert [connection.closed for connection in server.made] == [True]
    assert (pool.open, pool.connecting, pool.line.warm) == (0, 0, False)
    monkeypatch.undo()
    pool.connect().close()
    assert_whole(pool)
    pool.dispose()


@pytest.mark.parametrize(("attempt", "least"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (50, 0.5)])
def test_a_server_that_is_away_is_asked_ever_less_often(attempt: int, least: float) -> None:
    rules = [fair_pool(FakeServer()).line.rules for _ in range(50)]
    pauses = [each.retry_pause(attempt, transient=True) for each in rules]
    assert least <= min(pauses)
    assert max(pauses) <= least * 1.25
    assert len(set(pauses)) > 1  # or the processes of an application would all ask at once
    assert rules[0].retry_pause(attempt, transient=False) == judgements.RETRY_REFUSED


def test_each_caller_has_an_error_of_his_own() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    cause = OSError()
    error = exc.InterfaceError("SELECT 1", {}, cause)
    odd = Odd(1, 2)
    plain = ConnectionRefusedError(111, "refused")
    plain.__cause__ = cause
    mine = timeout_errors.copy_of(plain, 1.25)
    assert (type(mine), mine.args, mine.__cause__) == (ConnectionRefusedError, (111, "refused"), cause)
    assert mine is not plain
    assert mine.__notes__ == ["the pool tried to connect for 1.2 s (pool_timeout)"]
    assert timeout_errors.copy_of(odd, 1.0) is odd  # which cannot be made again of what it says
    assert isinstance(timeout_errors.copy_of(error, 1.0), exc.InterfaceError)


# Who gets a connection


def test_a_connection_that_was_returned_just_as_long_ago_as_it_is_trusted_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[float] = []

    def of_record(check: Check, dialect: Any, record: Any, now: float, deadline: float) -> Verdict:
        looked.append(now)
        return Verdict.ALIVE

    monkeypatch.setattr(Check, "of_record", of_record)
    now = [1000.0]
    monkeypatch.setattr(threads, "monotonic", lambda: now[0])
    pool = fair_pool(FakeServer(), line=LineOptions(check=Check(1.0), judge=JUDGE))
    pool.connect().close()
    now[0] += pool.trust / 2
    pool.connect().close()
    assert looked == []
    assert pool.counters.at_once == 1
    (place,) = pool.idle
    record = place.connection
    now[0] = record.doubtful_at
    pool.connect().close()
    assert looked == [now[0]]
    assert pool.counters.at_once == 1
    record.doubtful_at, record.expires = NEVER, now[0]  # it has come to its end this very moment
    assert pool._why_unfit(Caller(NEVER, now[0]), place, rested=True) == "recycled"
    pool.dispose()


@pytest.mark.parametrize("quickly", [True, False])
def test_a_connection_knows_which_thread_has_it(monkeypatch: pytest.MonkeyPatch, quickly: bool) -> None:
    monkeypatch.setattr(Check, "of_record", lambda *_: Verdict.ALIVE)
    monkeypatch.setattr(Check, "trust", 60.0 if quickly else 0.0)
    pool = fair_pool(FakeServer(), line=LineOptions(check=Check(60.0), judge=JUDGE))
    pool.connect().close()
    found: list[int] = []

    def take() -> None:
        with closing(pool.connect()) as fairy:
            found.append(record_of(fairy).thread)
            found.append(threading.get_ident())

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(30)
    assert found[0] == found[1]
    assert pool.counters.at_once == quickly
    pool.dispose()


@pytest.mark.parametrize("what", ["connection", "place", "nothing"])
def test_what_was_handed_to_a_caller_who_leaves_in_that_moment_goes_on(what: str) -> None:
    pool = fair_pool(FakeServer(), pool_size=2, max_overflow=0)
    caller = Caller(NEVER, 0.0)
    fairy: Any = pool.connect()
    pool.asking.add(caller)
    if what == "connection":
        pool.waiters[caller] = None
        place = record_of(fairy).place
        fairy.close()
        assert caller.place is place
    elif what == "place":
        pool.line.warm = False  # so that a caller connects
        with pool.lock:
            pool.line.ask(caller, 0.0)
        assert pool.connecting == 1
    else:
        pool.waiters[caller] = None
    pool._abandon(caller)
    pool.asking.discard(caller)
    assert caller.place is None
    assert not pool.waiters
    if what != "connection":
        fairy.close()
    assert_whole(pool)
    assert len(pool.idle) == 1
    pool.dispose()


def test_a_caller_who_is_interrupted_when_he_has_a_connection_gives_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0)

    def lend(caller: Any, place: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_lend", lend)
    with pytest.raises(KeyboardInterrupt):
        pool._get_slowly(None, threads.monotonic())
    assert len(pool.idle) == pool.open == 1
    monkeypatch.undo()
    pool.connect().close()
    pool.dispose()


def test_a_full_pool_says_why_it_has_not_connected_anew() -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0, timeout=0.01)
    with closing(pool.connect()):
        for trouble in (None, ConnectionRefusedError()):
            pool.line.trouble = trouble
            with pytest.raises(exc.TimeoutError) as caught:
                pool.connect()
            assert caught.value.__cause__ is trouble
    pool.line.trouble = None
    pool.dispose()


def test_two_who_find_the_same_server_dead_invalidate_the_pool_once() -> None:
    server = FakeServer()
    pool = fair_pool(server)
    one, two, three = pool.connect(), pool.connect(), pool.connect()
    pool._invalidate(one, ConnectionResetError())
    assert pool.generation == 1
    assert not one.is_valid
    pool._invalidate(two, ConnectionResetError())
    assert pool.generation == 1
    assert not two.is_valid
    pool._invalidate(three, _checkin=False)
    assert three.is_valid  # SQLAlchemy does that itself
    pool._invalidate(object(), None)  # of nobody knows which connection
    assert pool.generation == 2
    with closing(pool.connect()) as new:
        pool._invalidate(new, _checkin=False)
        assert pool.generation == 3
    for each in (one, two, three):
        each.close()
    assert_whole(pool)
    pool.dispose()
    assert server.open == 0


def test_a_connection_ends_once() -> None:
    server = FakeServer()
    pool = fair_pool(server)
    fairy: Any = pool.connect()
    record = record_of(fairy)
    record.part("recycled")
    record.part("idle")
    assert record.reason == "recycled"
    assert [connection.closed for connection in server.made] == [True]
    fairy.close()
    assert_whole(pool)
    pool.dispose()


def test_what_stands_in_no_line_is_one_helpers_who_find_somebody_waiting() -> None:
    """A helper that is done connects for the next one, as long as more wait than others are at it."""
    server = FakeServer()
    pool = fair_pool(server, pool_size=4, max_overflow=0)
    pool.connect().close()
    held = pool.connect()
    server.gate = threading.Event()
    with callers(3) as run:
        waiting = [run(pool.connect) for _ in range(3)]
        assert eventually(lambda: len(pool.waiters) == 3)
        assert eventually(lambda: server.attempts == 4)
        server.gate.set()
        for each in waiting:
            each.result(30).close()
    held.close()
    assert server.attempts == 4
    assert_whole(pool)
    pool.dispose()


def test_a_connect_that_hangs_does_not_keep_a_later_caller_from_a_new_one() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=4, max_overflow=0, timeout=0.4)
    pool.line.rules = replace(pool.line.rules, connect_stalls=0.3)
    held = pool.connect()
    server.gate = hung = threading.Event()
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    under_way = pool.connecting  # another one is tried when the first one has taken for long
    assert 1 <= under_way <= 2
    server.gate = None
    pool._timeout = 30.0
    pool.connect().close()
    assert pool.connecting == under_way
    hung.set()
    held.close()
    assert_whole(pool)
    pool.dispose()


# What a forked child keeps


def test_what_is_gone_is_told_of_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_resets", [])

    class Owner:
        told = 0

        def reset(self) -> None:
            self.told += 1

    kept, gone = Owner(), Owner()
    calls: list[int] = []
    for reset in (kept.reset, gone.reset, lambda: calls.append(1)):
        forks.after_fork_in_child(reset)
    assert len(forks._resets) == 3
    del gone, reset
    gc.collect()
    forks._free_locks()
    assert (kept.told, calls) == (1, [1])
    forks.after_fork_in_child(kept.reset)
    assert len(forks._resets) == 3  # the one that is gone takes no room


@pytest.mark.parametrize("finalizer", [True, False])
def test_an_inherited_connection_is_kept_and_out_of_use(monkeypatch: pytest.MonkeyPatch, finalizer: bool) -> None:
    monkeypatch.setattr(forks, "_pinned", [])
    detached: list[int] = []
    strong: dict[Any, Any] = {}
    monkeypatch.setattr(forks.base, "_strong_ref_connection_records", strong, raising=False)
    connection, idle_connection = object(), object()
    fairy = SimpleNamespace(dbapi_connection=connection, _connection_record=None)
    if finalizer:  # as SQLAlchemy 2.1 has
        fairy._finalizer = SimpleNamespace(detach=lambda: detached.append(1))
    ended = SimpleNamespace(fairy_ref=lambda: None, dbapi_connection=object())
    idle = SimpleNamespace(fairy_ref=None, dbapi_connection=idle_connection)
    record = SimpleNamespace(fairy_ref=lambda: fairy, dbapi_connection=connection)
    fairy._connection_record = record
    strong[record.fairy_ref] = record
    forks.pin([ended, idle, record])
    assert forks._pinned == [
        (ended, ended.dbapi_connection),
        (idle, idle_connection),
        (record, connection),
        fairy,
    ]
    assert (record.fairy_ref, fairy.dbapi_connection, fairy._connection_record) == (None, None, None)
    assert detached == [1] * finalizer
    assert strong == {}


def test_an_engine_of_sqlite_is_asked_for_nothing_by_its_name() -> None:
    engine = create_engine("sqlite://", poolclass=FairPool, creator=lambda: sqlite3.connect(":memory:"))
    assert isinstance(engine.pool, FairPool)
    assert engine.pool.line.rules.callers_connect
    engine.dispose()


@pytest.mark.parametrize("kind", [None, "QueuePool"])
def test_the_end_of_a_connections_life_is_drawn_when_it_is_made(tmp_path: Any, kind: str | None) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db", pool_recycle=60.0, poolclass=kind) as engine:
        fairy: Any = engine.raw_connection()
        record = record_of(fairy)
        ends = record.info["dbconfig.expires"] if kind else record.expires
        assert 40 < ends - threads.monotonic() <= 60
        assert bool(engine.pool.dispatch.checkout) is bool(kind)  # ours does not ask a listener each time
        fairy.close()
