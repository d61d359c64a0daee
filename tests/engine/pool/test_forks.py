"""A fork waits for the connects of other threads: libraries in C have locks that nobody frees in a child."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dbconfig import Profile, Registry
from dbconfig.engine import pool
from dbconfig.engine.pool import forks
from tests.support.strikes import Strike, sweep

from .support import FakeServer, assert_whole, callers, eventually, fair_pool


def test_a_fork_that_python_has_not_seen_is_caught_up_with_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    pid = os.getpid()
    for name, value in {
        "_resets": [lambda: lambda: told.append("reset")],
        "_guarded": [SimpleNamespace(after_fork_in_child=lambda: told.append("guarded"))],
        "_pids": [pid],
        "_begun": [pid],
        "_held": [object()],
        "_forking": [threading.RLock()],
        "connects": forks.Connects(),
    }.items():
        monkeypatch.setattr(forks, name, value)
    monkeypatch.setattr(forks.unseen_forks, "tell_the_interpreter", lambda: told.append("interpreter"))
    forks.connects.begin((1, object()))
    lock = forks._forking[0]
    forks.notice()
    assert told == []  # it is the same process
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    for _ in range(2):
        forks.notice()
        assert told == ["reset", "guarded", "interpreter"]
    assert (forks._pids, forks._begun, forks._held) == ([pid + 1], [pid + 1], [])
    assert forks._forking[0] is not lock  # another thread of the parent may have had it
    assert forks.connects._under_way == set()


def forked() -> int:
    """Fork a child that ends at once; return its exit code."""
    pid = os.fork()
    if pid == 0:
        os._exit(len(forks.connects._under_way))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_strikes_when_the_connect_of_another_thread_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks.connects, "LIMIT", 60.0)
    server = FakeServer()
    server.gate = threading.Event()
    pool = fair_pool(server, pool_size=2, max_overflow=0)
    codes: list[int] = []

    def use() -> None:
        pool.connect().close()

    # Threads, and no executor: that one holds a lock of its own around a fork.
    threads = [threading.Thread(target=use), threading.Thread(target=lambda: codes.append(forked()))]
    threads[0].start()
    assert eventually(lambda: server.attempts == 1)
    threads[1].start()
    assert eventually(lambda: forks.connects._forking != 0)
    threads.append(threading.Thread(target=use))
    threads[2].start()
    assert not codes
    server.gate.set()
    for thread in threads:
        thread.join(60)
    frames = sys._current_frames()
    stuck = ["".join(traceback.format_stack(frames[each.ident])) for each in threads if each.is_alive() and each.ident]
    assert not stuck, (forks.connects._under_way, *stuck)
    assert codes == [0]
    assert forks.connects._forking == 0
    # A helper may still connect for the third thread, which got the connection that the first one returned.
    assert eventually(lambda: not forks.connects._under_way)
    assert_whole(pool)
    pool.dispose()


def test_a_server_that_is_silent_holds_up_a_fork_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks.connects, "LIMIT", 0.05)
    server = FakeServer()
    server.gate = threading.Event()
    pool = fair_pool(server, pool_size=1, max_overflow=0)
    with callers() as run:
        connecting = run(lambda: pool.connect().close())
        assert eventually(lambda: server.attempts == 1)
        assert forked() == 0  # in the child nothing is under way
        assert not connecting.done()
        server.gate.set()
        connecting.result(60)
    assert_whole(pool)
    pool.dispose()


def test_the_thread_that_forks_waits_for_no_connect_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks.connects, "LIMIT", 60.0)
    token = (threading.get_ident(), object())
    forks.connects.begin(token)
    try:
        began = time.monotonic()
        forks.connects.pause()
        assert time.monotonic() - began < 30
        forks.connects.begin(token)  # and may connect while it forks
    finally:
        forks.connects.go_on()
        forks.connects.end(token)


def test_a_connect_goes_on_as_soon_as_the_fork_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork takes milliseconds, and a caller is waiting for the connect."""
    connects, now = forks.Connects(), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 0.02:
            connects.go_on()

    monkeypatch.setattr(forks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(connects, "_forking", 2)
    connects.begin((1, object()))
    assert 0.02 <= now[0] < 0.1


def test_a_connect_waits_for_a_fork_twice_as_long_as_a_fork_for_a_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the other one; and a connect that waits is not one that the fork waits for."""
    connects, token, now, seen = forks.Connects(), (1, object()), [0.0], set[int]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        seen.add(len(connects._under_way))

    monkeypatch.setattr(connects, "LIMIT", 3.0)
    monkeypatch.setattr(forks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(connects, "_forking", 2)
    connects.begin(token)
    assert seen == {0}
    assert connects._under_way == {token}
    assert 6.0 <= now[0] < 6.1
    connects.pause()
    assert connects._forking == threading.get_ident()
    assert 9.0 <= now[0] < 9.2
    connects.go_on()
    connects.begin((3, object()))
    assert now[0] < 9.2  # no fork is pending


def ended(pid: int, stack: str) -> int:
    """Return the exit code of a child; one that hangs writes its stack into a file, and is ended."""
    deadline = time.monotonic() + 30
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGUSR1)
            time.sleep(1)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"the child hangs: {Path(stack).read_text()}")
        time.sleep(0.0005)
    return os.waitstatus_to_exitcode(found[1])


@pytest.fixture
def _a_child_that_hangs_writes_its_stack(tmp_path: Path) -> Iterator[None]:
    with (tmp_path / "stack").open("w") as file:
        faulthandler.register(signal.SIGUSR1, file)
        yield
        faulthandler.unregister(signal.SIGUSR1)


@pytest.mark.usefixtures("_a_child_that_hangs_writes_its_stack")
def test_a_fork_leaves_parent_and_child_whole_wherever_an_exception_strikes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python prints what a hook of a fork raises, and forks all the same."""
    # The pools and the engines of earlier tests would each bring points of their own: a sweep of minutes.
    monkeypatch.setattr(pool, "_ledgers", weakref.WeakKeyDictionary())
    monkeypatch.setattr(forks, "_resets", [])
    monkeypatch.setattr(forks, "_guarded", weakref.WeakSet())
    with Registry.from_profile(Profile(name="forked", url="sqlite:///:memory:")) as db:
        profiles = db.parts.profiles

        def attempt(strike: Strike) -> bool:
            codes: list[int] = []

            def fork() -> None:
                pid = os.fork()
                if pid == 0:
                    whole = forks._begun == [os.getpid()] and forks._forking[0].acquire(timeout=0)
                    os._exit(4 + 2 * whole + (strike.left <= 0))
                codes.append(ended(pid, str(tmp_path / "stack")))

            struck = strike.during(fork)
            assert codes[0] & 6 == 6, f"{strike}: the child is not whole"
            assert not forks._held, strike
            assert forks.connects._forking == 0, strike
            with callers(1) as run:  # of which another thread would have to wait for ever
                for lock in (forks._forking[0], profiles.lock):
                    assert run(lock.acquire, timeout=0).result(30), f"{strike}: {lock} is held"
                    run(lock.release).result(30)
            return struck or bool(codes[0] & 1)

        points = sweep(attempt, forks.__file__, sys.modules[type(profiles).__module__].__file__ or "")
        print(f"struck at {points} points")
        assert points > 15
