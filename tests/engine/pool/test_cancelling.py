"""Requests to the server to end what a connection executes: shared, repeated where they may be ignored, and limited."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from dbconfig.engine.pool import cancelling, deadline
from dbconfig.engine.pool.cancelling import Canceller, Request
from dbconfig.engine.pool.driver import Left
from tests.engine.pool.support import eventually

LEFT = Left("SELECT 1")


class Server:
    """In place of a connection that cancels."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, int]]] = []  # of each connection: the number, how often it was repeated
        self.limits: list[Any] = []
        self.not_begun = 0  # for so many connections
        self.down = 0
        self.slow = 0.0  # seconds; for tasks

    def cancel(self, pool: Any, own: Any, requests: Any, unsettled: list[Request]) -> None:
        self.limits.append(deadline.current())
        if self.down:
            self.down -= 1
            self.asked.append([])
            raise OSError("too many connections")
        if self.slow:
            seconds, self.slow = self.slow, 0.0
            self.asked.append([])
            await_only(asyncio.sleep(seconds))
        found = list(requests)
        self.asked.append([(request.number, request.repeated) for request in found])
        if self.not_begun:
            self.not_begun -= 1
            unsettled += [request for request in found if request.left is not None]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(cancelling, "cancel_beside", made.cancel)
    monkeypatch.setattr(cancelling, "FIRST_PAUSE", 0.001)
    return made


@pytest.fixture
def engine() -> Engine:
    return create_engine("sqlite:///shop.db")


class Asking:
    """A canceller of an engine, in a thread or in a loop."""

    def __init__(self, way: str) -> None:
        self.way = way
        if way == "thread":
            self.engine: Any = create_engine("sqlite:///shop.db")
        else:
            pytest.importorskip("aiosqlite")
            self.engine = create_async_engine("sqlite+aiosqlite:///shop.db").sync_engine
        self.canceller = Canceller(self.engine)

    def ask(self, *requests: Request) -> None:
        """Ask for some, and wait until nothing is left to do."""
        if self.way == "thread":
            for request in requests[:-1]:
                self.canceller._requests.put(request._replace(at=cancelling.monotonic()))
            self.canceller.ask(requests[-1])
            assert eventually(lambda: self.canceller._thread is None)
        else:
            asyncio.run(self.ask_in_loop(*requests))

    async def ask_in_loop(self, *requests: Request) -> None:
        for request in requests:
            self.canceller.ask(request)
        task = self.canceller._task
        assert task is not None
        await task


@pytest.fixture(params=["thread", "task"])
def asking(request: pytest.FixtureRequest) -> Asking:
    return Asking(request.param)


def test_a_request_of_a_caller_whose_time_is_over_has_time_of_its_own(
    asking: Asking, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[str] = []
    monkeypatch.setattr(deadline, "_at_first_use", [])
    with deadline.Deadline(60):
        monkeypatch.setattr(deadline, "_at_first_use", [lambda: attached.append("it limits engines")])
        asking.ask(Request(7))
    (limit,) = server.limits
    assert server.asked == [[(7, 0)]]
    assert attached == []
    if asking.way == "thread":
        assert 0 < limit.remaining() <= cancelling.LIMIT == limit.seconds
    else:
        assert limit is None  # it is limited by a timeout of asyncio's


def test_what_has_not_begun_is_asked_for_again(asking: Asking, server: Server) -> None:
    server.not_begun = 3
    asking.ask(Request(7, LEFT))
    assert server.asked == [[(7, each)] for each in range(4)]


def test_what_never_begins_is_given_up(asking: Asking, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "REPETITIONS", 3)
    server.not_begun = 99
    asking.ask(Request(7, LEFT))
    assert server.asked == [[(7, each)] for each in range(4)]


def test_a_server_that_is_down_is_asked_again_only_for_those_who_have_left(
    asking: Asking, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.down = 2
    with caplog.at_level(logging.INFO, "dbconfig"):
        asking.ask(Request(1), Request(2, LEFT))
    assert server.asked == [[], [], [(2, 2)]]
    words = "shop.db: statements could not be cancelled on the server: too many connections"
    assert caplog.messages == [words, words]


def test_pauses_become_longer_for_each_request_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(cancelling, "monotonic", lambda: now[0])
    later = cancelling._Later()
    assert later.next_due(None) is None
    later.add([Request(1, LEFT, repeated=3), Request(2, LEFT), Request(3), Request(4, LEFT, repeated=9)], down=False)
    assert later.next_due(None) == pytest.approx(100.1)
    assert later.take() == []
    now[0] = 100.2
    assert [(each.number, each.repeated) for each in later.take()] == [(2, 1)]
    assert later.next_due(None) == pytest.approx(100.8)
    later.add([Request(5, LEFT)], down=True)
    assert later.next_due(105.0) == pytest.approx(100.8)  # of a server that is down, nothing is expected at the end
    assert later.next_due(100.7) is None
    assert later.next_due(None) is None


def test_requests_that_come_meanwhile_share_a_connection(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[int]] = []
    canceller = Canceller(engine)

    def cancel(pool: Any, own: Any, requests: Any, unsettled: Any) -> None:
        canceller._requests.put(Request(2, LEFT))
        found.append([request.number for request in requests])

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    canceller._requests.put(Request(1, LEFT))
    canceller._attempt(engine, deque(), cancelling._Later())
    assert found == [[1, 2]]


def test_what_has_been_carried_out_is_not_repeated_when_the_server_goes_down(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand that are asked for at once, each attempt may get some."""
    requests = [Request(number, LEFT) for number in range(5)]

    def cancel(pool: Any, own: Any, asked: Any, unsettled: list[Request]) -> None:
        each = iter(asked)
        assert [next(each), next(each), next(each)] == requests[:3]  # the third is under way
        unsettled.append(requests[0])
        canceller._requests.put(Request(5, LEFT))
        raise OSError("the server has gone")

    monkeypatch.setattr(cancelling, "cancel_beside", cancel)
    canceller, later = Canceller(engine), cancelling._Later()
    for request in requests:
        canceller._requests.put(request)
    canceller._attempt(engine, deque(), later)
    assert [(request.number, down) for _, request, down in later._due] == [
        *((number, True) for number in (2, 3, 4, 5)),  # the last one is not asked for at once
        (0, False),
    ]


def test_an_old_request_for_a_connection_that_may_have_another_user_is_dropped(
    engine: Engine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "monotonic", lambda: 100.0)
    canceller = Canceller(engine)
    for request in (Request(1, at=94.9), Request(2, at=95.1), Request(3, LEFT, at=50.0)):
        canceller._requests.put(request)
    canceller._attempt(engine, deque(), cancelling._Later())
    assert server.asked == [[(2, 0), (3, 0)]]


@pytest.mark.parametrize(("number", "asked"), [(7, [Request(7, LEFT)]), (None, [])])
def test_a_connection_is_abandoned_if_it_has_a_number(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, number: int | None, asked: list[Request]
) -> None:
    canceller, found = Canceller(engine), list[Request]()
    own: Any = SimpleNamespace(known_number=lambda connection: number, leave=lambda connection: LEFT)
    canceller._driver = own
    monkeypatch.setattr(canceller, "ask", found.append)
    canceller.abandon("a driver's")
    assert found == asked


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_rolled_back_on_the_connection_that_cancels(
    asking: Asking, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a server that may not answer: the ROLLBACK would wait, without a limit of its own."""
    monkeypatch.chdir(tmp_path)
    told: list[Any] = []

    def cancel(cursor: Any, under: Any, number: int) -> None:
        told.append(number)
        if fails:
            raise OSError("the server has gone")

    own: Any = SimpleNamespace(cancel=cancel, socket=lambda connection: None)
    pool = asking.engine.pool
    event.listen(pool, "reset", lambda *_: told.append("reset"))
    event.listen(pool, "invalidate", lambda *_: told.append("closed"))
    with pytest.raises(OSError, match="has gone") if fails else nullcontext():
        if asking.way == "thread":
            cancelling.cancel_beside(pool, own, [Request(7)])
        else:
            asyncio.run(greenlet_spawn(cancelling.cancel_beside, pool, own, [Request(7)]))
    assert told == [7, "closed"]


# Threads


def test_statements_are_cancelled_by_a_thread_for_which_the_process_waits(
    server: Server, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Any] = []
    made = cancelling.Thread

    def make(**keywords: Any) -> Any:
        threads.append(made(**keywords))
        return threads[-1]

    monkeypatch.setattr(cancelling, "Thread", make)
    canceller = Canceller(engine)
    canceller._attempt(engine, deque(), cancelling._Later())
    assert server.asked == []  # nobody has asked
    for number in (7, 8):
        canceller.ask(Request(number))
        threads[-1].join(30)
        assert not threads[-1].daemon
    assert (server.asked, len(threads)) == ([[(7, 0)], [(8, 0)]], 2)
    canceller._engine = lambda: None  # type: ignore[assignment]  # it is gone
    canceller.ask(Request(9))
    assert canceller._requests.empty()
    assert len(threads) == 2


def test_a_thread_that_cannot_start_leaves_nothing_for_the_next_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which may cancel a statement of another user by then."""

    def start(self: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(cancelling.Thread, "start", start)
    canceller = Canceller(engine)
    with caplog.at_level(logging.DEBUG, "dbconfig"):
        canceller.ask(Request(7))
    assert canceller._requests.empty()
    words = "cannot start a thread, so nothing is cancelled: can't create new thread at interpreter shutdown"
    assert caplog.messages == [words]


@pytest.mark.parametrize("another", [False, True])
def test_who_asks_while_the_thread_ends_is_heard(
    server: Server, engine: Engine, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """By this thread, or, if that caller has seen no thread, by its own."""
    canceller = Canceller(engine)
    rest = canceller._rest
    rounds: list[bool] = []

    def rest_then_ask(later: Any) -> bool:
        found = rest(later)
        rounds.append(found)
        if len(rounds) == 1:
            canceller._thread = threading.Thread() if another else threading.current_thread()
            canceller._requests.put(Request(2, LEFT))
        return found

    monkeypatch.setattr(canceller, "_rest", rest_then_ask)
    canceller._requests.put(Request(1, LEFT))
    canceller._run(engine)
    assert server.asked == ([[(1, 0)]] if another else [[(1, 0)], [(2, 0)]])
    assert (canceller._thread is not None) is another


def test_a_child_does_not_ask_for_what_its_parent_has_asked(engine: Engine) -> None:
    canceller = Canceller(engine)
    canceller._requests.put(Request(7))
    canceller._thread = threading.current_thread()
    canceller.forget()
    assert canceller._requests.empty()
    assert canceller._thread is None


@pytest.mark.parametrize(
    ("others", "waits"),
    [
        ([], True),
        ([("worker", True)], True),  # a daemon
        ([("dbconfig-cancel", False)], True),
        ([("worker", False)], False),
        ([("MainThread", False)], False),
    ],
)
def test_a_process_whose_threads_have_ended_waits_for_a_limited_time(
    others: list[tuple[str, bool]], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(cancelling, "monotonic", lambda: now[0])
    known = [SimpleNamespace(name=name, daemon=daemon, is_alive=lambda: True) for name, daemon in others]
    ended = SimpleNamespace(name="MainThread", daemon=False, is_alive=lambda: False)  # the interpreter waits
    monkeypatch.setattr(cancelling.threading, "enumerate", lambda: [*known, ended])
    process = cancelling._Process()
    for at in (100.0, 103.0):
        now[0] = at
        assert process.latest() == (100.0 + cancelling.LIMIT if waits else None)
    known.append(SimpleNamespace(name="worker", daemon=False, is_alive=lambda: True))
    assert process.latest() is None  # it continues


@pytest.mark.parametrize(
    ("latest", "state", "asked"),
    [
        (0.0, "", [[(1, 0)]]),
        (0.0, "down", [[]]),  # nothing is repeated
        (0.0, "not begun", [[(1, 0)], [(1, 1)]]),
        (-10.0, "", []),  # the time is over
    ],
)
def test_at_the_end_of_the_process_nobody_waits_for_a_server_that_is_down(
    server: Server, engine: Engine, monkeypatch: pytest.MonkeyPatch, latest: float, state: str, asked: list[Any]
) -> None:
    now = cancelling.monotonic()
    monkeypatch.setattr(cancelling._process, "latest", lambda: now + 5.0 + latest)
    server.down, server.not_begun = int(state == "down"), int(state == "not begun")
    canceller = Canceller(engine)
    canceller._requests.put(Request(1, LEFT))
    canceller._run(engine)
    assert server.asked == asked


# Tasks


def test_without_a_loop_nothing_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking("task")
    with caplog.at_level(logging.DEBUG, "dbconfig"):
        asking.canceller.ask(Request(7, LEFT))
    assert asking.canceller._requests.empty()
    assert caplog.messages == ["nothing is cancelled: no running event loop"]


def test_the_next_loop_has_a_task_of_its_own(server: Server) -> None:
    asking = Asking("task")
    loop = asyncio.new_event_loop()

    async def ask() -> None:
        asking.canceller.ask(Request(1, LEFT))

    loop.run_until_complete(ask())
    first = asking.canceller._task
    asking.ask(Request(2, LEFT))
    assert server.asked == [[(1, 0), (2, 0)]]
    assert first is not None
    first.cancel()
    loop.run_until_complete(asyncio.wait([first], timeout=30))
    loop.close()


def test_a_newcomer_wakes_a_task_that_pauses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "FIRST_PAUSE", 60.0)
    asking = Asking("task")
    server.not_begun = 1

    async def main() -> None:
        asking.canceller.ask(Request(1, LEFT))
        async with asyncio.timeout(30):
            while len(server.asked) < 1:
                await asyncio.sleep(0.001)
            asking.canceller.ask(Request(2, LEFT))
            while len(server.asked) < 2:
                await asyncio.sleep(0.001)

    asyncio.run(main())
    assert server.asked[:2] == [[(1, 0)], [(2, 0)]]


def test_a_task_whose_server_is_silent_asks_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cancelling, "LIMIT", 0.01)
    server.slow = 60.0
    with caplog.at_level(logging.INFO, "dbconfig"):
        Asking("task").ask(Request(1), Request(2, LEFT))
    assert server.asked == [[], [(2, 1)]]
    assert caplog.messages == ["the server did not accept a cancel request within 0.01 s"]


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        ("connecting", [[], [(2, 0)]]),
        ("not begun", [[(1, 0), (2, 0)], [(2, 1)]]),
        ("down", [[]]),
    ],
)
def test_a_loop_that_ends_waits_for_the_request(server: Server, state: str, asked: list[Any]) -> None:
    """`asyncio.run` ends by the error that the caller got, and cancels the task that has this still to do."""
    server.slow = 60.0 if state == "connecting" else 0.0
    server.not_begun, server.down = int(state == "not begun"), int(state == "down")
    asking = Asking("task")

    async def main() -> None:
        asking.canceller.ask(Request(1))
        asking.canceller.ask(Request(2, LEFT))
        while not server.asked:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert server.asked == asked


def test_each_request_is_carried_out_as_its_kind_wants() -> None:
    told: list[Any] = []

    def end(cursor: Any, under: Any, number: int, left: Left) -> bool:
        told.append(("end", number, left))
        return number == 3

    own: Any = SimpleNamespace(cancel=lambda cursor, under, number: told.append(("cancel", number)), end=end)
    beside = SimpleNamespace(cursor=lambda: "cursor", driver_connection="under")
    requests = [Request(1), Request(2, LEFT), Request(3, Left())]
    unsettled: list[Request] = []
    cancelling._ask(beside, own, requests, unsettled)
    assert unsettled == requests[1:2]
    assert told == [("cancel", 1), ("end", 2, LEFT), ("end", 3, Left())]
    cancelling._ask(beside, own, requests, None)
