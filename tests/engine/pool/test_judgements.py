"""The decisions of a queue, one by one and at their limits; threads and tasks share them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dbconfig.engine.pool import judgements
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import Caller, Connect, Rules
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.shedding import Shedding
from dbconfig.engine.pool.tally import Counters


@dataclass(eq=False)
class Idle:
    returned_at: float = 0.0
    checked_at: float = 0.0
    expires: float = NEVER


@dataclass
class Care:
    min_idle: int = 0
    idle_timeout: float | None = None
    keepalive: float | None = None


@dataclass
class Waiting:
    arrived: float


class Willing(Shedding):
    """Drops every caller that has waited for 5 s."""

    def drops(self, waiting: float, now: float) -> bool:
        return waiting >= 5


# Callers


@pytest.mark.parametrize(
    ("waiting", "most", "limit", "in_use", "full"),
    [
        (0, None, 2, 2, False),
        (9, None, 2, 2, False),
        (0, 0, 2, 2, True),
        (1, 2, 2, 2, False),
        (2, 2, 2, 2, True),
        (2, 2, 2, 1, False),  # one of them gets the free place
        (3, 2, 2, 1, True),
        (0, 0, 2, 1, False),
        (50, 0, NEVER, 50, False),  # without a limit nobody waits for another
    ],
)
def test_a_caller_is_rejected_when_so_many_wait_for_connections_in_use(
    waiting: int, most: int | None, limit: float, in_use: int, full: bool
) -> None:
    assert judgements.is_full(waiting, most, limit, in_use) is full


def test_the_longest_waiter_is_dropped_and_the_last_one_stays() -> None:
    rule = Willing(1.0)
    assert judgements.drops_first(rule, [Waiting(0.0), Waiting(9.0)], 5.0)
    assert not judgements.drops_first(rule, [Waiting(0.1), Waiting(0.0)], 5.0)
    assert not judgements.drops_first(rule, [Waiting(0.0)], 5.0)
    assert not judgements.drops_first(rule, [], 5.0)


# Connects


def test_a_failed_connect_is_retried_for_waiters_who_have_time_if_that_may_help() -> None:
    hopeful = {"waited_for": True, "warm": True, "patient": True, "transient": True, "others_in_use": False}
    assert judgements.tries_again(**hopeful)
    assert judgements.tries_again(**hopeful | {"transient": False, "others_in_use": True})
    assert not judgements.tries_again(**hopeful | {"transient": False})
    for needed in ("waited_for", "warm", "patient"):
        assert not judgements.tries_again(**hopeful | {needed: False})
        assert not judgements.tries_again(**hopeful | {needed: False, "others_in_use": True})


def test_the_pause_between_connects_doubles_up_to_half_a_second() -> None:
    pauses = [judgements.retry_pause(failures, transient=True) for failures in (1, 2, 3, 4, 5, 1000, 100_000)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5])
    given = [judgements.retry_pause(failures, transient=True, first=1.0, longest=NEVER) for failures in (1, 2, 100_000)]
    assert given == [1.0, 2.0, 2.0**16]  # a larger power would not be a float
    assert {judgements.retry_pause(failures, transient=False) for failures in (1, 9)} == {5.0}
    assert judgements.retry_pause(1, transient=False, refused=7.0) == 7.0


def test_missing_idle_connections_are_asked_for_after_a_pause_that_doubles_up_to_half_a_minute() -> None:
    pauses = [judgements.refill_pause(failures) for failures in (0, 1, 2, 9, 10, 100_000)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 25.6, 30.0, 30.0])


def test_a_burst_of_callers_opens_three_connections_at_a_time() -> None:
    line = Line(Rules(size=50, limit=50), Counters())
    for _ in range(50):
        line.ask(Caller(30.0, 0.0), 0.0)
    line.connected(next(command.place for command in line.commands if isinstance(command, Connect)), 1.0)
    assert line.connecting == 3


# Idle connections


def rested(idle: list[Idle], care: Care, now: float) -> list[tuple[int, str]]:
    return [(idle.index(each), reason) for each, reason in judgements.rested_too_long(idle, care, now)]


def test_a_connection_ends_at_its_end_whatever_is_to_be_kept() -> None:
    idle = [Idle(expires=10.0), Idle(expires=10.1)]
    assert rested(idle, Care(min_idle=2), 9.9) == []
    assert rested(idle, Care(min_idle=2), 10.0) == [(0, "recycled")]
    assert rested([Idle(returned_at=1.0), Idle(returned_at=2.0, expires=10.0)], Care(), 10.0) == [(1, "recycled")]


def test_what_rested_longest_is_closed_first_down_to_what_is_to_be_kept() -> None:
    idle = [Idle(returned_at=3.0), Idle(returned_at=1.0), Idle(returned_at=2.0)]
    assert rested(idle, Care(idle_timeout=10.0), 10.9) == []
    assert rested(idle, Care(idle_timeout=10.0), 11.0) == [(1, "idle")]
    assert rested(idle, Care(idle_timeout=10.0), 13.0) == [(1, "idle"), (2, "idle"), (0, "idle")]
    assert rested(idle, Care(min_idle=1, idle_timeout=10.0), 99.0) == [(1, "idle"), (2, "idle")]
    assert rested(idle, Care(min_idle=3, idle_timeout=10.0), 99.0) == []
    assert rested(idle, Care(), 99.0) == []


def test_a_connection_that_ends_anyway_counts_as_one_closed() -> None:
    idle = [Idle(returned_at=0.0, expires=5.0), Idle(returned_at=1.0), Idle(returned_at=2.0)]
    assert rested(idle, Care(min_idle=1, idle_timeout=10.0), 99.0) == [(0, "recycled"), (1, "idle")]
    assert rested(idle, Care(min_idle=2, idle_timeout=10.0), 99.0) == [(0, "recycled")]


def test_a_connection_is_quiet_since_it_was_returned_or_checked() -> None:
    care = Care(keepalive=60.0)
    assert not judgements.is_quiet(Idle(returned_at=1.0), care, 60.9)
    assert judgements.is_quiet(Idle(returned_at=1.0), care, 61.0)
    assert not judgements.is_quiet(Idle(returned_at=1.0, checked_at=2.0), care, 61.0)
    assert judgements.is_quiet(Idle(returned_at=1.0, checked_at=2.0), care, 62.0)
    assert not judgements.is_quiet(Idle(), Care(), 1e9)


def test_so_many_are_missing_as_are_neither_idle_nor_being_opened() -> None:
    assert judgements.missing(1, 2, Care(min_idle=7)) == 4
    assert judgements.missing(3, 0, Care(min_idle=1)) == -2


@pytest.mark.parametrize(
    ("idle", "care", "due"),
    [
        ([], Care(), 110.0),
        ([Idle()], Care(), 110.0),
        ([Idle(expires=103.0)], Care(), 103.0),
        ([Idle(expires=100.01)], Care(), 100.05),
        ([Idle(expires=90.0)], Care(), 100.05),
        ([Idle(returned_at=99.0)], Care(idle_timeout=4.0), 103.0),
        ([Idle(returned_at=99.0)], Care(min_idle=1, idle_timeout=4.0), 104.0),
        ([Idle(returned_at=99.0), Idle(returned_at=98.0)], Care(min_idle=1, idle_timeout=4.0), 102.0),
        ([Idle(returned_at=97.0, checked_at=98.0)], Care(keepalive=6.0), 104.0),
        ([Idle(returned_at=98.0, checked_at=97.0)], Care(keepalive=6.0), 104.0),
        ([], Care(keepalive=6.0), 106.0),
        ([], Care(idle_timeout=3.0, keepalive=6.0), 103.0),
    ],
)
def test_the_next_round_is_when_the_first_of_them_is_due(idle: list[Idle], care: Care, due: float) -> None:
    assert judgements.next_round(idle, care, 100.0) == pytest.approx(due)
    assert judgements.next_round(idle, care, 100.0, 101.0) == pytest.approx(min(due, 101.0))


# Load shedding


def test_callers_are_dropped_once_none_was_served_in_time_for_ten_times_the_target() -> None:
    rule = Shedding(0.5)
    assert not rule.drops(99.0, 99.0)  # nothing has stood still yet
    rule.stands(0.5, 10.0)
    assert rule.standing(99.0) == 0.0
    rule.stands(0.6, 10.0)
    rule.stands(0.6, 12.0)
    rule.served(0.6, 13.0)
    assert rule.standing(15.0) == 5.0
    assert not rule.drops(1.1, 14.9)
    assert not rule.drops(1.0, 15.0)
    assert rule.drops(1.1, 15.0)
    rule.served(0.5, 15.0)
    assert not rule.drops(99.0, 99.0)


def test_a_queue_that_drains_starts_anew() -> None:
    rule = Shedding(0.5)
    rule.served(0.6, 10.0)
    assert rule.standing(12.0) == 2.0
    rule.relax()
    assert rule.standing(99.0) == 0.0


def test_a_short_target_drops_nobody_within_a_tenth_of_a_second() -> None:
    rule = Shedding(0.001)
    rule.stands(0.002, 10.0)
    assert not rule.drops(1.0, 10.09)
    assert rule.drops(1.0, 10.11)


def test_a_queue_is_checked_again_just_after_its_first_caller_can_be_late_or_dropped() -> None:
    rule = Shedding(0.5)
    assert rule.due(10.0, 10.2) == pytest.approx(10.501)
    assert rule.due(10.0, 10.5) == pytest.approx(10.501)
    assert rule.due(10.0, 10.6) == pytest.approx(15.6)  # it was looked at in time: after the interval
    rule.stands(0.6, 10.0)
    assert rule.due(10.0, 11.0) == pytest.approx(15.001)
    assert rule.due(14.5, 14.6) == pytest.approx(15.501)
    assert rule.due(10.0, 16.0) == pytest.approx(21.0)
