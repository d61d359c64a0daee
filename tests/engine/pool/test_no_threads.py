"""A helper thread that cannot be started costs no place; only an interpreter that goes down connects without one."""

from __future__ import annotations

from threading import Thread
from types import SimpleNamespace

import pytest

from dbconfig.engine.pool import connecting
from dbconfig.engine.pool.options import LineOptions

from .support import FakeServer, eventually, fair_pool, helpers


class Limit(RuntimeError):
    """What a signal handler raises, which some libraries derive from a common error."""


@pytest.mark.parametrize("error", [Limit("time is over"), MemoryError(), OSError(11, "no thread")])
def test_what_interrupts_the_start_of_a_thread_is_raised_and_costs_no_place(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    errors = [error]

    class Interrupted(Thread):
        def start(self) -> None:
            if errors:
                raise errors.pop()
            super().start()

    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=1, timeout=20.0, line=LineOptions())
    held = pool.connect()
    monkeypatch.setattr(connecting, "Thread", Interrupted)
    with pytest.raises(type(error)):
        pool.connect()
    assert eventually(lambda: (pool.connecting, helpers(), len(pool.waiters)) == (0, [], 0))
    assert pool.open == 1 + len(pool.idle)
    pool.connect().close()
    held.close()
    pool.dispose()
    assert eventually(lambda: pool.open == 0)


def test_an_interpreter_that_goes_down_connects_on_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Down(Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread at interpreter shutdown")

    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=1, timeout=20.0, line=LineOptions())
    held = pool.connect()
    monkeypatch.setattr(connecting, "Thread", Down)
    pool.connect().close()
    assert (server.attempts, pool.open, pool.connecting, helpers()) == (2, 2, 0, [])
    held.close()
    pool.dispose()
    assert pool.open == 0


@pytest.mark.parametrize("event", ["", "the last caller leaves", "a connect succeeds"])
def test_a_helper_waits_for_the_next_attempt_and_lets_the_line_say_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    now, told = [5.0], []
    line = SimpleNamespace(trouble=OSError(), callers=[1], retry_at=7.0, review="review")

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if event == "the last caller leaves":
            line.callers.clear()
        elif event:
            line.trouble = None

    def tell(*event: object, helper: object) -> None:
        told.append((*event, helper))

    monkeypatch.setattr(connecting, "monotonic", lambda: now[0])
    monkeypatch.setattr(connecting, "time", SimpleNamespace(sleep=sleep))
    pool, order = SimpleNamespace(line=line, tell=tell), object()
    connecting._wait_for_the_server(pool, order)  # type: ignore[arg-type]  # all it asks of them
    assert now == [7.0]
    assert told == ([] if event else [("review", 7.0, order)])
