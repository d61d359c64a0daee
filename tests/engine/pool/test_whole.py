"""What a pool must notice though nobody says so: a fork in C, a sleep of the machine, a server that falls silent."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import exc, text

from dbconfig.engine.pool import clock, forks, stats
from dbconfig.engine.pool.garbage import garbage
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.tally import Counters, Past
from dbconfig.engine.pool.threads import FairPool
from tests.support.proxy import Proxy

from .support import FakeServer, callers, engine_of, eventually, fair_pool, impatient, running_engine, through, url_of

IDENTIFY = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


def fork_in_c() -> int:
    """Fork as an extension or uWSGI does: Python's own hooks do not run.

    If another thread has asked for the GIL at this moment, CPython 3.11 stands still in the child before its next
    instruction, where no code of ours can help: the request is copied, and the thread that it waits for is not.
    """
    library, interval = ctypes.PyDLL(None), sys.getswitchinterval()  # its functions keep the GIL
    sys.setswitchinterval(1000)  # how long a thread waits before it asks
    try:
        library.usleep(20_000)  # those that wait by the interval of before ask now, and get it as this returns
        return int(library.fork())
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("open_session", [False, True], ids=["idle", "in use"])
def test_a_child_that_was_forked_in_c_has_connections_of_its_own(server: Any, open_session: bool) -> None:
    with running_engine(url_of(server), pool_size=2, max_overflow=0, pool_min_idle=1) as engine:
        identify = IDENTIFY[engine.dialect.name]
        with engine.connect() as connection:
            numbers = {connection.scalar(text(identify))}
        held = engine.connect() if open_session else None
        if held is not None:
            held.execute(text("SELECT 1"))
        reading, writing = os.pipe()
        pid = fork_in_c()
        if pid == 0:
            faulthandler.register(signal.SIGALRM, file=2, all_threads=False, chain=True)  # says where it hangs
            signal.alarm(30)
            answer = b"error"
            try:
                for _ in range(2):
                    with engine.connect() as one, engine.connect() as two:
                        mine = {one.scalar(text(identify)), two.scalar(text(identify))}
                answer = b"shared" if mine & numbers or len(mine) != 2 else b"own"
                del held
                gc.collect()
            finally:
                os.write(writing, answer)
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            if not select.select([pipe], [], [], 60)[0]:
                os.kill(pid, signal.SIGKILL)  # or this would wait as long as the child stands still
            assert pipe.read() == b"own"
        os.waitpid(pid, 0)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        if held is not None:
            assert held.scalar(text(identify)) in numbers  # its transaction was not ended by the child
            held.close()
        assert isinstance(engine.pool, FairPool)
        pool = engine.pool
        assert eventually(lambda: pool.open == len(pool.idle))  # pool_min_idle may be opening another


def test_without_a_page_that_a_fork_wipes_the_process_number_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MAP_ANONYMOUS")
    mark = forks.mark()
    assert mark[0]
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert not mark[0]


def test_the_clock_counts_the_time_for_which_the_machine_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = 0.0
    real = time.clock_gettime
    awake = {time.CLOCK_MONOTONIC, getattr(time, "CLOCK_UPTIME_RAW", -1)}
    monkeypatch.setattr(time, "clock_gettime", lambda which: real(which) + (0.0 if which in awake else slept))
    monotonic = clock._choose()
    before = monotonic()
    slept = 3600.0
    assert monotonic() - before >= 3600.0


@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_where_no_clock_counts_a_sleep_the_steady_one_is_used(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    if error is AttributeError:
        monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    else:

        def refuse(which: int) -> float:
            raise OSError("not here")

        monkeypatch.setattr(time, "clock_gettime", refuse)
    assert clock._choose() is time.monotonic


def test_a_wall_clock_that_is_set_back_keeps_no_connection_that_was_to_be_retired(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db", pool_recycle=1000.0) as engine:
        with engine.connect():
            pass
        (place,) = engine.pool.idle  # type: ignore[attr-defined]
        place.expires = place.connection.doubtful_at = clock.monotonic()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 86_400)
        with engine.connect():
            pass
        assert stats(engine).closed == {"recycled": 1}


def test_a_silent_server_is_not_called_a_full_pool(server: Any, proxy: Callable[[Any], Proxy]) -> None:
    wire = proxy(server)
    with running_engine(through(wire, url_of(server)), pool_size=5) as engine:
        held = [engine.connect() for _ in range(2)]
        impatient(engine, 0.5)
        wire.swallow()
        with pytest.raises(exc.TimeoutError) as caught, engine.connect():
            pass
        assert f"the server {wire.host}:{wire.port} did not answer within 0.5 s (pool_timeout)" in str(caught.value)
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert "raise pool_size" not in "\n".join(caught.value.__notes__)
        wire.pass_through()
        for connection in held:
            connection.close()


def test_the_holders_of_a_full_pool_stand_in_the_message_too(server: Any) -> None:
    with running_engine(url_of(server), pool_size=1, max_overflow=0, pool_leak_warning=30) as engine:
        held = engine.connect()
        impatient(engine, 0.2)
        with pytest.raises(exc.TimeoutError, match=r"QueuePool limit of size 1 .*; held longest: .* s at .*test_whole"):
            engine.connect()
        held.close()


def test_a_forgotten_connection_comes_back_before_somebody_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_next", 0.0)  # an earlier test may have collected a moment ago
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0, timeout=10.0)

    class Session:
        def __init__(self) -> None:
            self.connection = pool.connect()
            self.myself = self  # a cycle: only the collector frees it

    gc.disable()
    try:
        Session()
        pool.connect().close()
    finally:
        gc.enable()
    pool.dispose()


def test_callers_who_have_no_time_left_or_come_in_crowds_cause_no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    monkeypatch.setattr(garbage, "_next", 0.0)  # an earlier test may have collected a moment ago
    garbage.collect(0.1)
    assert collected == []
    for _ in range(100):
        garbage.collect(5.0)
    assert collected == [1]


def test_disposed_pools_are_added_up_and_not_kept() -> None:
    server = FakeServer()
    pool = fair_pool(server)
    for _ in range(50):
        with callers(1) as run:
            run(lambda pool=pool: pool.connect().close()).result(10)
        pool.dispose()
        pool = pool.recreate()
    assert len(pool.past.counters()) == 1
    assert sum(counters.create.counts[0] for counters in pool.past.counters()) <= 50
    assert sum(sum(counters.create.counts) for counters in pool.past.counters()) == 50


def test_what_a_disposed_pool_still_counts_is_not_lost() -> None:
    pool = fair_pool(FakeServer())
    held = pool.connect()
    pool.dispose()
    after = pool.recreate()
    assert len(after.past.counters()) == 2
    held.close()  # counted in the old pool
    last = after.recreate()
    assert sum(sum(counters.use.counts) for counters in last.past.counters()) == 1
    after.dispose()
    assert len(after.recreate().past.counters()) == 1


def test_the_past_of_a_pool_that_nobody_has_any_more_is_added_up() -> None:
    class Pool:
        counters = Counters()

        def is_over(self) -> bool:
            return False

    pool = Pool()
    pool.counters.timeouts = 3
    past = Past().and_of(pool)
    assert len(past.counters()) == 2
    del pool
    gc.collect()
    other = Pool()
    later = past.and_of(other)
    assert len(later.counters()) == 2
    assert later.counters()[0].timeouts == 3


def test_an_interrupted_dispose_leaves_an_engine_that_keeps_its_connections(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(f"sqlite:///{tmp_path}/a.db")
    with engine.connect():
        pass

    def interrupt(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Line, "close_idle", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.dispose()
    for _ in range(3):
        with engine.connect():
            pass
    assert stats(engine).created == 1
    assert eventually(lambda: stats(engine).idle == 1)
    engine.dispose()
