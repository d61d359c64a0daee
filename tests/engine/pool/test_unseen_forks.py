"""A child that was forked in C, while other threads of its parent waited for the interpreter, starts threads."""

from __future__ import annotations

import _imp
import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from dbconfig.engine import any_driver, keyboard_interrupts, pool, probes
from dbconfig.engine.pool import caretaker, unseen_forks

from .support import eventually, running_engine

Use = Callable[[Engine], object]


def in_a_child_of_a_crowded_parent(work: Callable[[], object]) -> bytes:
    """Fork in C while another thread waits for the interpreter, call a function in the child, and start threads there.

    Return b"well", or, if the child hangs, nothing.
    """
    library, gate, interval = ctypes.PyDLL(None), threading.Lock(), sys.getswitchinterval()
    fork, pause = library.fork, library.usleep
    reading, writing = os.pipe()
    gate.acquire()
    thread = threading.Thread(target=gate.acquire)
    thread.start()
    sys.setswitchinterval(1000)  # the thread does not get the interpreter before this one waits for something
    try:
        gate.release()
        pause(100_000)  # the thread gets as far as to wait
        pid = fork()
        if pid == 0:
            _answer(work, writing, interval)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def _answer(work: Callable[[], object], pipe: int, interval: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which needs no interpreter to end a child that hangs
    signal.alarm(30)
    sys.setswitchinterval(interval)
    answer = b"error"
    try:
        work()
        for _ in range(50):
            with ThreadPoolExecutor(2) as executor:
                assert list(executor.map(abs, range(4))) == [0, 1, 2, 3]
        answer = b"well"
    finally:
        os.write(pipe, answer)
        os._exit(0)


def maintain(engine: Engine) -> None:
    done = threading.Event()
    caretaker.add(done, done.set)  # type: ignore[arg-type]  # None: once
    assert done.wait(30)


USES: dict[str, Use] = {
    "a checkout": lambda engine: engine.connect().close(),
    "a maintenance job": maintain,
    "a ping": lambda engine: probes.ping(engine, 30),
    "an event loop in a thread": lambda engine: any_driver._Loop().call(abs, -1),
    "waiting for Ctrl-C": lambda engine: keyboard_interrupts._ears.open(),
    "a request to cancel": lambda engine: pool.drain(engine).cancel(),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it needs /proc")
@pytest.mark.parametrize("use", USES)
def test_what_comes_first_in_the_child_does_not_hang(use: str, tmp_path: Any) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db", pool_size=2, pool_min_idle=1) as engine:
        engine.connect().close()
        assert in_a_child_of_a_crowded_parent(lambda: USES[use](engine)) == b"well"


def test_the_first_connection_of_the_child_stays_in_its_pool(tmp_path: Any) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db", pool_size=2) as engine:
        engine.connect().close()

        def use() -> None:
            engine.connect().close()
            assert eventually(lambda: pool.stats(engine).idle == 1)

        assert in_a_child_of_a_crowded_parent(use) == b"well"


@pytest.fixture
def forked_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a child of a parent with two threads sees."""
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: None, 2: None})
    monkeypatch.setattr(unseen_forks, "_threads", lambda: 1)


@pytest.mark.usefixtures("forked_in_c")
def test_the_interpreter_is_told_if_the_parent_had_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unseen_forks._is_due()
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: None})
    assert not unseen_forks._is_due()


@pytest.mark.usefixtures("forked_in_c")
@pytest.mark.parametrize("threads", [0, 2], ids=["the system does not say", "two"])
def test_it_is_not_told_if_it_would_forget_threads_of_the_child(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(unseen_forks, "_threads", lambda: threads)
    assert not unseen_forks._is_due()


@pytest.mark.usefixtures("forked_in_c")
def test_it_is_not_told_if_asyncio_would_forget_the_loop_that_is_running() -> None:
    async def ask() -> bool:
        return unseen_forks._is_due()

    assert asyncio.run(ask()) is False


@pytest.mark.usefixtures("forked_in_c")
def test_it_is_not_told_without_a_lock_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert not unseen_forks._is_due()


@pytest.fixture
def another_interpreter() -> Iterator[None]:
    """Have one beside the main one, as uWSGI has for each further application."""
    interpreters = import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    number = interpreters.create()
    yield
    interpreters.destroy(number)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def tell() -> None:
        assert _imp.lock_held()
        _imp.release_lock()
        found.append("told")

    monkeypatch.setattr(ctypes.pythonapi, "PyOS_AfterFork_Child", tell)
    return found


@pytest.mark.usefixtures("forked_in_c")
def test_it_is_told_once(told: list[str]) -> None:
    unseen_forks.tell_the_interpreter()
    assert told == ["told"]
    assert not _imp.lock_held()


@pytest.mark.usefixtures("forked_in_c")
@pytest.mark.parametrize(("interpreter", "due"), [("cpython", False), ("pypy", True), ("pypy", False)])
def test_it_is_not_told_in_vain_nor_is_one_that_has_no_such_call(
    interpreter: str, due: bool, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython would forget the other threads of a child that has some; PyPy has nothing to call."""
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name=interpreter))
    if not due:
        monkeypatch.setattr(unseen_forks, "_threads", lambda: 2)
    unseen_forks.tell_the_interpreter()
    assert told == []


@pytest.mark.usefixtures("forked_in_c", "another_interpreter")
def test_it_is_not_told_if_it_would_end_other_interpreters(told: list[str]) -> None:
    unseen_forks.tell_the_interpreter()
    assert told == []


def test_the_kernel_counts_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        assert unseen_forks._threads() >= len(sys._current_frames())

    def missing(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", missing)
    assert unseen_forks._threads() == 0
