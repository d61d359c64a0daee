"""Care for connections at rest, on real servers, and the thread that gives it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dbconfig.engine.pool import idle, judgements, pin_in_flight, stats
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.maintenance import Caretaker, caretaker
from tests.engine.pool.support import engine_of, eventually, running_engine, url_of
from tests.support.clock import Clock


def select(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("SELECT 1")).scalar()


def caretakers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dbconfig-caretaker"]


@pytest.fixture(autouse=True, scope="module")
def _the_pools_of_other_files_are_gone() -> None:
    """Their garbage may have been kept out of collections. To look for it takes half a second, and again at the end."""
    gc.unfreeze()
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


@pytest.fixture(autouse=True)
def _a_caretaker_of_its_own() -> None:
    """What is kept elsewhere may still have jobs for the one before."""
    before = caretaker._inbox
    caretaker.forget()  # as a forked child does
    before.put(None)


def a_round_of_care(engine: Engine) -> float | None:
    """Do at once what the caretaker does in its time; return after how many seconds it would come again."""
    return idle.Care(engine.pool)()  # type: ignore[arg-type]  # our pool


def test_the_first_use_warms_the_pool_up_to_pool_min_idle(server: Any) -> None:
    with running_engine(url_of(server), pool_min_idle=4) as engine:
        assert stats(engine).created == 0  # nothing happens before the first use
        select(engine)
        assert eventually(lambda: stats(engine).idle >= 4)


def test_idle_connections_are_closed_down_to_pool_min_idle(server: Any, clock: Clock) -> None:
    with running_engine(url_of(server), pool_size=2, max_overflow=6, pool_min_idle=2, pool_idle_timeout=600) as engine:
        connections = [engine.connect() for _ in range(8)]
        for connection in connections:
            connection.close()
        assert stats(engine).idle == 8
        clock.advance(600)
        assert eventually(lambda: stats(engine).closed.get("idle") == 6)
        assert eventually(lambda: stats(engine).idle == 2)  # one of them may just be asked
        clock.advance(600)
        a_round_of_care(engine)
        assert eventually(lambda: stats(engine).idle == 2)
        assert stats(engine).closed["idle"] == 6


def test_an_overflow_connection_times_out_while_others_work(server: Any, clock: Clock) -> None:
    with running_engine(
        url_of(server), pool_size=1, max_overflow=5, pool_idle_timeout=600, pool_keepalive=None
    ) as engine:
        connections = [engine.connect() for _ in range(6)]
        for connection in connections:
            connection.close()
        for _ in range(40):
            select(engine)
            clock.advance(20)
        a_round_of_care(engine)
        assert stats(engine).idle == 1


@pytest.mark.parametrize("lifo", [False, True])
def test_surplus_connections_time_out_though_they_are_kept_alive_and_others_are_used(
    server: Any, clock: Clock, lifo: bool
) -> None:
    settings = {"pool_idle_timeout": 600, "pool_keepalive": 120, "pool_use_lifo": lifo, "pool_min_idle": 0}
    with running_engine(url_of(server), pool_size=1, max_overflow=5, **settings) as engine:
        for connection in [engine.connect() for _ in range(6)]:
            connection.close()
        for _ in range(40):
            select(engine)
            clock.advance(20)
            a_round_of_care(engine)
        assert eventually(lambda: stats(engine).closed.get("idle") == 5)
        assert stats(engine).idle == 1


def test_a_connection_that_died_while_idle_is_found_and_replaced_before_a_caller_comes(server: Any) -> None:
    with running_engine(url_of(server), pool_min_idle=3, pool_keepalive=0.2) as engine:
        select(engine)
        assert eventually(lambda: stats(engine).idle >= 3)
        created = stats(engine).created
        server.terminate()
        assert eventually(lambda: stats(engine).created >= created + 3 and stats(engine).idle >= 3)


def test_an_old_idle_connection_is_replaced_before_a_caller_comes(server: Any, clock: Clock) -> None:
    with running_engine(url_of(server), pool_min_idle=2, pool_recycle=600) as engine:
        select(engine)
        assert eventually(lambda: stats(engine).idle >= 2)
        clock.advance(600)
        assert eventually(lambda: stats(engine).closed.get("recycled", 0) >= 2 and stats(engine).idle >= 2)


def test_idle_connections_that_went_silent_are_replaced(server: Any, proxy: Any) -> None:
    wire = proxy(server)
    with running_engine(url_of(server, wire), pool_min_idle=3, pool_keepalive=0.3) as engine:
        select(engine)
        assert eventually(lambda: stats(engine).idle >= 3)
        created = stats(engine).created
        wire.swallow_existing()
        assert eventually(
            lambda: stats(engine).created >= created + 3 and stats(engine).idle >= 3,
        )


def test_an_absent_server_is_not_hammered_by_idle_care(server: Any, proxy: Any) -> None:
    wire = proxy(server)
    with running_engine(url_of(server, wire), pool_min_idle=3, pool_keepalive=0.1) as engine:
        select(engine)
        assert eventually(lambda: stats(engine).idle >= 3)
        wire.refuse()
        wire.reset()
        assert eventually(lambda: stats(engine).idle == 0)
        line = engine.pool.line  # type: ignore[attr-defined]  # our pool has one
        assert eventually(lambda: line.failures >= 3)
        care = line.care
        care._refill_at = 0.0
        began = monotonic()
        a_round_of_care(engine)
        assert care._refill_at - began >= judgements.SHORTEST_ROUND * 2**3
        wire.pass_through()
        assert eventually(lambda: stats(engine).idle >= 3)


def test_the_thread_comes_with_the_first_connection_and_goes_with_the_last_dispose(tmp_path: Any) -> None:
    assert eventually(lambda: caretakers() == [], within=20)  # reports of earlier tests may still run
    one = engine_of(f"sqlite:///{tmp_path}/a.db")
    two = engine_of(f"sqlite:///{tmp_path}/b.db")
    assert caretakers() == []
    select(one)
    select(two)
    (thread,) = caretakers()
    assert thread.daemon
    one.dispose()
    assert caretakers() == [thread]
    two.dispose()
    assert eventually(lambda: caretakers() == [])


def test_a_pool_without_idle_care_starts_no_thread(tmp_path: Any) -> None:
    assert eventually(lambda: caretakers() == [], within=20)
    with running_engine(f"sqlite:///{tmp_path}/a.db", pool_idle_timeout=None, pool_keepalive=None) as engine:
        select(engine)
        assert caretakers() == []


def test_a_forked_child_has_no_caretaker_until_it_uses_the_pool(server: Any) -> None:
    with running_engine(url_of(server), pool_min_idle=2) as engine:
        select(engine)
        assert eventually(lambda: stats(engine).idle >= 2)
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(20)
                pin_in_flight(engine)
                engine.dispose(close=False)
                before = len(caretakers())
                select(engine)
                warm = eventually(lambda: stats(engine).idle >= 2)
                os._exit(0 if (before, len(caretakers()), warm) == (0, 1, True) else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert select(engine) == 1


def test_a_pool_that_nobody_refers_to_any_more_is_forgotten(tmp_path: Any) -> None:
    engine = engine_of(f"sqlite:///{tmp_path}/a.db", pool_idle_timeout=0.1)
    select(engine)
    raw = engine.raw_connection()
    raw.detach()
    raw.close()
    engine.dispose()
    del engine, raw
    gc.collect()
    assert eventually(lambda: caretakers() == [])


def test_a_job_that_fails_does_not_end_the_others(caplog: Any) -> None:
    caretaker = Caretaker()
    ran = threading.Event()

    def bad() -> float | None:
        raise RuntimeError("on purpose")

    caretaker.add("bad", bad)
    caretaker.add("good", lambda: ran.set(), 0.05)
    assert ran.wait(10)
    caretaker.remove("bad")
    assert "on purpose" in caplog.text
