"""What the queue does after one event, and at the moment at which a time is due."""

from __future__ import annotations

from typing import Any

import pytest

from dbconfig.engine.pool import judgements
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import Caller, Close, Connect, Ping, Place, Rules, Serve, State, WakeAt
from dbconfig.engine.pool.refusal import NEVER, Refusal
from dbconfig.engine.pool.tally import Counters


def line_of(**rules: Any) -> Line:
    return Line(Rules(**rules), Counters())


def done(line: Line, kind: type[Any]) -> list[Any]:
    """Return the commands of a kind that were given, and forget all commands."""
    found = [command for command in line.commands if isinstance(command, kind)]
    line.commands.clear()
    return found


def lent(line: Line, now: float = 0.0, expires: float = NEVER) -> Place:
    """Return a connection in use, a new one."""
    caller = Caller(now + 30, now)
    line.ask(caller, now)
    (command,) = done(line, Connect)
    line.connected(command.place, now, expires)
    line.commands.clear()
    assert caller.place is command.place
    return command.place


def waiting(line: Line, now: float) -> Caller:
    caller = Caller(now + 30, now)
    line.ask(caller, now)
    return caller


# What is returned


def test_a_connection_is_closed_at_the_moment_of_its_end() -> None:
    line = line_of(limit=2)
    early, late = lent(line, expires=10.0), lent(line, expires=10.0)
    line.give_back(early, 9.9)
    assert (early.state, done(line, Close)) == (State.IDLE, [])
    assert line.why_unfit(early, 9.9) is None
    assert line.why_unfit(early, 10.0) == "recycled"
    line.give_back(late, 10.0)
    assert done(line, Close) == [Close(late, "recycled")]
    assert late.state is State.CLOSING


@pytest.mark.parametrize(
    ("event", "reason"),
    [("invalidate", "invalidated"), ("condemn", "invalidated"), ("dispose", "disposed"), ("", "")],
)
def test_what_must_not_be_handed_out_again_is_closed_when_it_is_returned(event: str, reason: str) -> None:
    line = line_of()
    place, idle = lent(line), lent(line)
    line.give_back(idle, 1.0)
    if event == "condemn":
        line.condemn([place, idle])
    elif event:
        getattr(line, event)(1.0)
    assert done(line, Close) == ([Close(idle, reason)] if event else [])
    line.give_back(place, 2.0)
    assert done(line, Close) == ([Close(place, reason)] if event else [])
    assert line.open == 2
    for each in (idle, place) if event else ():
        line.closed(each, 3.0)
        line.closed(each, 3.0)  # a place is given up once
    assert line.open == (0 if event else 2)


def test_only_what_is_condemned_is_closed() -> None:
    line = line_of()
    one, two = lent(line), lent(line)
    for place in (one, two):
        line.give_back(place, 1.0)
    line.condemn([two])
    assert done(line, Close) == [Close(two, "invalidated")]
    assert list(line.idle) == [one]


def test_who_waits_for_a_queue_that_is_disposed_of_still_gets_a_connection() -> None:
    line = line_of(size=1, limit=1)
    place = lent(line)
    caller = waiting(line, 1.0)
    line.dispose(2.0)
    line.give_back(place, 3.0)
    assert done(line, Serve) == [Serve(caller)]
    assert (caller.place, place.lent_at, place.state) == (place, 3.0, State.LENT)


def test_how_long_a_connection_was_in_use_is_counted() -> None:
    line = line_of()
    for held in (0.001, 0.0011, 5.0):
        place = line.take(10.0) or lent(line, 10.0)
        line.give_back(place, 10.0 + held)
    assert line.counters.use.counts == [1, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert line.counters.use.sum == pytest.approx(5.0021)
    place = line.take(20.0)
    assert place is not None
    line.lost(place, 20.5)
    assert line.counters.use.sum == pytest.approx(5.5021)
    assert line.open == 0


@pytest.mark.parametrize(("lifo", "order"), [(False, [0, 1, 2]), (True, [2, 1, 0])])
def test_idle_connections_take_turns_or_the_last_one_comes_first(lifo: bool, order: list[int]) -> None:
    line = line_of(size=3, limit=3, lifo=lifo)
    places = [lent(line) for _ in range(3)]
    for place in places:
        line.give_back(place, 1.0)
    assert [places.index(line.take(2.0)) for _ in range(3)] == order
    assert line.take(2.0) is None


def test_beyond_the_steady_size_the_last_one_comes_first() -> None:
    line = line_of(size=1, limit=3)
    places = [lent(line) for _ in range(3)]
    for place in places:
        line.give_back(place, 1.0)
    assert line.take(2.0) is places[2]


@pytest.mark.parametrize("lifo", [False, True])
def test_a_connection_that_was_checked_is_handed_out_last(lifo: bool) -> None:
    line = line_of(size=2, limit=2, lifo=lifo, keepalive=60.0)
    one, two = lent(line), lent(line)
    line.give_back(one, 0.0)
    line.give_back(two, 30.0)
    line.care.round(60.0)
    assert done(line, Ping) == [Ping(one)]
    line.checked(one, alive=True, now=61.0)
    assert (one.checked_at, one.returned_at, one.state) == (61.0, 0.0, State.IDLE)
    assert [line.take(62.0), line.take(62.0)] == [two, one]


def test_a_connection_that_does_not_answer_is_closed() -> None:
    line = line_of(keepalive=60.0)
    place = lent(line)
    line.give_back(place, 0.0)
    line.care.round(60.0)
    line.commands.clear()
    line.checked(place, alive=False, now=61.0)
    assert done(line, Close) == [Close(place, "ping")]


# Who waits


def test_a_caller_whose_connection_is_unusable_comes_before_all_others() -> None:
    line = line_of(size=1, limit=1)
    place = lent(line)
    first, second = waiting(line, 1.0), waiting(line, 2.0)
    line.give_back(place, 3.0)
    assert done(line, Serve) == [Serve(first)]
    line.ask_again(first, place, "ping", 3.0)
    assert first.place is None
    assert list(line.callers) == [first, second]
    assert done(line, Close) == [Close(place, "ping")]
    line.closed(place, 4.0)
    (connect,) = done(line, Connect)
    line.connected(connect.place, 5.0)
    assert done(line, Serve) == [Serve(first)]


def test_a_caller_whose_connection_is_unusable_gets_another_idle_one() -> None:
    line = line_of()
    bad, good = lent(line), lent(line)
    for place in (bad, good):
        line.give_back(place, 1.0)
    caller = waiting(line, 2.0)
    assert caller.place is bad
    line.commands.clear()
    line.ask_again(caller, bad, "ping", 3.0)
    assert caller.place is good
    assert line.commands == [Close(bad, "ping"), Serve(caller)]
    assert not line.callers


def test_what_is_idle_too_long_is_passed_over() -> None:
    line = line_of()
    old, new = lent(line, expires=5.0), lent(line)
    for place in (old, new):
        line.give_back(place, 1.0)
    caller = waiting(line, 5.0)
    assert caller.place is new
    assert done(line, Close) == [Close(old, "recycled")]


def test_what_was_handed_to_a_caller_that_leaves_goes_to_the_next() -> None:
    line = line_of(size=1, limit=1)
    place = lent(line)
    first, second = waiting(line, 1.0), waiting(line, 2.0)
    line.give_back(place, 3.0)
    line.leave(first, 3.0)
    assert (first.place, second.place) == (None, place)
    assert not line.callers
    third = waiting(line, 4.0)
    line.leave(third, 5.0)
    assert not line.callers


def test_one_caller_too_many_is_rejected_and_counted() -> None:
    line = line_of(size=1, limit=1, max_waiting=1)
    lent(line)
    assert waiting(line, 1.0).error is None
    rejected = waiting(line, 1.0)
    assert (rejected.error, rejected.queued) == (Refusal.FULL, True)
    assert (line.counters.refused, line.counters.unserved, line.counters.wanted) == (1, 1, 3)
    assert len(line.callers) == 1


# Connects


def test_the_first_connect_is_alone_and_then_three_run_at_a_time() -> None:
    line = line_of(size=10, limit=10)
    for _ in range(6):
        waiting(line, 1.0)
    (first,) = done(line, Connect)
    line.connected(first.place, 1.5)
    assert len(done(line, Connect)) == 3
    assert (line.open, line.connecting, line.in_use) == (4, 3, 1)
    assert line.counters.create.sum == 0.5


def test_a_connect_that_takes_a_second_holds_up_nobody() -> None:
    line = line_of(size=10, limit=10, connect_stalls=1.0)
    line.warm = True
    waiting(line, 10.0)
    assert len(line.connects) == 1
    assert done(line, WakeAt) == [WakeAt(11.0)]
    line.tick(10.9)
    assert len(line.connects) == 1
    assert done(line, WakeAt) == [WakeAt(11.0)]
    line.tick(11.0)
    assert len(line.connects) == 2


def test_no_connect_is_begun_for_callers_that_others_are_opened_for() -> None:
    line = line_of(size=10, limit=10)
    line.warm = True
    for _ in range(2):
        waiting(line, 0.0)
    assert line.connecting == 2


def test_there_are_never_more_places_than_the_limit() -> None:
    line = line_of(size=1, limit=2)
    line.warm = True
    for _ in range(3):
        waiting(line, 0.0)
    assert (line.open, line.connecting) == (2, 2)
    assert not line.connect(0.0)


def test_a_failed_first_connect_is_raised_to_the_caller_and_the_next_one_tries() -> None:
    line = line_of()
    first, second = waiting(line, 0.0), waiting(line, 0.0)
    (connect,) = done(line, Connect)
    error = ConnectionRefusedError()
    line.connect_failed(connect.place, error, transient=True, now=1.0)
    assert (first.error, second.error) == (error, None)
    assert connect.place.state is State.FREE
    assert len(done(line, Connect)) == 1
    assert (line.open, line.trouble, line.failures) == (1, None, 1)


def test_while_a_server_is_away_one_tries_at_the_times_that_double() -> None:
    line = line_of(size=3, limit=3)
    line.warm = True
    waiting(line, 0.0)
    error = ConnectionRefusedError()
    for failures, pause in ((1, 0.1), (2, 0.2), (3, 0.4)):
        now = 10.0 * failures
        (place,) = line.connects
        line.commands.clear()
        line.care.due = NEVER
        line.connect_failed(place, error, transient=True, now=now)
        assert (line.failures, line.retry_at) == (failures, pytest.approx(now + pause))
        assert done(line, WakeAt) == [WakeAt(line.retry_at)]
        line.tick(line.retry_at - 0.001)
        assert not line.connects
        waiting(line, line.retry_at - 0.001)
        assert not line.connects
        line.care.due = NEVER
        line.tick(line.retry_at)
        assert line.retry_at == NEVER
    (place,) = line.connects
    line.connected(place, 40.0)
    assert (line.failures, line.trouble, line.retry_at) == (0, None, NEVER)


def test_another_connect_that_fails_does_not_put_off_the_next_try() -> None:
    line = line_of(size=3, limit=3)
    line.warm = True
    for _ in range(3):
        waiting(line, 0.0)
    one, two, three = line.connects
    line.connect_failed(one, OSError(), transient=True, now=1.0)
    due = line.retry_at
    line.connect_failed(two, OSError(), transient=True, now=1.05)
    assert line.retry_at == due
    line.connect_failed(three, OSError(), transient=True, now=due)  # at that moment it is over
    assert line.retry_at == pytest.approx(due + 0.4)


def test_an_error_that_stays_is_raised_unless_a_connection_is_in_use() -> None:
    line = line_of(size=2, limit=2)
    place = lent(line)
    caller = waiting(line, 1.0)
    (connect,) = line.connects
    line.connect_failed(connect, PermissionError(), transient=False, now=1.0)
    assert (caller.error, line.retry_at) == (None, 6.0)
    line.retire(place, "invalidated")
    line.closed(place, 2.0)
    line.tick(6.0)
    (connect,) = line.connects
    error = PermissionError()
    line.connect_failed(connect, error, transient=False, now=6.0)
    assert (caller.error, line.trouble, line.retry_at) == (error, None, NEVER)


def test_trouble_ends_with_the_last_caller() -> None:
    line = line_of()
    line.warm = True
    caller = waiting(line, 0.0)
    (place,) = line.connects
    line.connect_failed(place, OSError(), transient=True, now=0.0)
    line.tick(0.05)
    assert line.trouble is not None
    line.leave(caller, 0.06)
    line.tick(0.07)
    assert (line.trouble, line.retry_at) == (None, NEVER)


# Care


def test_a_time_to_wake_up_is_given_once_and_an_earlier_one_replaces_it() -> None:
    line = line_of()
    for when in (5.0, 5.0, 6.0, 4.0):
        line.care.wake(when)
    assert done(line, WakeAt) == [WakeAt(5.0), WakeAt(4.0)]


def test_what_is_due_now_is_no_time_to_wake_up() -> None:
    line = line_of()
    line.warm = True
    waiting(line, 0.0)
    line.commands.clear()
    line.care.due = NEVER
    line.care.round(1.0)  # the connect stalls from now on
    assert done(line, WakeAt) == []
    line.retry_at = 2.0
    line.care.round(2.0)
    assert done(line, WakeAt) == []
    line.care.round(1.5)
    assert done(line, WakeAt) == [WakeAt(2.0)]


@pytest.mark.parametrize(("rules", "when"), [({"idle_timeout": 60.0}, [1.05]), ({}, [])])
def test_care_begins_soon_after_the_first_connect(rules: dict[str, Any], when: list[float]) -> None:
    line = line_of(**rules)
    waiting(line, 0.0)
    (connect,) = done(line, Connect)
    line.care.due = NEVER
    line.connected(connect.place, 1.0)
    assert done(line, WakeAt) == [WakeAt(each) for each in when]


SOON = [1.0 + judgements.SHORTEST_ROUND]


@pytest.mark.parametrize(
    ("rules", "state", "when"),
    [
        ({}, "new", []),
        ({}, "warm", []),
        ({}, "waiting", SOON),
        ({"idle_timeout": 60.0}, "new", []),
        ({"idle_timeout": 60.0}, "warm", SOON),
        ({"idle_timeout": 60.0}, "disposed", []),
        ({"idle_timeout": 60.0}, "waiting", SOON),
    ],
)
def test_after_an_interruption_a_round_comes_soon_if_there_is_anything_to_do(
    rules: dict[str, Any], state: str, when: list[float]
) -> None:
    line = line_of(**rules)
    if state in ("warm", "disposed"):
        line.give_back(lent(line), 0.5)
    if state == "disposed":
        line.dispose(0.5)
    if state == "waiting":
        waiting(line, 0.5)
    line.commands.clear()
    line.care.resume(1.0)
    assert done(line, WakeAt) == [WakeAt(each) for each in when]


def test_what_is_opened_ahead_of_demand_takes_its_turn() -> None:
    line = line_of(size=2, limit=3, min_idle=3)
    places = [lent(line)]
    line.give_back(places[0], 0.0)
    line.care.round(1.0)
    places += [command.place for command in done(line, Connect)]
    assert len(places) == 3
    line.connect_failed(places[2], OSError(), transient=True, now=2.0)
    line.connected(places[1], 2.0)
    assert [line.take(3.0), line.take(3.0)] == places[:2]


def test_nothing_is_refilled_while_nothing_is_missing() -> None:
    line = line_of(min_idle=1)
    place = lent(line)
    line.give_back(place, 0.0)
    line.care.round(1.0)
    assert done(line, Connect) == []
    assert line.take(1.0) is place
    line.care.round(1.0)  # and at once when it is
    assert len(done(line, Connect)) == 1


def test_a_pause_of_refilling_wakes_nobody_while_nothing_is_missing() -> None:
    line = line_of(min_idle=1)
    line.give_back(lent(line), 0.0)
    line.care._refill_at = 3.0
    line.care.due = NEVER
    line.care.round(1.0)
    assert done(line, WakeAt) == [WakeAt(11.0)]
    line.take(1.0)
    line.care.round(1.0)
    assert done(line, WakeAt) == [WakeAt(3.0)]


# Load shedding


def test_a_queue_in_which_all_wait_too_long_drops_the_first() -> None:
    line = line_of(size=1, limit=1, queue_target=0.5)
    place = lent(line)
    callers = [waiting(line, now) for now in (0.0, 0.1, 9.0)]
    line.tick(0.5)
    assert line.shedding is not None
    assert line.shedding.standing(99.0) == 0.0
    line.care.due = NEVER
    line.commands.clear()
    line.tick(0.6)
    assert done(line, WakeAt) == [WakeAt(pytest.approx(5.601))]
    assert line.shedding.standing(5.6) == 5.0
    line.tick(5.5)
    assert callers[0].error is None
    line.tick(5.6)
    assert [caller.error for caller in callers] == [Refusal.SHED, Refusal.SHED, None]
    assert (line.counters.refused, line.counters.unserved) == (2, 2)
    line.give_back(place, 9.1)
    assert callers[2].place is place
    assert line.shedding.standing(99.0) == 0.0


def test_a_connection_that_comes_back_is_not_for_those_who_have_waited_too_long() -> None:
    line = line_of(size=1, limit=1, queue_target=0.5)
    place = lent(line)
    callers = [waiting(line, now) for now in (0.0, 5.0)]
    line.tick(0.6)
    line.give_back(place, 5.6)
    assert [(caller.place, caller.error) for caller in callers] == [(None, Refusal.SHED), (place, None)]


def test_callers_that_wait_for_the_first_connection_have_not_waited_for_each_other() -> None:
    line = line_of(size=2, limit=2, queue_target=0.5)
    line.warm = True
    waiting(line, 0.0)
    (place,) = line.connects
    assert line.shedding is not None
    line.shedding.stands(0.6, 0.6)
    line.connected(place, 1.0)
    assert line.shedding.standing(9.0) == 8.0


def test_callers_of_whom_some_wait_for_a_connect_are_not_shed() -> None:
    line = line_of(size=2, limit=2, queue_target=0.5)
    lent(line)
    waiting(line, 0.0)
    waiting(line, 0.0)
    line.tick(20.0)
    assert line.shedding is not None
    assert line.shedding.standing(99.0) == 0.0


def test_a_queue_that_was_empty_has_not_stood() -> None:
    line = line_of(size=1, limit=1, queue_target=0.5)
    place = lent(line)
    first = waiting(line, 0.0)
    line.tick(1.0)
    line.leave(first, 2.0)
    assert line.shedding is not None
    assert line.shedding.standing(9.0) == 8.0
    line.commands.clear()
    line.care.due = NEVER
    waiting(line, 9.0)
    assert line.shedding.standing(9.0) == 0.0
    assert done(line, WakeAt) == [WakeAt(pytest.approx(9.501))]
    line.tick(9.5)
    assert line.shedding.standing(99.0) == 0.0
    line.tick(9.6)
    assert line.shedding.standing(99.6) == 90.0
    line.give_back(place, 9.7)


# Another process, or another loop


def test_what_is_forgotten_leaves_a_line_as_it_was_made() -> None:
    line = line_of(size=3, limit=3, min_idle=1)
    idle = lent(line)
    used = lent(line)
    line.give_back(idle, 0.0)
    line.take(0.0)
    line.give_back(idle, 0.0)
    caller = waiting(line, 0.0)
    assert caller.place is idle
    line.give_back(idle, 0.0)
    waiting(line, 0.0)
    waiting(line, 0.0)
    line.failures, line.trouble, line.retry_at = 3, OSError(), 5.0
    generation, care = line.generation, line.care
    assert line.forget() == []
    assert not any((line.idle, line.callers, line.commands, line.connects, line.warm))
    assert (line.open, line.failures, line.trouble, line.retry_at) == (0, 0, None, NEVER)
    assert line.care is not care
    assert line.generation == generation + 1
    line.give_back(used, 1.0)
    assert done(line, Close) == [Close(used, "invalidated")]
    line.closed(used, 1.0)
    assert line.open == 0
    new = lent(line, 2.0)
    line.give_back(new, 3.0)
    assert line.forget() == [new]
    assert not line.idle
