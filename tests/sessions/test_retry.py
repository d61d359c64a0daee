"""Which errors are tried again, how often and after which pauses."""

import logging
import random
import sqlite3
from itertools import islice, pairwise
from types import SimpleNamespace

import psycopg2
import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import fate_of
from dbconfig.engine.pool.chance import chance
from dbconfig.sessions import retry
from dbconfig.sessions.retry import LONGEST_PAUSE, Attempts, pauses


class ErrorWithState(psycopg2.OperationalError):
    """An error as psycopg2 raises it for a statement: its SQLSTATE cannot be set on the original class."""

    pgcode = "40001"


def wrapped(cause: Exception, *, statement: str | None = "SELECT 1", lost: bool = False) -> DBAPIError:
    return OperationalError(statement, None, cause, connection_invalidated=lost)


def error_with_state(number: int, state: str) -> pymysql.err.OperationalError:
    """An error as PyMySQL 1.2 makes it: with the number and the SQLSTATE."""
    error = pymysql.err.OperationalError(number, "Lock wait timeout exceeded")
    error.sqlstate = state
    return error


def busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorname = "SQLITE_BUSY_SNAPSHOT"
    return error


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (wrapped(ErrorWithState("could not serialize access")), Fate.CONFLICT),
        (wrapped(pymysql.err.OperationalError(1213, "Deadlock found")), Fate.CONFLICT),
        (wrapped(pymysql.err.OperationalError(1205, "Lock wait timeout exceeded")), Fate.CONFLICT),
        (wrapped(error_with_state(1205, "HY000")), Fate.CONFLICT),
        (wrapped(busy()), Fate.CONFLICT),
        (wrapped(pymysql.err.OperationalError(2013, "Lost connection"), lost=True), Fate.LOST),
        (wrapped(psycopg2.OperationalError("server closed the connection unexpectedly"), lost=True), Fate.LOST),
        (wrapped(psycopg2.OperationalError("Connection refused"), statement=None), Fate.ABSENT),
        # a balancer that has no server accepts, and closes
        (wrapped(psycopg2.OperationalError("server closed the connection unexpectedly"), statement=None), Fate.ABSENT),
        (wrapped(pymysql.err.OperationalError(2013, "Lost connection"), statement=None), Fate.ABSENT),
        (wrapped(psycopg2.OperationalError("FATAL: the database system is starting up"), statement=None), Fate.ABSENT),
        (wrapped(psycopg2.OperationalError("password authentication failed"), statement=None), Fate.FINAL),
        (wrapped(pymysql.err.OperationalError(1045, "Access denied"), statement=None), Fate.FINAL),
        (wrapped(pymysql.err.OperationalError(2003, "Can't connect"), statement=None), Fate.ABSENT),
        (wrapped(psycopg2.errors.UniqueViolation("duplicate key")), Fate.FINAL),
        (ValueError("the application's own"), Fate.FINAL),
    ],
)
def test_an_error_says_whether_the_work_may_run_again(error: Exception, fate: Fate) -> None:
    assert fate_of(error) is fate


def test_pauses_double_up_to_a_limit_and_are_never_equal() -> None:
    found = list(islice(pauses(0.1, LONGEST_PAUSE), 10))
    assert all(0.05 <= pause <= LONGEST_PAUSE for pause in found)
    assert found[-1] >= LONGEST_PAUSE / 2
    assert list(islice(pauses(0.1, LONGEST_PAUSE), 10)) != found


def test_workers_that_seed_their_random_numbers_alike_pause_differently() -> None:
    drawn = []
    for _ in range(4):
        random.seed(0)
        before = random.getstate()
        drawn.append(next(pauses(1.0)))
        assert random.getstate() == before  # an application that has seeded it gets the numbers it expects
    assert len(set(drawn)) == 4


def test_the_first_pause_is_short_and_the_longest_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr(chance, "uniform", lambda low, high: drawn.append((low, high)) or 1.0)
    found = list(islice(pauses(), 8))
    assert found == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0])
    assert all(later <= 2 * earlier for earlier, later in pairwise(found))
    assert drawn == [(0.5, 1.0)] * 8


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time at which attempts are counted; each pause is as long as it can be."""
    time = [1000.0]
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: time[0]))
    monkeypatch.setattr(chance, "uniform", lambda low, high: high)
    return time


def test_a_pause_may_end_at_the_deadline_and_no_later(now: list[float]) -> None:
    attempts = Attempts(None, 1.0, "shop/default")
    attempts._pauses = iter([0.25, 0.5])
    now[0] = 1000.75
    assert attempts.pause_after(ValueError(), Fate.LOST) == 0.25
    assert attempts.pause_after(ValueError(), Fate.LOST) is None


def test_each_attempt_is_counted_told_and_logged(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dbconfig.retry")
    attempts = Attempts(3, 30.0, "shop/default")
    told: list[str] = []
    attempts.told += [told.append, told.append]
    numbers = [attempts.number]
    for fate in (Fate.CONFLICT, Fate.ABSENT, Fate.LOST):
        attempts.pause_after(ValueError(), fate)
        numbers.append(attempts.number)
    assert numbers == [1, 2, 2, 3]  # an unreachable server does not count as an attempt
    assert told == ["conflict", "conflict", "absent", "absent", "lost", "lost"]
    conflict, absent, lost = (vars(record) for record in caplog.records)
    assert conflict["message"] == f"shop/default: attempt 1: {Fate.CONFLICT.value}; retrying in 0.020 s"
    assert [record["attempt"] for record in (conflict, absent, lost)] == [1, 2, 2]
    assert [record["seconds"] for record in (conflict, absent, lost)] == [0.02, 0.04, 0.08]
    assert [record["reason"] for record in (conflict, absent, lost)] == ["conflict", "absent", "lost"]
    assert {(record["levelname"], record["pool"]) for record in (conflict, absent, lost)} == {("INFO", "shop")}
    assert attempts.pause_after(ValueError(), Fate.CONFLICT) is None
    assert (len(told), attempts.number) == (6, 3)  # without a further attempt


def test_one_attempt_is_enough(now: list[float]) -> None:
    assert Attempts(1, 30.0, "shop/default").pause_after(ValueError(), Fate.CONFLICT) is None


def test_attempts_end_at_their_number() -> None:
    error = wrapped(ErrorWithState("conflict"))
    attempts = Attempts(2, 30.0, "shop/default")
    assert attempts.pause_after(error, Fate.CONFLICT)
    assert attempts.pause_after(error, Fate.CONFLICT) is None
    assert error.__notes__ == ["dbconfig: gave up after attempt 2 of 2: conflict"]


def test_without_a_number_the_deadline_alone_ends_the_attempts() -> None:
    error = wrapped(ErrorWithState("conflict"))
    attempts = Attempts(None, 3600.0, "shop/default")
    assert all(attempts.pause_after(error, Fate.CONFLICT) for _ in range(100))
    assert Attempts(None, 0.0, "shop/default").pause_after(error, Fate.CONFLICT) is None
    assert error.__notes__ == ["dbconfig: gave up after attempt 1, 0 s after the first: conflict"]


def test_waiting_for_a_server_is_no_attempt_but_ends_with_the_time() -> None:
    error = wrapped(psycopg2.OperationalError("Connection refused"), statement=None)
    patient = Attempts(1, 30.0, "shop/default")
    assert all(patient.pause_after(error, Fate.ABSENT) for _ in range(20))
    assert Attempts(1, 0.0, "shop/default").pause_after(error, Fate.ABSENT) is None


@pytest.mark.parametrize("fate", [Fate.FINAL, Fate.UNCERTAIN])
def test_what_is_final_or_unknown_is_not_tried_again(fate: Fate) -> None:
    assert Attempts(3, 30.0, "shop/default").pause_after(ValueError(), fate) is None


def test_fewer_than_one_attempt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Attempts(0, 30.0, "shop/default")


def test_a_mysql_error_that_has_an_sqlstate_too_is_known_by_its_number() -> None:
    class Error(Exception):
        sqlstate = "HY000"

    assert fate_of(OperationalError("UPDATE", None, Error(1205, "Lock wait timeout exceeded"))) is Fate.CONFLICT
