"""What SQLAlchemy's QueuePool does not do, on real servers: each test passes with ours and fails with stock.

The stock pool runs the same test under ``xfail(strict=True)``: if it ever passes, the reason for ours is gone.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import QueuePool

from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.pool import ping
from tests.engine.pool.support import callers, engine_of, eventually, url_of
from tests.support.clock import Clock

Make = Callable[..., Engine]

LINE = [  # the waiting line: the stock pool with all our behaviours attached
    "ours",
    pytest.param("poolclass: QueuePool", marks=pytest.mark.xfail(strict=True, reason="the line of QueuePool")),
]
BEHAVIOUR = [  # what events do: SQLAlchemy alone
    "ours",
    pytest.param("sqlalchemy", marks=pytest.mark.xfail(strict=True, reason="SQLAlchemy without our behaviours")),
]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make engines of the kind that the test is run with."""
    made: list[Engine] = []

    def engine(url: str, **settings: Any) -> Engine:
        kind = request.getfixturevalue("kind")
        create = {"connect_args": {"ssl_disabled": True}} if url.startswith("mysql") else {}
        if kind == "sqlalchemy":
            keys = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle")
            stock = {key: settings[key] for key in keys if key in settings} | {"pool_pre_ping": True}
            made.append(create_engine(url, **stock, **create))
        else:
            poolclass = None if kind == "ours" else "QueuePool"
            made.append(engine_of(url, poolclass=poolclass, create=create, **settings))
        return made[-1]

    yield engine
    for each in made:
        each.dispose()
    gc.collect()


def select(engine: Engine, statement: str = "SELECT 1") -> Any:
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar()


@pytest.mark.alone
@pytest.mark.parametrize("kind", LINE)
def test_twenty_threads_on_two_connections_get_the_same_share(server: Any, make: Make, kind: str) -> None:
    """In what each waits, counted in turns of the others: a server process that the system lets rest while it is asked
    costs the thread that holds its connection turns, and the line has no part in that."""
    engine = make(url_of(server), pool_size=2, max_overflow=0)
    select(engine)
    turns: Counter[int] = Counter()
    waits: dict[int, list[int]] = {number: [] for number in range(20)}
    stop = threading.Event()
    start = threading.Barrier(20)

    def work(number: int) -> None:
        start.wait(60)
        while not stop.is_set():
            came = turns.total()
            with engine.connect() as connection:
                waits[number].append(turns.total() - came)
                turns[number] += 1
                connection.execute(text("SELECT 1"))

    with callers(20) as run:
        for number in range(20):
            run(work, number)
        assert eventually(lambda: turns.total() >= 4000)
        stop.set()
    usual = [median(waits[number]) for number in range(20)]
    assert min(usual) >= 0.8 * max(usual)
    assert max(usual) < 40  # each has had its turn, but for a few, before anybody has a second one


@pytest.mark.parametrize("kind", LINE)
def test_pool_timeout_bounds_the_whole_acquisition(server: Any, make: Make, clock: Clock, kind: str) -> None:
    """A server that neither answers nor refuses: SIGSTOP, where the kernel goes on to acknowledge."""
    connecting, limit = (60.0, 30.0) if kind == "ours" else (2.0, 2.0)
    engine = make(url_of(server), pool_timeout=1.0, connect_timeout=connecting, pool_pre_ping=0.1)
    select(engine)
    clock.advance(0.2)
    server.pause()
    began = time.monotonic()
    with pytest.raises(Exception, match=r"timeout|timed out|connect"), engine.connect():
        pass
    waited = time.monotonic() - began
    server.resume()
    assert waited < limit  # the stock pool adds the time limit of the connect


@pytest.mark.parametrize("kind", LINE)
def test_a_failed_connect_wakes_the_next_in_the_line(server: Any, make: Make, proxy: Any, kind: str) -> None:
    gate = proxy(server)
    sleep, limit = (60, 30.0) if kind == "ours" else (4, 1.5)
    engine = make(url_of(server, gate), pool_size=1, max_overflow=0, pool_timeout=sleep, connect_timeout=1)
    gate.mute_accept()
    with callers() as run:
        failing = run(select, engine)
        assert eventually(lambda: gate.accepted == 1)
        waiting = run(select, engine)
        assert eventually(lambda: waiting.running())
        began = time.monotonic()
        gate.pass_through()  # for new connections; the one under way stays mute
        with pytest.raises(Exception, match=r"time|connect|Lost"):
            failing.result(60)
        waiting.result(60)
        assert time.monotonic() - began < limit  # the stock pool's waiter sleeps until its timeout


@pytest.mark.parametrize("kind", LINE)
def test_a_burst_is_served_by_what_comes_back(server: Any, make: Make, proxy: Any, kind: str) -> None:
    wire = proxy(server)
    engine = make(url_of(server, wire), pool_size=50, max_overflow=0)
    warm = [engine.connect() for _ in range(5)]
    for connection in warm:
        connection.close()
    wire.delay(0.02)
    wire.reset_counters()
    with callers(50) as run:
        for future in [run(select, engine) for _ in range(50)]:
            future.result(30)
    assert wire.accepted <= 25


@pytest.mark.parametrize("kind", LINE)
def test_overflow_connections_outlive_the_burst(server: Any, make: Make, proxy: Any, kind: str) -> None:
    wire = proxy(server)
    engine = make(url_of(server, wire), pool_size=2, max_overflow=4)
    for _ in range(3):
        connections = [engine.connect() for _ in range(6)]
        for connection in connections:
            connection.close()
    assert wire.accepted == 6


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_a_check_at_each_checkout_costs_no_round_trip(
    server: Any, make: Make, proxy: Any, clock: Clock, kind: str
) -> None:
    wire = proxy(server)
    engine = make(url_of(server, wire))
    select(engine)
    wire.reset_counters()
    for _ in range(10):
        clock.advance(ping.TRUST)
        with engine.connect():
            pass
    # A rollback that psycopg2 need not send, and PyMySQL does.
    assert wire.round_trips() <= (0 if engine.dialect.name == "postgresql" else 10)


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_connections_made_together_do_not_end_together(
    server: Any, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("sqlalchemy.pool.base.time", SimpleNamespace(time=clock))
    engine = make(url_of(server), pool_size=8, pool_recycle=100)
    first: dict[int, Any] = {}
    ends: list[int] = []
    for second in range(105):
        connections = [engine.connect() for _ in range(8)]
        seen = {id(each): each for each in (connection.connection.dbapi_connection for connection in connections)}
        first = first if second else dict(seen)
        for ended in first.keys() - seen.keys():
            first.pop(ended)
            ends.append(second)
        for connection in connections:
            connection.close()
        clock.advance(1)
    assert len(ends) == 8
    assert min(ends) < 98  # SQLAlchemy lets all of them grow 100 s old
    assert max(ends) - min(ends) > 2


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_connections_in_use_at_dispose_are_closed_when_they_come_back(server: Any, make: Make, kind: str) -> None:
    before = len(server.connections())
    engine = make(url_of(server))
    held = engine.connect()
    gc.disable()
    try:
        engine.dispose()
        held.execute(text("SELECT 1"))  # work in flight is unhurt
        held.close()
        # SQLAlchemy's own pool never closes it: how long we look for that is ours to choose.
        assert eventually(lambda: len(server.connections()) == before, within=30 if kind == "ours" else 2)
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_a_forked_child_leaves_the_parents_transaction_alone(server: Any, make: Make, kind: str) -> None:
    engine = make(url_of(server), pool_size=2)
    with engine.begin() as setup:
        setup.execute(text("CREATE TABLE t (n int)"))
    held = [engine.connect()]
    held[0].execute(text("INSERT INTO t VALUES (1)"))
    child = os.fork()
    if child == 0:
        try:
            if kind == "ours":  # what the registry does in each child
                dbconfig_pool.pin_in_flight(engine)
                engine.dispose(close=False)
            held.clear()  # the parent's transaction goes out of the child's sight
            gc.collect()
            os._exit(0 if select(engine, "SELECT 42") == 42 else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    held[0].commit()
    held[0].close()
    assert select(engine, "SELECT count(*) FROM t") == 1


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_a_primary_that_became_read_only_is_left(server: Any, make: Make, kind: str) -> None:
    engine = make(url_of(server))
    postgresql = engine.dialect.name == "postgresql"
    with engine.begin() as setup:
        setup.execute(text("CREATE TABLE t (n int)"))
    me = "SELECT pg_backend_pid()" if postgresql else "SELECT connection_id()"
    before = select(engine, me)
    try:
        if postgresql:
            server.sql("ALTER SYSTEM SET default_transaction_read_only = on")
            server.sql("SELECT pg_reload_conf()")
        else:
            server.sql("SET GLOBAL read_only = 1")
        assert eventually(lambda: _write_fails(engine))
        assert select(engine, me) != before
    finally:
        if postgresql:
            server.sql("ALTER SYSTEM RESET default_transaction_read_only")
            server.sql("SELECT pg_reload_conf()")
        else:
            server.sql("SET GLOBAL read_only = 0")


def _write_fails(engine: Engine) -> bool:
    try:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))
    except Exception:
        return True
    return False


def test_the_stock_pool_of_these_tests_is_the_stock_pool(tmp_path: Any) -> None:
    engine = engine_of(f"sqlite:///{tmp_path}/a.db", poolclass="QueuePool")
    assert type(engine.pool) is QueuePool
    engine.dispose()
