"""Errors that end a transaction: which of MySQL's do, and what is kept of one that is raised again later."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg2
import pymysql
import pytest
from sqlalchemy.exc import DBAPIError

from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import JUDGED, UNKNOWN, Fate


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (pymysql.err.OperationalError(1213, "Deadlock found"), True),
        (pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"), True),  # innodb_rollback_on_timeout decides
        (pymysql.err.OperationalError(3572, "NOWAIT is set"), False),
        (pymysql.err.OperationalError(1040, "Too many connections"), False),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), False),
        (pymysql.err.InterfaceError("no number"), False),
    ],
    ids=str,
)
def test_only_some_errors_of_mysql_may_end_the_transaction(error: Exception, ends: bool) -> None:
    assert errors.may_roll_back(error, "mysql") is ends


class Strange(Exception):
    """Its constructor differs from its `args`."""

    def __init__(self, *, number: int) -> None:
        super().__init__(number, "words")


def test_a_copy_means_the_same_and_says_what_has_happened() -> None:
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorname, locked.sqlite_errorcode = "SQLITE_BUSY", sqlite3.SQLITE_BUSY
    originals: list[tuple[Any, str]] = [
        (pymysql.err.OperationalError(1213, "Deadlock found"), "mysql"),
        (locked, "sqlite"),
        (Strange(number=1205), "mysql"),
    ]
    for error, backend in originals:
        try:
            raise error
        except Exception:
            copy = errors.like(error, backend)
        assert type(copy) is type(error)
        assert copy is not error
        assert copy.args == error.args
        assert copy.__traceback__ is None
        assert copy.__notes__ == ["dbconfig: this error ended the transaction; none of its work can be committed."]
        assert getattr(copy, JUDGED).fate is Fate.CONFLICT
        for name in ("sqlite_errorname", "sqlite_errorcode"):
            assert getattr(copy, name, None) == getattr(error, name, None)


def test_a_copy_of_what_no_table_knows_is_known_as_that() -> None:
    assert getattr(errors.like(psycopg2.InternalError("?"), "postgresql"), JUDGED) is UNKNOWN
    judged = psycopg2.InternalError("?")
    known = errors.of_statement(pymysql.err.OperationalError(1213, "Deadlock found"))
    setattr(judged, JUDGED, known)  # by who had asked the server
    assert getattr(errors.like(judged, "postgresql"), JUDGED) is known


@pytest.mark.parametrize("noted_on", ["the driver's error", "SQLAlchemy's around it"])
def test_what_was_found_out_about_an_error_decides_whether_the_work_is_retried(noted_on: str) -> None:
    """psycopg2's errors take no SQLSTATE: without what is noted, the copy of a conflict says nothing."""
    original = psycopg2.InternalError("?")
    error = DBAPIError("UPDATE account SET balance = 0", {}, original)
    assert errors.fate_of(error) is Fate.FINAL
    known = errors.of_statement(pymysql.err.OperationalError(1213, "Deadlock found"))
    setattr(original if noted_on == "the driver's error" else error, JUDGED, known)
    assert errors.fate_of(error) is Fate.CONFLICT
