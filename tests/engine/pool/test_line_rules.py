"""Single rules of the waiting line, told to the state machine event by event."""

from __future__ import annotations

import pytest

from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import Caller, Close, Connect, Ping, Place, Rules
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
