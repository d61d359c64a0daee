"""Connections for SQLAlchemy Core: `connect` and `begin`, with each driver, in threads and in tasks."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

from dbconfig import Registry
from tests.sessions.conftest import Units, _in_task


def within(units: Units, verb: str, work: Callable[[Connection], Any], db: Registry | None = None, **how: Any) -> Any:
    """Return what a function of a connection of `connect` or `begin` returns."""
    with db or units.open() as opened:
        if not units.asynchronous:
            with getattr(opened, verb)(**how) as connection:
                return work(connection)

        async def run() -> Any:
            async with getattr(opened, f"async_{verb}")(**how) as connection:
                return await connection.run_sync(work)

        return asyncio.run(_in_task(opened, run))


def insert(connection: Connection) -> None:
    connection.execute(text("INSERT INTO t (x) VALUES (1)"))


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM t")).scalar_one())


def test_begin_commits_at_its_end(units: Units) -> None:
    within(units, "begin", insert)
    assert units.sql("SELECT count(*) FROM t") == [(1,)]


def test_begin_rolls_back_on_an_exception(units: Units) -> None:
    def fail(connection: Connection) -> None:
        insert(connection)
        raise LookupError("of the work")

    with pytest.raises(LookupError):
        within(units, "begin", fail)
    assert units.sql("SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_connection_commits_when_the_program_says_so(units: Units, commits: bool) -> None:
    def work(connection: Connection) -> None:
        insert(connection)
        if commits:
            connection.commit()

    within(units, "connect", work)
    assert units.sql("SELECT count(*) FROM t") == [(int(commits),)]


@pytest.mark.parametrize("verb", ["begin", "connect"])
def test_a_read_only_connection_reads_and_refuses_to_write(units: Units, verb: str) -> None:
    units.sql("INSERT INTO t (x) VALUES (5)")
    assert within(units, verb, count, read_only=True) == 1
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        within(units, verb, insert, read_only=True)
    assert units.sql("SELECT count(*) FROM t") == [(1,)]


def test_read_only_begin_shows_one_state_and_connect_shows_each(units: Units) -> None:
    def looks(connection: Connection) -> tuple[int, int]:
        before = count(connection)
        units.sql("INSERT INTO t (x) VALUES (1)")
        return before, count(connection)

    assert within(units, "begin", looks, read_only=True) == (0, 0)
    assert within(units, "connect", looks, read_only=True) == (1, 2)


def test_begin_takes_the_write_lock_of_sqlite(sqlite_units: Units) -> None:
    file = make_url(sqlite_units.direct).database

    def work(connection: Connection) -> None:
        count(connection)  # with a plain BEGIN, another writer could come between this statement and the next
        locked = pytest.raises(sqlite3.OperationalError, match="locked")
        with closing(sqlite3.connect(str(file), timeout=0)) as other, locked:
            other.execute("INSERT INTO t VALUES (7)")
        insert(connection)

    within(sqlite_units, "begin", work)
    assert sqlite_units.sql("SELECT x FROM t") == [(1,)]
