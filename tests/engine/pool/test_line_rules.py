"""Single rules of the waiting line, told to the state machine event by event."""

from __future__ import annotations

from typing import Any

import pytest

from dbconfig.engine.pool import judgements
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import Caller, Close, Connect, Ping, Place, Rules, WakeAt
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.tally import Counters


def connections(line: Line, count: int, now: float = 0.0) -> list[Place]:
    """Let so many callers come at once; return the connections that they get."""
    callers = [Caller(now + 30, now) for _ in range(count)]
    for caller in callers:
        line.ask(caller, now)
    while any(isinstance(command, Connect) for command in line.commands):
        commands, line.commands[:] = list(line.commands), []
        for command in commands:
            if isinstance(command, Connect):
                line.connected(command.place, now)
    line.commands.clear()
    return [caller.place for caller in callers if caller.place is not None]


@pytest.mark.parametrize("lifo", [False, True])
def test_surplus_connections_time_out_though_they_are_kept_alive_and_others_are_used(lifo: bool) -> None:
    line = Line(Rules(size=1, limit=6, lifo=lifo, connects_at_once=6, idle_timeout=600, keepalive=120), Counters())
    for place in connections(line, 6):
        line.give_back(place, 0.0)
    assert len(line.idle) == 6
    closed = []
    for now in range(1, 900, 20):
        used = line.take(now)
        assert used is not None
        line.give_back(used, now)
        for _ in range(6):
            line.care.round(now)
            commands, line.commands[:] = list(line.commands), []
            for command in commands:
                if isinstance(command, Ping):
                    line.checked(command.place, alive=True, now=now)
                elif isinstance(command, Close):
                    closed.append(command.reason)
                    line.closed(command.place, now)
    assert closed == ["idle"] * 5
    assert len(line.idle) == 1


def test_a_connection_that_was_in_use_in_another_process_or_loop_does_not_count_when_it_comes_back() -> None:
    line = Line(Rules(size=2, limit=2), Counters())
    whole, gone = connections(line, 2)
    line.forget()
    assert line.open == 0
    line.give_back(whole, 1.0)
    line.lost(gone, 1.0)
    for command in line.commands:
        if isinstance(command, Close):
            line.closed(command.place, 1.0)
    assert (line.open, len(line.idle)) == (0, 0)
    line.commands.clear()
    assert len(connections(line, 2, 2.0)) == 2
    assert line.open == 2


# Care


def tended(**rules: Any) -> Line:
    """Return a line that has connected once, whose timer has not been set."""
    line = Line(Rules(limit=6, **rules), Counters())
    for place in connections(line, 1):
        line.give_back(place, 0.0)
    line.care.due = NEVER
    return line


def wakes(line: Line) -> list[float]:
    found = [command.when for command in line.commands if isinstance(command, WakeAt)]
    line.commands.clear()
    return found


@pytest.mark.parametrize(
    ("rules", "wanted"), [({}, False), ({"min_idle": 1}, True), ({"idle_timeout": 60}, True), ({"keepalive": 60}, True)]
)
def test_a_line_without_anything_to_care_for_is_not_woken(rules: dict[str, Any], wanted: bool) -> None:
    line = tended(**rules)
    line.care.begin(5.0)
    assert wakes(line) == [5.0 + judgements.SHORTEST_ROUND] * wanted
    line.care.round(6.0)
    assert bool(wakes(line)) is wanted
    line.dispose(7.0)
    line.commands.clear()
    line.care.round(8.0)
    assert line.commands == []


@pytest.mark.parametrize(
    ("rules", "due"),
    [
        ({"idle_timeout": 4}, 4.0),
        ({"idle_timeout": 4, "min_idle": 1}, 5.0),  # it is one to be kept: in a round of its own length
        ({"keepalive": 3}, 3.0),
        ({"keepalive": 300}, 1 + judgements.LONGEST_ROUND),
        ({"idle_timeout": 0.5}, 1 + judgements.SHORTEST_ROUND),
    ],
)
def test_the_next_round_is_when_something_is_due(rules: dict[str, Any], due: float) -> None:
    line = tended(**rules)
    line.care.round(1.0) if due != 1 + judgements.SHORTEST_ROUND else line.care.wake(line.care._next(1.0), 1.0)
    assert wakes(line) == [due]


def test_a_quiet_connection_is_asked_when_it_was_last_heard_that_long_ago() -> None:
    line = tended(keepalive=60)
    (place,) = line.idle
    line.care.round(59.9)
    assert not [command for command in line.commands if isinstance(command, Ping)]
    line.care.round(60.0)
    assert [command.place for command in line.commands if isinstance(command, Ping)] == [place]
    assert not line.idle
    line.checked(place, alive=True, now=61.0)
    line.commands.clear()
    line.care.round(120.9)  # since it was asked
    assert not [command for command in line.commands if isinstance(command, Ping)]
    line.care.round(121.0)
    assert [command.place for command in line.commands if isinstance(command, Ping)] == [place]


def test_what_is_missing_is_opened_and_ever_less_often_where_that_fails() -> None:
    line = tended(min_idle=4, connects_at_once=2)
    line.care.round(1.0)
    opened = [command.place for command in line.commands if isinstance(command, Connect)]
    assert len(opened) == 2  # as many as may be under way at once
    line.care.round(1.0)
    assert line.connecting == 2
    error = ConnectionRefusedError()
    pauses = []
    for _ in range(12):
        now = line.care._refill_at
        for place in list(line.connects):
            line.connect_failed(place, error, transient=True, now=now)
        line.failures = len(pauses)
        line.care.round(now - 0.001)
        assert line.connecting == 0
        line.care.round(now)
        assert line.connecting == 2
        pauses.append(line.care._refill_at - now)
    assert pauses[:3] == pytest.approx([0.05, 0.1, 0.2])
    assert pauses[-1] == judgements.LONGEST_REFILL_PAUSE
    assert pauses == sorted(pauses)


def test_one_that_is_asked_is_not_missing() -> None:
    line = tended(min_idle=2, keepalive=60.0, idle_timeout=600.0)
    for place in connections(line, 2):
        line.give_back(place, 0.0)
    line.commands.clear()
    line.care.round(60.0)
    (place,) = [command.place for command in line.commands if isinstance(command, Ping)]
    assert (len(line.idle), line.open) == (1, 2)
    assert not [command for command in line.commands if isinstance(command, Connect)]
    line.commands.clear()
    line.checked(place, alive=False, now=61.0)  # but one that does not answer is
    line.care.round(61.0)
    assert len([command for command in line.commands if isinstance(command, Connect)]) == 1


def test_no_more_are_opened_than_there_are_places() -> None:
    line = Line(Rules(limit=3, min_idle=3, connects_at_once=3), Counters())
    held = connections(line, 2)
    assert len(held) == 2
    line.care._refill_at = 0.0
    line.care.round(1.0)
    assert (line.open, line.connecting) == (3, 1)
    line.commands.clear()
    line.care.round(100.0)
    assert (line.open, line.connecting) == (3, 1)
    assert wakes(line) == [100.0 + judgements.LONGEST_ROUND]  # no place is free
