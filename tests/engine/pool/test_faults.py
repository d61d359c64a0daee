"""What the pool alone must survive, on real servers; the identifiers are those of the catalogue of faults."""

from __future__ import annotations

import logging
import os
import select as polling
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, exc, text

from dbconfig.engine import pool as dbconfig_pool
from tests.engine.pool.support import assert_whole, callers, engine_of, eventually, impatient, running_engine, url_of
from tests.engine.pool.worlds import World
from tests.support.clock import Clock

ROOT = Path(__file__).parents[3]


def select(engine: Engine, statement: str = "SELECT 1") -> Any:
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar()


def has_ended(descriptor: int) -> bool:
    """Return whether the server's goodbye is there to be read, or the event loop has read it and closed the socket."""
    try:
        return bool(polling.select([descriptor], [], [], 0)[0])
    except OSError:
        return True


@pytest.mark.parametrize("rested", [0.05, 1.2])
def test_n05_connections_killed_while_idle_cost_no_caller_an_error(
    world: World, server: Any, clock: Clock, rested: float
) -> None:
    with world(server) as opened:
        opened.warm(8)
        clock.advance(rested)
        server.terminate()
        assert opened.burst() == []
        assert_whole(opened.engine.pool)


def test_n05_connections_reset_while_idle_cost_no_caller_an_error(
    world: World, server: Any, proxy: Any, clock: Clock
) -> None:
    wire = proxy(server)
    with world(server, wire) as opened:
        opened.warm(8)
        clock.advance(0.05)
        wire.reset()
        assert eventually(lambda: wire.connections == 0)
        assert opened.burst() == []


def test_n06_a_restart_while_idle_costs_no_caller_an_error(world: World, server: Any) -> None:
    with world(server) as opened:
        opened.warm(8)
        server.restart()
        assert opened.burst() == []
        assert_whole(opened.engine.pool)


def test_n08_connections_that_went_silent_cost_a_bounded_wait_and_no_error(
    world: World, server: Any, proxy: Any, clock: Clock
) -> None:
    wire = proxy(server)
    with world(server, wire) as opened:
        opened.warm(8)
        clock.advance(1.0)
        wire.swallow_existing()
        assert opened.burst() == []  # within pool_timeout
        assert_whole(opened.engine.pool)


@pytest.mark.parametrize("how", ["swallow", "pause"])
def test_n11_n13_a_server_that_is_silent_holds_no_caller_beyond_the_deadline(
    world: World, server: Any, proxy: Any, clock: Clock, how: str
) -> None:
    wire = proxy(server)
    with world(server, wire, pool_timeout=2.0) as opened:
        opened.warm(4)
        clock.advance(1.0)
        if how == "swallow":
            wire.swallow()
        else:
            server.pause()
        began = time.monotonic()
        try:
            errors = opened.burst(12)
            took = time.monotonic() - began
        finally:
            if how == "swallow":
                wire.pass_through()
            else:
                server.resume()
        assert len(errors) == 12
        assert took < 18, "nothing but the pool ends such a wait; pool_timeout is 2 s, and the machine may be busy"
        assert eventually(lambda: opened.burst(1) == [])


def test_n15_a_server_that_refuses_is_told_at_first_use_and_used_when_it_is_up(
    world: World, server: Any, proxy: Any
) -> None:
    wire = proxy(server)
    wire.refuse()
    with world(server, wire) as opened:
        with pytest.raises((exc.OperationalError, ConnectionError), match=r"refused|Can't connect|Connect call failed"):
            opened.select()
        wire.pass_through()
        assert opened.select() == 1
        assert_whole(opened.engine.pool)


def test_n16_a_server_that_accepts_and_is_mute_is_given_up(world: World, server: Any, proxy: Any) -> None:
    wire = proxy(server)
    wire.mute_accept()
    with world(server, wire, pool_timeout=2.0, connect_timeout=1.0) as opened:
        assert len(opened.burst(4)) == 4
        wire.pass_through()
        assert eventually(lambda: opened.burst(1) == [])


def test_n17_a_server_whose_network_drops_packets_is_given_up(world: World) -> None:
    """A listener whose queue is full drops further SYNs, as a firewall does."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            refused = pytest.raises((exc.OperationalError, exc.TimeoutError, OSError))
            with world(f"u:p@127.0.0.1:{port}/d", pool_timeout=2.0, connect_timeout=1.0) as opened, refused:
                opened.select()
        finally:
            for filler in fillers:
                filler.close()


def test_n23_a_server_that_is_full_makes_callers_wait(world: World, postgresql: Any) -> None:
    postgresql.create_user("crowd", "crowd")
    postgresql.sql("ALTER ROLE crowd CONNECTION LIMIT 3")
    address = str(postgresql.url(user="crowd", password="crowd")).partition("://")[2]
    with world(address, pool_size=10, pool_timeout=60.0) as opened:
        assert opened.select() == 1
        assert opened.together(10, 10, "SELECT pg_sleep(0.01)") == []
        assert_whole(opened.engine.pool)


def test_n27_a_server_that_ends_idle_sessions_costs_no_error(world: World, mariadb: Any) -> None:
    with world(mariadb) as opened:
        open_ = opened.warm(4)
        held = [opened.take() for _ in open_]
        for connection in held:
            opened.execute(connection, "SET SESSION wait_timeout = 5")  # a busy machine needs its time to return them
        for connection in held:
            opened.give(connection)
        assert eventually(lambda: all(map(has_ended, open_)))
        assert opened.burst(4) == []


def test_a_caller_is_not_woken_by_a_ping_that_fails_on_every_connection(world: World, server: Any) -> None:
    """Any number of stale connections is survived: SQLAlchemy tries two and gives up."""
    with world(server, pool_size=12) as opened:
        opened.warm(12)
        server.restart()
        for _ in range(12):
            assert opened.select() == 1


def test_p01_a_full_pool_says_so_in_time_and_works_again(world: World, server: Any) -> None:
    with world(server, pool_size=2, max_overflow=0, pool_timeout=30) as opened:
        held = [opened.take() for _ in range(2)]  # a busy machine needs its time to connect
        impatient(opened.engine, 0.5)
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError, match="size 2 overflow 0"):
            opened.select()
        assert time.monotonic() - began >= 0.5
        impatient(opened.engine, 30)
        for connection in held:
            opened.give(connection)
        assert opened.select() == 1


@pytest.mark.alone
def test_p02_thirty_callers_share_four_connections_fairly(world: World, server: Any) -> None:
    with world(server, pool_size=4, max_overflow=0) as opened:
        counts = opened.shares(30, 3000)
        jain = sum(counts) ** 2 / (30 * sum(count * count for count in counts))
        assert jain > 0.95


def test_p03_a_connection_that_was_dropped_without_close_comes_back(world: World, server: Any) -> None:
    """When it is collected, or else at the next review: of tasks, test_task_parts has each alone."""
    before = len(server.connections())
    with world(server, pool_size=1, max_overflow=0, pool_timeout=10) as opened:
        opened.drop()
        assert opened.select() == 1
        assert eventually(lambda: len(server.connections()) == before + 1), "the one that was dropped is left"


def test_p05_p06_exceptions_roll_back_and_leave_the_pool_whole(world: World, server: Any) -> None:
    with world(server, pool_size=2, max_overflow=0) as opened:
        opened.write("CREATE TABLE t (n int)")
        for _ in range(100):
            with pytest.raises(KeyError, match="mine"):
                opened.fail("INSERT INTO t VALUES (1)", KeyError("mine"))
            opened.leave("INSERT INTO t VALUES (2)")
        assert opened.select("SELECT count(*) FROM t") == 0
        assert_whole(opened.engine.pool)


def test_p08_dispose_in_use_leaves_no_connection_at_the_end(world: World, server: Any) -> None:
    before = len(server.connections())
    with world(server, pool_size=4) as opened, callers(1) as run:
        working = run(opened.together, 8, 100)
        for done in range(0, 700, 140):
            assert eventually(lambda done=done: dbconfig_pool.stats(opened.engine).use.count > done)  # type: ignore[misc]  # of no use to infer
            opened.dispose()
        assert working.result(120) == []
    assert eventually(lambda: len(server.connections()) == before)


def test_p09_children_forked_from_a_busy_parent_get_their_own_answers(server: Any) -> None:
    engine = engine_of(url_of(server), pool_size=4)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        while not stop.is_set():
            try:
                assert select(engine, f"SELECT {number}") == number
            except BaseException as error:
                errors.append(error)

    def child(number: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.alarm(120)
            dbconfig_pool.pin_in_flight(engine)
            engine.dispose(close=False)
            ok = all(select(engine, f"SELECT {number + i}") == number + i for i in range(20))
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)

    for connection in [engine.connect() for _ in range(4)]:
        connection.close()
    with callers(6) as run:
        for number in range(6):
            run(work, number)
        assert eventually(lambda: dbconfig_pool.stats(engine).use.count >= 50)
        children = [child(1000 * (number + 1)) for number in range(4)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        stop.set()
    assert statuses == [0] * 4
    assert errors == []
    assert_whole(engine.pool)
    engine.dispose()


def test_p10_a_child_that_merely_exits_leaves_its_parent_unhurt(server: Any) -> None:
    """Its finalizers run, as at every normal end of a process."""
    program = f"""
        import os, sys
        from sqlalchemy import text
        from dbconfig.engine.pool import pin_in_flight
        from tests.engine.pool.support import engine_of
        engine = engine_of({url_of(server)!r})
        with engine.begin() as setup:
            setup.execute(text("CREATE TABLE t (n int)"))
        idle = engine.connect()
        held = engine.connect()
        idle.close()
        held.execute(text("INSERT INTO t VALUES (1)"))
        child = os.fork()
        if child == 0:
            pin_in_flight(engine)
            engine.dispose(close=False)
            held.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        held.commit()
        held.close()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 1
        engine.dispose()
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("fork", ["os.fork()", "ctypes.PyDLL(None).fork()"], ids=["python", "c"])
def test_p10_a_child_exits_though_another_thread_was_at_the_pool_in_the_fork(server: Any, fork: str) -> None:
    """A thread that opens connections, say: it does not exist in the child, and the lock that it held stays locked."""
    program = f"""
        import ctypes, os, sys, threading
        from dbconfig.engine.pool import pin_in_flight
        from tests.engine.pool.support import engine_of
        engine = engine_of({url_of(server)!r})
        idle, held = engine.connect(), engine.connect()
        idle.close()
        inside, leave = threading.Event(), threading.Event()
        def stay():
            with engine.pool.lock:
                inside.set()
                leave.wait()
        thread = threading.Thread(target=stay, daemon=True)  # or Python itself would wait for it after a fork in C
        thread.start()
        inside.wait()
        child = {fork}
        if child == 0:
            pin_in_flight(engine)
            engine.dispose(close=False)
            held.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        leave.set()
        thread.join()
        held.close()
        engine.dispose()
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_p15_the_wall_clock_has_no_say_in_a_wait(world: World, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with world(server, pool_size=1, max_overflow=0) as opened:
        held = opened.take()
        impatient(opened.engine, 0.5)
        with opened.waiting() as answer:
            assert eventually(lambda: dbconfig_pool.stats(opened.engine).waiting == 1)
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() - 3600)
            with pytest.raises(exc.TimeoutError):
                answer()
        opened.give(held)


def test_p18_three_thousand_sessions_leave_nothing_behind(world: World, server: Any) -> None:
    with world(server, pool_size=3, max_overflow=2) as opened:
        opened.warm(3)
        descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        assert opened.together(3, 1000) == []
        assert dbconfig_pool.stats(opened.engine).created == 3
        if descriptors:
            assert len(os.listdir("/proc/self/fd")) == descriptors
        assert_whole(opened.engine.pool)


def test_a_process_with_a_busy_pool_exits_at_once_and_in_silence(server: Any) -> None:
    program = f"""
        import threading
        from sqlalchemy import text
        from tests.engine.pool.support import engine_of
        engine = engine_of({url_of(server)!r}, pool_min_idle=3, pool_keepalive=0.2, pool_leak_warning=0.1, pool_size=8)
        def hold():
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                threading.Event().wait()
        for _ in range(3):
            threading.Thread(target=hold, daemon=True).start()
        held = engine.connect()
        held.execute(text("SELECT 1"))
        threading.Event().wait(0.5)  # in which reports are written and pings sent
    """
    ended = run_program(program)  # would wait for those who hold, were it not to end at once
    assert (ended.returncode, ended.stdout) == (0, "")
    assert all("held for" in line for line in ended.stderr.splitlines()), ended.stderr


def test_ctrl_c_while_waiting_loses_no_place(server: Any) -> None:
    with running_engine(url_of(server), pool_size=1, max_overflow=0, pool_timeout=60) as engine:
        held = engine.connect()
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            assert eventually(lambda: dbconfig_pool.stats(engine).waiting == 1)
            signal.pthread_kill(main, signal.SIGINT)

        with callers(1) as run:
            interrupted = run(interrupt)
            with pytest.raises(KeyboardInterrupt):
                select(engine)
            interrupted.result(60)
        held.close()
        assert select(engine) == 1
        assert_whole(engine.pool)


def test_a_connection_that_broke_in_use_is_not_lent_again(
    world: World, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with world(server, pool_size=2, max_overflow=0) as opened:
        connection = opened.take()
        server.terminate()
        with pytest.raises(exc.DBAPIError) as caught:
            opened.execute(connection, "SELECT 1")
        assert caught.value.connection_invalidated
        opened.give(connection)
        assert opened.select() == 1
        assert_whole(opened.engine.pool)
