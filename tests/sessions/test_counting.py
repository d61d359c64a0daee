"""Retries and uncertain commits are part of the statistics of the pool whose database they concern."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from dbconfig import Registry
from dbconfig.engine.pool import stats
from dbconfig.sessions.commit import CommitUncertain
from tests.sessions.conftest import Units


class Watched:
    """A registry whose statistics are read before its engine ends with the event loop."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.seen: list[Any] = []

    def run(self, work: Any, db: Registry) -> None:
        def watched(session: Session) -> None:
            work(session)
            self.seen.append(db.stats())

        self.units.run(watched, db)


def conflict(session: Session, system: str) -> None:
    """Let the server report a conflict."""
    if system == "postgresql":
        session.execute(text("DO $$BEGIN RAISE EXCEPTION SQLSTATE '40001'; END$$"))
    elif system == "mariadb":
        session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))
    else:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise OperationalError("SELECT 1", None, error)


def test_each_further_attempt_is_a_retry_with_its_reason(units: Units) -> None:
    db, watched = units.open(), Watched(units)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(text("INSERT INTO t VALUES (1)"))
        if len(calls) < 3:
            conflict(session, units.system)

    watched.run(work, db)
    (found,) = watched.seen
    assert found.retries == {"conflict": 2}
    assert found.uncertain_commits == 0


def test_an_uncertain_commit_is_counted_where_it_was_sent(postgresql_units: Units) -> None:
    units = postgresql_units
    units.sql("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION SQLSTATE '40003'; END$$")
    when = "AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()"
    units.sql(f"CREATE CONSTRAINT TRIGGER c {when}")
    engines: list[Any] = []

    def work(session: Session) -> None:
        engines.append(session.connection().engine)
        session.execute(text("INSERT INTO t VALUES (1)"))

    with pytest.raises(CommitUncertain):
        units.run(work)
    assert stats(engines[0]).uncertain_commits == 1
