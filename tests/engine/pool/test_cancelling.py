"""Requests to the server to end what a connection executes: shared, repeated where they may be ignored, and limited."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from dbconfig.engine.pool import cancelling, deadline
from dbconfig.engine.pool.cancelling import Canceller, Request
from tests.engine.pool.support import eventually

Asked = list[list[Request]]


class Timers:
    """In place of `threading.Timer`: they are due when the test says so."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self, pause: float, call: Any, arguments: Any) -> Any:
        timer = SimpleNamespace(pause=pause, due=lambda: call(*arguments), start=lambda: self.made.append(timer))
        return timer


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    made = Timers()
    monkeypatch.setattr(cancelling, "Timer", made)
    return made


@pytest.fixture
def engine() -> Engine:
    return create_engine("sqlite:///shop.db")


@pytest.fixture
def unsettled() -> list[Request]:
    """What a server has not begun."""
    return []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, unsettled: list[Request]) -> Asked:
    """The requests of each connection that cancels."""
    found: Asked = []

    def cancel(pool: Any, own: Any, requests: Any, told: list[Request]) -> None:
        found.append(list(requests))
        told += unsettled

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    return found


def attempt(canceller: Canceller, engine: Engine, *requests: Request) -> None:
    for request in requests:
        canceller._requests.put(request)
    canceller._attempt(engine, deque())


def test_statements_are_cancelled_by_a_thread_for_which_the_process_waits(
    asked: Asked, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Any] = []
    made = cancelling.Thread

    def make(**keywords: Any) -> Any:
        threads.append(made(**keywords))
        return threads[-1]

    monkeypatch.setattr(cancelling, "Thread", make)
    canceller = Canceller(engine)
    canceller._attempt(engine, deque())
    assert asked == []  # nobody has asked
    canceller.ask(Request(7))
    assert eventually(lambda: asked == [[Request(7)]])
    threads[0].join(30)
    assert not threads[0].daemon
    canceller.ask(Request(8))
    assert eventually(lambda: asked == [[Request(7)], [Request(8)]])
    threads[1].join(30)
    assert len(threads) == 2
    canceller._engine = lambda: None  # type: ignore[assignment]  # it is gone
    canceller.ask(Request(9))
    assert canceller._requests.empty()
    assert len(threads) == 2


def test_a_thread_that_cannot_start_ends_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(cancelling.Thread, "start", start)
    with caplog.at_level(logging.DEBUG, "dbconfig"):
        Canceller(engine).ask(Request(7))
    words = "cannot start a thread, so nothing is cancelled: can't create new thread at interpreter shutdown"
    assert caplog.messages == [words]


def test_a_thread_has_a_limit_of_its_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []

    def cancel(pool: Any, own: Any, requests: Any, unsettled: list[Request]) -> None:
        limits.append(deadline.current())

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    monkeypatch.setattr(deadline, "_at_first_use", [lambda: limits.append("attached")])
    canceller = Canceller(engine)
    canceller._requests.put(Request(7))
    canceller._run(engine)
    (limit,) = limits
    assert 0 < limit.remaining() <= cancelling.LIMIT == limit.seconds
    assert deadline.current() is None


def test_a_request_of_a_task_whose_time_is_over_has_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiosqlite")
    limits: list[Any] = []

    def cancel(pool: Any, own: Any, requests: Any, unsettled: list[Request]) -> None:
        limits.append(deadline.current())

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    canceller = Canceller(create_async_engine("sqlite+aiosqlite://").sync_engine)

    async def main() -> None:
        with deadline.Deadline(60):
            canceller._engine = lambda: engine  # type: ignore[assignment,return-value]
            canceller.ask(Request(7))
        assert canceller._task is not None
        await canceller._task

    engine: Any = SimpleNamespace(pool=None)
    asyncio.run(main())
    assert limits == [None]


def test_a_server_that_accepts_no_request_to_cancel_is_told_and_asked_again_for_those_who_have_left(
    engine: Engine, timers: Timers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cancel(pool: Any, own: Any, requests: Any, unsettled: list[Request]) -> None:
        raise OSError("too many connections")

    caplog.set_level(logging.INFO, "dbconfig")
    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    canceller = Canceller(engine)
    attempt(canceller, engine, Request(1))
    assert caplog.messages == ["shop.db: statements could not be cancelled on the server: too many connections"]
    assert timers.made == []
    attempt(canceller, engine, Request(1), Request(2, left=True))
    (timer,) = timers.made
    assert timer.daemon  # the end of the process does not wait for a server that is down
    monkeypatch.setattr(canceller, "_run", lambda engine: None)
    timer.due()
    assert list(canceller._waiting()) == [Request(2, left=True, repeated=1)]


def test_requests_that_come_meanwhile_share_a_connection(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Asked = []
    canceller = Canceller(engine)

    def cancel(pool: Any, own: Any, requests: Any, unsettled: list[Request]) -> None:
        canceller._requests.put(Request(2))
        found.append(list(requests))

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    attempt(canceller, engine, Request(1))
    assert found == [[Request(1), Request(2)]]


def test_who_asks_while_the_thread_ends_is_heard(asked: Asked, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    canceller = Canceller(engine)
    rounds: list[int] = []
    first = canceller._attempt

    def once_more(engine: Engine, found: deque[Request]) -> None:
        rounds.append(1)
        first(engine, found)
        if len(rounds) == 1:
            canceller._requests.put(Request(2))

    monkeypatch.setattr(canceller, "_attempt", once_more)
    canceller._requests.put(Request(1))
    canceller._run(engine)
    assert asked == [[Request(1)], [Request(2)]]


def test_a_statement_that_has_not_begun_is_asked_for_again_in_longer_and_longer_pauses(
    asked: Asked, unsettled: list[Request], timers: Timers, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    canceller = Canceller(engine)
    monkeypatch.setattr(cancelling.Thread, "start", lambda self: canceller._attempt(engine, deque()))
    unsettled[:] = [Request(7, left=True, statement="SELECT 1")]
    attempt(canceller, engine, *unsettled)
    count = 0
    while count < len(timers.made):
        timer = timers.made[count]
        unsettled[:] = [Request(7, left=True, statement="SELECT 1", repeated=count + 1)]
        timer.due()
        count += 1
    pauses = [timer.pause for timer in timers.made]
    assert pauses == [pytest.approx(0.1 * 2**count) for count in range(9)]
    assert [timer.daemon for timer in timers.made] == [pause > 1.0 for pause in pauses]
    assert [request.repeated for (request,) in asked] == list(range(10))


@pytest.mark.parametrize("way", ["not begun", "no answer", "end of the loop", "end of the loop, not begun"])
def test_a_task_asks_again(way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("aiosqlite")
    from sqlalchemy.util import await_only

    request, ends = Request(7, left=True), way.startswith("end of the loop")
    found: Asked = []

    def cancel(pool: Any, own: Any, requests: Any, unsettled: list[Request]) -> None:
        if found or way == "not begun":
            found.append(list(requests))
            unsettled += [request] if len(found) == 1 or (len(found), way) == (2, "end of the loop, not begun") else []
            return
        found.append([next(iter(requests))])
        await_only(asyncio.sleep(0.05 if ends else 60))

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    monkeypatch.setattr(cancelling, "LIMIT", 0.01 if way == "no answer" else 30.0)
    monkeypatch.setattr(cancelling, "FIRST_PAUSE", 0.001)
    engine: Any = SimpleNamespace(pool=None)
    canceller = Canceller(create_async_engine("sqlite+aiosqlite://").sync_engine)
    canceller._engine = lambda: engine  # type: ignore[assignment,return-value]

    async def main() -> None:
        canceller.ask(request)
        while not found:
            await asyncio.sleep(0)
        while not ends and len(found) < 2:
            await asyncio.sleep(0.001)

    with caplog.at_level(logging.INFO, "dbconfig"):
        asyncio.run(main())
    again = request._replace(repeated=1)
    assert found == {
        "end of the loop": [[request], [request]],
        "end of the loop, not begun": [[request], [request], [again]],
    }.get(way, [[request], [again]])
    words = "the server did not accept a cancel request within 0.01 s"
    assert caplog.messages == ([words] if way == "no answer" else [])


def test_each_request_is_carried_out_as_its_kind_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    own: Any = SimpleNamespace(
        cancel=lambda cursor, under, number: told.append(("cancel", number)),
        end=lambda cursor, under, number, statement: told.append(("end", number, statement)) or number == 3,
    )
    beside = SimpleNamespace(cursor=lambda: "cursor", driver_connection="under")
    requests = [Request(1), Request(2, left=True, statement="SELECT 2"), Request(3, left=True)]
    unsettled: list[Request] = []
    cancelling._ask(beside, own, requests, unsettled)
    assert unsettled == requests[1:2]
    assert told == [("cancel", 1), ("end", 2, "SELECT 2"), ("end", 3, "")]


def test_what_has_been_carried_out_is_not_repeated_when_the_server_goes_down(
    engine: Engine, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand that are asked for at once, each attempt may get some."""
    requests = [Request(number, left=True) for number in range(5)]

    def cancel(pool: Any, own: Any, asked: Any, unsettled: list[Request]) -> None:
        each = iter(asked)
        assert [next(each), next(each), next(each)] == requests[:3]  # the third is under way
        unsettled.append(requests[0])
        raise OSError("the server has gone")

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    canceller = Canceller(engine)
    attempt(canceller, engine, *requests)
    monkeypatch.setattr(canceller, "_run", lambda engine: None)
    for timer in timers.made:
        timer.due()
    assert [request.number for request in canceller._waiting()] == [2, 3, 4, 0]
    assert [timer.daemon for timer in timers.made] == [True, False]
