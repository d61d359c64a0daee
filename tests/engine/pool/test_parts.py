"""Parts of the pool by themselves: places, records, the books of a connect, and what a forked child pins."""

from __future__ import annotations

import gc
import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, exc

from dbconfig.engine.pool import connecting, forks, judgements, threads, timeout_errors
from dbconfig.engine.pool.connecting import HELPERS, Order
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.ping import Check
from dbconfig.engine.pool.record import NEVER, Slot, Waiter
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.threads import FairPool
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
    pool = fair_pool(FakeServer(), timeout=timeout, dialect=SimpleNamespace(name=dialect))
    assert pool.connector.inline is inline
    assert pool.connector.on_callers_thread
    assert pool.connector.may_connect_here()
    pool.connector.first_under_way = True
    assert pool.connector.may_connect_here() is inline
    pool.connector.first_under_way, pool.connector.warm = False, True
    assert pool.connector.on_callers_thread is inline
    assert pool.connector.may_connect_here() is inline


def test_there_are_so_many_helpers_at_most_and_none_while_the_server_is_away() -> None:
    pool = fair_pool(FakeServer(), pool_size=20, max_overflow=0)
    orders = [Order(pool.connector, Slot(pool)) for _ in range(HELPERS + 1)]
    assert [order.count() for order in orders] == [True] * HELPERS + [False]
    assert pool.connector.free_helpers == 0
    for order in orders:
        order.end()
        order.end()  # no second time
    assert pool.connector.free_helpers == HELPERS
    pool.connector.trouble = OSError()
    assert not orders[0].count()
    assert pool.connector.free_helpers == 0
    pool.connector.trouble = None
    assert orders[0].count()
    del order
    orders.clear()  # it counts for no longer than it lives
    assert pool.connector.free_helpers == HELPERS


def test_an_order_is_the_starters_until_the_thread_has_begun() -> None:
    pool = fair_pool(FakeServer())
    slot = Slot(pool)
    order = Order(pool.connector, slot)
    assert order.count()
    assert order.withdraw() is slot
    assert pool.connector.free_helpers == HELPERS
    assert order.withdraw() is None
    begun = Order(pool.connector, slot)
    assert begun.count()
    assert begun.begin() is slot
    assert begun.withdraw() is None
    assert pool.connector.free_helpers == HELPERS - 1


def test_a_place_that_the_line_has_not_counted_frees_none() -> None:
    pool = fair_pool(FakeServer())
    with closing(pool.connect()):
        slot = Slot(pool)
        slot.release()
        del slot
        gc.collect()
        assert pool.open == 1
    assert_whole(pool)
    pool.dispose()


def test_a_connect_is_in_the_books_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    pool = fair_pool(server)
    now = [1000.0]
    monkeypatch.setattr(connecting, "monotonic", lambda: now[0])
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

    def settle(slot: Slot) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "settle", settle)
    with pytest.raises(KeyboardInterrupt):
        pool.connect()
    assert [connection.closed for connection in server.made] == [True]
    assert (pool.open, pool.connecting, pool.connector.first_under_way) == (0, 0, False)
    monkeypatch.undo()
    pool.connect().close()
    assert_whole(pool)
    pool.dispose()


@pytest.mark.parametrize(("attempt", "least"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (50, 0.5)])
def test_a_server_that_is_away_is_asked_ever_less_often(attempt: int, least: float) -> None:
    connector = fair_pool(FakeServer()).connector
    pauses = [connector._pause(attempt, transient=True) for _ in range(50)]
    assert least <= min(pauses)
    assert max(pauses) <= least * 1.25
    assert len(set(pauses)) > 1  # or the processes of an application would all ask at once
    assert connector._pause(attempt, transient=False) == judgements.RETRY_REFUSED


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
    (record,) = pool.idle
    now[0] = record.doubtful_at
    pool.connect().close()
    assert looked == [now[0]]
    assert pool.counters.at_once == 1
    record.doubtful_at, record.expires = NEVER, now[0]  # it has come to its end this very moment
    assert pool._why_unfit(record, now[0], NEVER) == "recycled"
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
    waiter = Waiter(NEVER, 0.0)
    fairy: Any = pool.connect()
    pool.waiters[waiter] = None
    if what == "connection":
        record = record_of(fairy)
        fairy.close()
        assert waiter.outcome is record
    elif what == "place":
        with pool.lock:
            pool.serve_first(pool.new_slot())
    pool._abandon(waiter)
    assert waiter.outcome is None
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

    def lend(record: Any, start: float, **how: Any) -> Any:
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
            pool.connector.trouble = trouble
            with pytest.raises(exc.TimeoutError) as caught:
                pool.connect()
            assert caught.value.__cause__ is trouble
    pool.connector.trouble = None
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
    assert engine.pool.connector.inline
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
