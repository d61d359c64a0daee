"""The line: who gets which connection when, and what a caller never has to wait for."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, exc, text
from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.threads import FairPool
from tests.engine.pool.support import (
    FakeServer,
    assert_whole,
    callers,
    engine_of,
    eventually,
    fair_pool,
    running_engine,
)


def test_the_pool_is_a_queue_pool_of_sqlalchemy(tmp_path: Any) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db") as engine:
        assert isinstance(engine.pool, QueuePool)
        assert engine.pool.status().startswith("Pool size: 5")


def test_a_waiter_is_served_in_the_order_of_arrival() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=0)
    first = pool.connect()
    served: list[int] = []

    def wait(number: int) -> None:
        with closing(pool.connect()):
            served.append(number)

    threads = []
    for number in range(8):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        assert eventually(partial(in_line, pool, number + 1))
    first.close()
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))
    assert_whole(pool)
    pool.dispose()


def test_the_first_connect_runs_on_its_callers_thread_and_fails_with_a_plain_traceback() -> None:
    server = FakeServer()
    server.error = ValueError("wrong password")
    pool = fair_pool(server)
    with pytest.raises(ValueError, match="wrong password") as caught:
        pool.connect()
    assert [entry.name for entry in caught.traceback][-1] == "connect"
    assert "_help" not in [entry.name for entry in caught.traceback]
    server.error = None
    pool.connect().close()
    assert_whole(pool)
    pool.dispose()


def test_a_failed_connect_hands_its_slot_on() -> None:
    """The stock pool leaves the waiter asleep until its own timeout."""
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=0, timeout=20)
    server.gate = threading.Event()
    server.errors = [ValueError("wrong password")]  # of the first attempt only
    with callers() as run:
        failing = run(pool.connect)
        assert eventually(lambda: server.attempts == 1)
        waiting = run(pool.connect)
        assert eventually(lambda: len(pool.waiters) == 1)
        server.gate.set()
        with pytest.raises(ValueError, match="wrong"):
            failing.result(10)
        waiting.result(10).close()
    assert_whole(pool)
    pool.dispose()


def test_a_caller_takes_the_first_of_a_returned_and_a_new_connection() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=5, max_overflow=45)
    warm = pool.connect()
    server.gate = threading.Event()  # no further connect ends before this
    with callers() as run:
        waiting = run(pool.connect)
        assert eventually(lambda: server.attempts == 2)
        warm.close()
        waiting.result(10).close()
        server.gate.set()
    assert_whole(pool)
    pool.dispose()


def test_a_burst_makes_few_connections() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=50, max_overflow=0)
    for connection in [pool.connect() for _ in range(5)]:
        connection.close()
    server.gate = threading.Event()  # no connect ends before all have been served by the connections there are

    def request() -> None:
        with closing(pool.connect()):
            time.sleep(0.002)

    try:
        with callers(50) as run:
            for future in [run(request) for _ in range(50)]:
                future.result(60)
    finally:
        server.gate.set()
    assert eventually(lambda: pool.connecting == 0)
    assert server.attempts <= 5 + 3
    assert_whole(pool)
    pool.dispose()


def test_overflow_connections_are_kept_and_not_closed_at_once() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=3)
    for _ in range(3):
        for connection in [pool.connect() for _ in range(4)]:
            connection.close()
    assert server.attempts == 4
    assert server.open == 4
    pool.dispose()
    assert server.open == 0


@pytest.mark.parametrize(("lifo", "touched"), [(False, 3), (True, 1)])
def test_pool_use_lifo_decides_which_connection_is_next(lifo: bool, touched: int) -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=3, max_overflow=0, use_lifo=lifo)
    for connection in [pool.connect() for _ in range(3)]:
        connection.close()
    seen = set()
    for _ in range(9):
        connection = pool.connect()
        seen.add(id(connection.dbapi_connection))
        connection.close()
    assert len(seen) == touched
    pool.dispose()


def test_surplus_connections_rest_while_the_others_work() -> None:
    """In strict rotation a trickle of requests would keep every overflow connection from timing out as idle."""
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=3)
    for connection in [pool.connect() for _ in range(4)]:
        connection.close()
    seen = set()
    for _ in range(9):
        connection = pool.connect()
        seen.add(id(connection.dbapi_connection))
        connection.close()
    assert len(seen) == 1
    pool.dispose()


def test_pool_max_waiting_turns_the_next_caller_away_at_once() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=0, line=LineOptions(max_waiting=1))
    held = pool.connect()
    with callers() as run:
        waiting = run(pool.connect)
        assert eventually(lambda: len(pool.waiters) == 1)
        with pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        assert "the queue is full: 1 waiting (pool_max_waiting is 1)" in caught.value.__notes__
        held.close()
        waiting.result(10).close()
    assert_whole(pool)
    pool.dispose()


def test_a_timeout_of_a_full_pool_has_sqlalchemys_type_and_message() -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0, timeout=0.05)
    held = pool.connect()
    with pytest.raises(
        exc.TimeoutError, match=r"QueuePool limit of size 1 overflow 0 reached, connection timed out, timeout 0\.05"
    ) as caught:
        pool.connect()
    assert caught.value.code == "3o7r"
    held.close()
    assert_whole(pool)
    pool.dispose()


def test_a_hanging_connect_does_not_hold_its_caller_beyond_the_deadline() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=2, max_overflow=0, timeout=0.2)
    held = pool.connect()
    server.gate = threading.Event()
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    server.gate.set()
    held.close()
    assert_whole(pool)
    pool.dispose()


def test_connections_in_use_at_dispose_close_when_they_come_back() -> None:
    server = FakeServer()
    pool = fair_pool(server)
    held, idle = pool.connect(), pool.connect()
    idle.close()
    pool.dispose()
    assert server.open == 1
    held.close()
    assert server.open == 0
    assert pool.open == 0


def test_who_waits_at_dispose_is_still_served_and_leaves_nothing_open() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=0)
    held = pool.connect()
    with callers() as run:
        waiting = run(pool.connect)
        assert eventually(lambda: len(pool.waiters) == 1)
        pool.dispose()
        held.close()
        waiting.result(10).close()
    assert eventually(lambda: server.open == 0)
    assert pool.open == 0


def test_a_recreated_pool_keeps_its_settings_listeners_and_counters(tmp_path: Any) -> None:
    engine = engine_of(f"sqlite:///{tmp_path}/a.db", pool_size=2, max_overflow=1, pool_max_waiting=7)
    with engine.connect():
        pass
    before = engine.pool
    engine.dispose()
    after = engine.pool
    assert after is not before
    assert type(after) is type(before)
    assert (after.size(), after.options, after.explain) == (2, before.options, before.explain)  # type: ignore[attr-defined]
    engine.dispose()


def test_a_new_connection_is_made_in_the_context_of_its_caller() -> None:
    """A password provider may look at context variables, also when a helper thread makes the connection."""
    import contextvars

    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []
    server = FakeServer()
    connect = server.connect

    def spy() -> Any:
        seen.append(tenant.get())
        return connect()

    server.connect = spy  # type: ignore[method-assign]  # the fake of a fake
    pool = fair_pool(server)
    held = pool.connect()
    tenant.set("acme")
    pool.connect().close()
    held.close()
    assert seen == ["nobody", "acme"]
    pool.dispose()


def test_a_server_that_is_full_makes_callers_wait_for_a_connection_that_works() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=5, timeout=20)
    held = pool.connect()
    server.error = RuntimeError("FATAL:  sorry, too many clients already")
    with callers() as run:
        waiting = run(pool.connect)
        assert eventually(lambda: pool.line.trouble is not None)
        assert not waiting.done()
        held.close()
        waiting.result(10).close()
    server.error = None
    assert eventually(lambda: pool.line.trouble is None)
    assert_whole(pool)
    pool.dispose()


def test_while_the_server_is_away_one_tries_and_the_others_wait() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=16, max_overflow=0, timeout=20)
    pool.connect().close()
    pool.invalidate_all()
    before = server.attempts
    server.error = ConnectionRefusedError("refused")
    with callers(16) as run:
        waiting = [run(pool.connect) for _ in range(16)]
        began = time.monotonic()
        assert eventually(lambda: server.attempts - before >= 12)
        took = time.monotonic() - began
        server.error = None
        connections = [each.result(10) for each in waiting]
        for connection in connections:
            connection.close()
    assert took > 0.5  # three helpers at first, then one, less than ten a second
    assert_whole(pool)
    pool.dispose()


def test_the_deadline_of_a_caller_whose_connects_fail_ends_in_the_connects_own_error() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=2, timeout=0.3)
    pool.connect().close()
    pool.invalidate_all()
    server.error = ConnectionRefusedError("refused")
    with pytest.raises(ConnectionRefusedError, match="refused") as caught:
        pool.connect()
    assert any("the pool tried to connect for" in note for note in caught.value.__notes__)
    server.error = None
    assert_whole(pool)
    pool.dispose()


def test_an_unwilling_server_is_not_asked_again_and_again() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=2, timeout=20)
    pool.connect().close()
    pool.invalidate_all()
    server.error = ValueError("password authentication failed")
    with pytest.raises(ValueError, match="password"):
        pool.connect()
    assert server.attempts == 2
    pool.dispose()


def test_invalidation_does_not_go_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a jump back SQLAlchemy's pool replaces every connection at every checkout until the clock has caught up."""
    server = FakeServer()
    pool = fair_pool(server)
    pool.connect().close()
    pool.invalidate_all()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    for _ in range(5):
        pool.connect().close()
    assert server.attempts == 2
    pool.dispose()


def test_a_listener_of_the_application_may_ask_for_another_connection(server_file: str) -> None:
    engine = engine_of(server_file)
    refused = [True]

    @event.listens_for(engine, "checkout")
    def refuse(connection: Any, record: Any, fairy: Any) -> None:
        if refused.pop():
            refused.append(False)
            raise exc.DisconnectionError
        refused.append(False)

    run_statements(engine)
    run_statements(engine)
    assert_whole(engine.pool)
    engine.dispose()


@pytest.fixture
def server_file(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/a.db"


def in_line(pool: FairPool, count: int) -> bool:
    return len(pool.waiters) == count


def run_statements(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def test_engine_options_keep_their_names(tmp_path: Any) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db", poolclass="QueuePool") as engine:
        assert type(engine.pool) is QueuePool
        run_statements(engine)
    with running_engine(f"sqlite:///{tmp_path}/a.db", poolclass="NullPool") as engine:
        run_statements(engine)


def test_a_pool_without_listeners_has_none_on_the_way_of_a_checkout(tmp_path: Any) -> None:
    """Switched off means absent."""
    engine = engine_of(f"sqlite:///{tmp_path}/a.db", pool_recycle=-1, pool_pre_ping=False)
    plain = create_engine("sqlite://", poolclass=QueuePool)
    for name in ("checkout", "checkin", "reset"):
        assert not getattr(engine.pool.dispatch, name), name
        assert not getattr(plain.pool.dispatch, name), name
    engine.dispose()
    plain.dispose()
