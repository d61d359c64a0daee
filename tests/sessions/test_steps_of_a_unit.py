"""The steps of a unit of work, one by one: when it is tried again, what the deadline says, which mark is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError

from dbconfig import Profile, Registry
from dbconfig.engine.commit_guard import Mark
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.sessions import retry
from dbconfig.sessions.session import _BEGUN, begun


class Limit:
    """A deadline with so many seconds left."""

    def __init__(self, left: float) -> None:
        self.left = left
        self.spent: list[tuple[str, float]] = []

    def remaining(self) -> float:
        return self.left

    def spend(self, what: str, seconds: float) -> None:
        self.spent.append((what, seconds))

    def exceeded(self, during: str) -> TimeoutError:
        return TimeoutError(during)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a unit that fails once, whose pause and deadline are given: its steps, and its outcome."""

    def run(pause: float | None, limit: Limit | None) -> tuple[list[Any], Any]:
        outcomes = [retry._Failed(OSError("away"), Fate.LOST), retry._Done("result")]

        def attempt(session: Any) -> Any:
            yield from ()
            return outcomes.pop(0)

        monkeypatch.setattr(retry, "_attempt", attempt)
        monkeypatch.setattr(retry.deadline, "current", lambda: limit)
        attempts: Any = SimpleNamespace(number=1, pause_after=lambda error, fate: pause)
        unit: Any = SimpleNamespace()
        made = retry._unit(lambda: SimpleNamespace(info={}), attempts, unit)
        found: list[Any] = []
        try:
            while True:
                found.append(next(made))
        except StopIteration as end:
            assert unit.alive is False
            return found, end.value

    return run


def test_a_unit_that_is_not_retried_ends_with_its_error(steps: Any) -> None:
    found, outcome = steps(None, None)
    assert found == []
    assert str(outcome.error) == "away"


@pytest.mark.parametrize("limit", [None, Limit(1.01)])
def test_a_unit_pauses_before_it_is_tried_again(steps: Any, limit: Limit | None) -> None:
    found, outcome = steps(1.0, limit)
    assert found == [retry._Pause(1.0)]
    assert outcome == retry._Done("result")
    assert limit is None or limit.spent == [(retry.deadline.PAUSING, 1.0)]


@pytest.mark.parametrize("left", [1.0, 0.5])
def test_no_pause_outlasts_the_deadline(steps: Any, left: float) -> None:
    limit = Limit(left)
    found, outcome = steps(1.0, limit)
    assert found == limit.spent == []
    assert (type(outcome.error), outcome.fate) == (TimeoutError, Fate.FINAL)
    assert str(outcome.error) == f"a unit of work was about to be retried after {Fate.LOST.value}"
    assert str(outcome.error.__cause__) == "away"


@pytest.mark.parametrize(
    ("caught", "sent", "fate"),
    [(Fate.LOST, False, Fate.LOST), (Fate.LOST, True, Fate.FINAL), (Fate.FINAL, False, Fate.FINAL)],
)
def test_a_session_that_requires_a_rollback_is_judged_by_the_error_before(
    caught: Fate, sent: bool, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = Mark("shop", allowed=True)
    mark.caught, mark.sent = caught, sent
    monkeypatch.setattr(retry, "begun", lambda session: [(None, mark)])
    monkeypatch.setattr(retry, "is_gone", lambda connection, mark: False)
    session: Any = SimpleNamespace()
    assert retry._fate(PendingRollbackError("roll back first"), session) is fate
    monkeypatch.setattr(retry, "begun", lambda session: [])
    assert retry._fate(PendingRollbackError("roll back first"), session) is Fate.FINAL


def test_a_unit_notes_the_connections_of_its_transaction_and_their_commit() -> None:
    with Registry.from_profile(Profile(name="steps", url="sqlite://")) as db:
        marks: list[Mark] = []

        def work(session: Any) -> None:
            assert begun(session) == []
            session.execute(text("CREATE TABLE a (b)"))
            with session.begin_nested():
                session.execute(text("INSERT INTO a VALUES (1)"))
            ((_, mark),) = begun(session)  # a savepoint is within it
            assert not mark.committed
            marks.append(mark)

        db.run_in_transaction(work)
        assert [mark.committed for mark in marks] == [True]


@pytest.mark.parametrize("end", [None, ValueError("by the work"), GeneratorExit()])
def test_the_connection_of_a_unit_that_has_ended_is_no_longer_guarded(
    end: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be shared with other sessions, in tests; a GeneratorExit is an interrupt between two steps."""
    mark, undone = Mark("shop", allowed=False), list[str]()
    mark.undo = lambda: undone.append("the driver's connection is as it was")
    monkeypatch.setattr(retry, "is_gone", lambda connection, mark: False)
    session: Any = SimpleNamespace(info={_BEGUN: [(None, mark)]})
    steps = retry._attempt(session)
    assert isinstance(next(steps), retry._Work)
    with pytest.raises(InvalidRequestError, match="commits when its function returns"):
        mark.refuse()
    if end is None:
        assert isinstance(steps.send("result"), retry._Call)
        assert steps.send(None) == retry._Close(session)
    elif isinstance(end, GeneratorExit):
        steps.close()
    else:
        assert steps.throw(end) == retry._Close(session)
    mark.refuse()
    assert undone == ["the driver's connection is as it was"]
    steps.close()
