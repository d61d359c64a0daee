"""Which connections to PostgreSQL were given up in the middle of a statement, so that the server has to end it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig.engine.dialects.postgresql import interrupted_statements
from dbconfig.engine.pool.deadline import DeadlineExceeded


class Error(Exception):
    """The driver's."""


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {"asked": []}
    own = SimpleNamespace(awaits_answer=lambda connection: connection.waits)
    monkeypatch.setattr(interrupted_statements.driver, "of", lambda dialect: own)
    monkeypatch.setattr(interrupted_statements.births, "attach", lambda engine: None)
    monkeypatch.setattr(interrupted_statements.event, "listen", lambda engine, name, work: found.update({name: work}))
    monkeypatch.setattr(
        interrupted_statements, "Canceller", lambda engine: SimpleNamespace(abandon=found["asked"].append)
    )
    return found


@pytest.mark.parametrize(
    ("error", "state", "asked"),
    [
        (KeyboardInterrupt(), {"waits": True}, True),
        (TimeoutError("a job's limit, by a signal handler"), {"waits": True}, True),
        (KeyboardInterrupt(), {"closed": True}, True),  # psycopg: the second one while it waits for the confirmation
        (KeyboardInterrupt(), {}, False),  # the server has confirmed it
        (KeyboardInterrupt(), {"is_async": True}, True),
        (KeyboardInterrupt(), {"is_async": True, "executing": False}, False),  # as while it connects
        (KeyboardInterrupt(), {"is_async": True, "given_up": False}, False),
        (KeyboardInterrupt(), {"is_async": True, "connection": None}, False),
        (KeyboardInterrupt(), {"is_async": True, "invalidated": True}, False),
        (Error("server closed the connection"), {"is_async": True, "waits": True}, False),
        (DeadlineExceeded("which asks itself"), {"is_async": True, "waits": True}, False),
    ],
)
def test_a_connection_is_ended_that_was_given_up_in_the_middle_of_a_statement(
    events: dict[str, Any], error: BaseException, state: dict[str, Any], asked: bool
) -> None:
    dialect = SimpleNamespace(is_async=state.get("is_async", False), loaded_dbapi=SimpleNamespace(Error=Error))
    engine: Any = SimpleNamespace(dialect=dialect)
    interrupted_statements.attach(engine)
    pooled = SimpleNamespace(waits=state.get("waits", False), closed=state.get("closed", False))
    record = SimpleNamespace(info={}, driver_connection="under")
    connection = SimpleNamespace(closed=False, invalidated=state.get("invalidated", False), connection=record)
    context = SimpleNamespace(
        original_exception=error,
        execution_context=object() if state.get("executing", True) else None,
        connection=state.get("connection", connection),
    )
    events["handle_error"](context)
    if state.get("given_up", True):
        for _ in range(2):
            events["invalidate"](pooled, record, error)
    assert events["asked"] == (["under"] if asked else [])
