"""The thread for what happens while nobody asks: which job runs when, and when the thread ends."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest

from dbconfig.engine.pool import maintenance
from dbconfig.engine.pool.maintenance import AFTER_ERROR, LONGEST_WAIT, Caretaker, Job, _Round
from tests.engine.pool.support import eventually
from tests.support.clock import Clock


class Inbox:
    """Messages, and a clock that continues while none arrives."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.messages: list[Any] = []
        self.waits: list[float] = []

    def put(self, message: Any) -> None:
        self.messages.append(message)

    def get(self, timeout: float) -> Any:
        self.waits.append(timeout)
        if self.messages:
            return self.messages.pop(0)
        self.now += timeout
        raise Empty


class Jobs:
    """A round of jobs that the test takes step by step."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.jobs: dict[object, Job] = {}
        inbox: Any = self.inbox
        self.round = _Round(self.jobs, inbox, itertools.count())

    def add(self, key: object, job: Job, delay: float) -> None:
        self.jobs[key] = job
        self.inbox.put((self.inbox.now + delay, key, job))

    def run(self, until: Callable[[], bool]) -> None:
        for _ in range(100):
            if until():
                return
            self.round.run()
        raise AssertionError("nothing happens")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    found = Jobs()
    monkeypatch.setattr(maintenance, "monotonic", lambda: found.inbox.now)
    return found


def test_each_job_runs_when_it_is_due_and_as_often_as_it_wants(jobs: Jobs) -> None:
    ran: list[tuple[str, float]] = []

    def job(name: str, *pauses: float | None) -> Job:
        left = list(pauses)

        def run() -> float | None:
            ran.append((name, jobs.inbox.now - 1000))
            return left.pop(0)

        return run

    jobs.add("slow", job("slow", 5, None), 3)
    jobs.add("quick", job("quick", 2, None), 1)
    jobs.run(lambda: not jobs.jobs)
    assert ran == [("quick", 1), ("slow", 3), ("quick", 3), ("slow", 8)] or ran == [
        ("quick", 1),
        ("quick", 3),
        ("slow", 3),
        ("slow", 8),
    ]


def test_a_thread_without_a_job_that_is_due_soon_looks_now_and_then(jobs: Jobs) -> None:
    ran: list[float] = []
    jobs.add("late", lambda: ran.append(jobs.inbox.now - 1000), 2.5 * LONGEST_WAIT)
    jobs.run(lambda: bool(ran))
    assert ran == [2.5 * LONGEST_WAIT]
    assert max(jobs.inbox.waits) == LONGEST_WAIT


def test_a_message_that_says_nothing_runs_nothing_early(jobs: Jobs) -> None:
    ran: list[float] = []
    jobs.add("one", lambda: ran.append(jobs.inbox.now - 1000), 1)
    jobs.round.run()
    jobs.inbox.put(None)
    jobs.round.run()
    assert ran == []
    jobs.run(lambda: bool(ran))
    assert ran == [1]


def test_what_was_removed_or_replaced_does_not_run(jobs: Jobs) -> None:
    ran: list[str] = []
    jobs.add("removed", lambda: ran.append("removed"), 1)
    jobs.add("replaced", lambda: ran.append("first"), 1)
    jobs.round.run()
    jobs.round.run()
    del jobs.jobs["removed"]
    jobs.add("replaced", lambda: ran.append("second"), 2)
    jobs.run(lambda: bool(ran))
    assert ran == ["second"]
    assert jobs.inbox.now == 1002
    assert not jobs.jobs


@pytest.mark.parametrize("how", ["removes itself", "replaces itself"])
def test_a_job_that_ends_itself_is_not_put_back(jobs: Jobs, how: str) -> None:
    ran: list[str] = []

    def job() -> float | None:
        ran.append("first")
        if how == "removes itself":
            del jobs.jobs["one"]
        else:
            jobs.add("one", lambda: ran.append("second"), 7)
        return 1.0

    jobs.add("one", job, 1)
    jobs.run(lambda: not jobs.jobs)
    assert ran == (["first"] if how == "removes itself" else ["first", "second"])
    assert jobs.inbox.now == (1001 if how == "removes itself" else 1008)


def test_a_job_that_fails_is_told_and_tried_again(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[float] = []

    def job() -> None:
        ran.append(jobs.inbox.now - 1000)
        if len(ran) == 1:
            raise ValueError("broken")

    jobs.add("one", job, 1)
    with caplog.at_level(logging.ERROR):
        jobs.run(lambda: not jobs.jobs)
    assert ran == [1, 1 + AFTER_ERROR]
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_what_is_due_is_handed_over_to_a_later_thread(jobs: Jobs) -> None:
    jobs.add("one", lambda: None, 1)
    jobs.round.run()
    jobs.round.hand_over()
    assert [(when, key) for when, key, _ in jobs.inbox.messages] == [(1001, "one")]


def test_the_thread_is_there_while_there_are_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    caretaker = Caretaker()
    ran: SimpleQueue[int] = SimpleQueue()
    caretaker.add("one", lambda: ran.put(1))
    assert ran.get(timeout=30) == 1
    assert eventually(lambda: caretaker._thread is None)
    caretaker.add("two", lambda: None, 3600)
    first = caretaker._thread
    assert first is not None
    assert first.daemon
    caretaker.add("three", lambda: None, 3600)
    assert caretaker._thread is first
    caretaker.remove("two")
    caretaker.remove("nothing")
    assert caretaker._inbox.qsize() <= 2
    assert first.is_alive()
    caretaker.remove("three")  # wakes it, and it ends
    first.join(30)
    assert not first.is_alive()


def test_where_no_thread_can_be_started_nothing_is_cared_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Thread:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(maintenance, "Thread", Thread)
    Caretaker().add("one", lambda: None)
    assert caplog.records == []


def test_a_job_that_is_removed_wakes_the_thread_and_one_that_is_unknown_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have been the last one, and without a job the thread ends."""
    caretaker = Caretaker()
    monkeypatch.setattr(caretaker, "_start", lambda: None)
    caretaker.add("one", lambda: None)
    assert caretaker._inbox.get_nowait() is not None
    caretaker.remove("another")
    assert caretaker._inbox.empty()
    caretaker.remove("one")
    assert caretaker._inbox.get_nowait() is None
    assert not caretaker._jobs
    caretaker.remove("one")
    assert caretaker._inbox.empty()


def test_of_two_threads_that_were_started_the_one_that_ends_hands_its_jobs_over(clock: Clock) -> None:
    """As after an interruption between the start of a thread and the note that there is one."""
    caretaker, ran = Caretaker(), Event()
    caretaker.add("late", lambda: ran.set(), 3600)
    first = caretaker._thread
    assert first is not None
    assert eventually(caretaker._inbox.empty)
    second = Thread(target=caretaker._run, daemon=True)
    second.start()
    assert eventually(lambda: caretaker._thread is second)
    while first.is_alive():
        caretaker._inbox.put(None)  # which wakes one of the two
        first.join(0.01)
    clock.advance(3600)
    caretaker._inbox.put(None)
    assert ran.wait(30)
    second.join(30)
    assert not second.is_alive()  # nothing is left to do
