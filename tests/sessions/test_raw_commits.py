"""What ends a unit's transaction past its session: the driver's own ways are refused, the others are noticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError
from sqlalchemy.util import await_only
from sqlmodel import Session

from dbconfig import CommitUncertain
from tests.sessions.conftest import Units, units_of
from tests.sessions.test_applied_once import awaited, in_opposite_order, raw
from tests.support.drivers import BY_NAME, of

INSERT = text("INSERT INTO t (x) VALUES (1)")
ROWS = "SELECT x FROM t"


@pytest.fixture(params=[*BY_NAME, "psycopg2 with fast_begin", "sqlite in memory"])
def driven(request: pytest.FixtureRequest) -> Units:
    """Each driver in turn, and what it is called by."""
    name = request.param.partition(" with ")[0]
    if name == "sqlite in memory":
        return Units("sqlite", False, "sqlite://", "")
    found = units_of(name, request)
    found.sql("CREATE TABLE t (x INT)")
    if name != request.param:
        found.settings = {"fast_begin": True}
    return found


def saved(units: Units) -> list[tuple[Any, ...]]:
    return units.sql(ROWS) if units.direct else []


def inserted(units: Units, session: Session) -> None:
    if not units.direct:
        session.execute(text("CREATE TABLE IF NOT EXISTS t (x INT)"))
    session.execute(INSERT)


def cursor_of_the_driver(session: Session, statement: Any) -> None:
    driver = raw(session)
    if hasattr(driver, "fetchrow"):  # asyncpg has no cursors of this kind
        awaited(driver.execute(statement))
        return
    cursor = awaited(driver.cursor())
    awaited(cursor.execute(statement))


def adapted(session: Session) -> Any:
    return session.connection().connection.dbapi_connection


def by_connection(session: Session, statement: str) -> None:
    driver = raw(session)
    way = next((getattr(driver, name) for name in ("execute", "query") if hasattr(driver, name)), None)
    if way is None:
        pytest.skip("its connections take no statement")
    awaited(way(statement))


REFUSED: dict[str, Callable[[Session], Any]] = {
    "COMMIT by a cursor": lambda session: cursor_of_the_driver(session, "COMMIT"),
    "ROLLBACK by a cursor": lambda session: cursor_of_the_driver(session, " /* so */ rollback"),
    "COMMIT by the connection": lambda session: by_connection(session, "COMMIT"),
    "COMMIT by SQLAlchemy's cursor": lambda session: adapted(session).cursor().execute("COMMIT"),
    "commit of SQLAlchemy's connection": lambda session: adapted(session).commit(),
    "rollback of SQLAlchemy's connection": lambda session: adapted(session).rollback(),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_the_drivers_own_connection_ends_a_unit_by_is_refused(driven: Units, how: str) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        inserted(driven, session)
        REFUSED[how](session)

    with pytest.raises(InvalidRequestError, match="commits when its function returns"):
        driven.run(work)
    assert calls == [1]
    assert saved(driven) == []


@pytest.mark.parametrize("how", REFUSED)
def test_a_unit_whose_function_catches_the_refusal_is_saved_whole(driven: Units, how: str) -> None:
    def work(session: Session) -> Any:
        inserted(driven, session)
        with pytest.raises(InvalidRequestError):
            REFUSED[how](session)
        session.execute(INSERT)
        return [*map(tuple, session.execute(text(ROWS)))]

    assert driven.run(work) == [(1,), (1,)]
    assert saved(driven) == ([(1,), (1,)] if driven.direct else [])


@pytest.mark.parametrize("how", REFUSED)
def test_an_end_before_the_first_statement_costs_the_unit_nothing(driven: Units, how: str) -> None:
    """In memory the transaction of SQLite is still due then, and asyncpg's has not begun, so that nothing is ended."""

    def work(session: Session) -> None:
        session.connection()
        with suppress(InvalidRequestError):
            REFUSED[how](session)
        inserted(driven, session)

    driven.run(work)
    assert saved(driven) == ([(1,)] if driven.direct else [])


def test_the_drivers_cursors_are_its_own_after_a_unit(driven: Units) -> None:
    """They serve a unit only while it lasts, since the next user of the connection may commit as it likes."""
    if not driven.direct or driven.asynchronous:
        pytest.skip("the connection of the unit is to be used again")
    kinds: list[type] = []

    def look(session: Session) -> None:
        inserted(driven, session)
        kinds.append(type(raw(session).cursor()))

    with driven.open(pool_size=1) as db:
        with db.session() as session:
            look(session)
            session.rollback()
        db.run_in_transaction(look)
        with db.session() as session:
            look(session)
            raw(session).cursor().execute("COMMIT")
    assert kinds[0] is kinds[2]
    assert saved(driven) == [(1,), (1,)]


def by_libpq(session: Session) -> None:
    driver = raw(session)
    if hasattr(driver, "pgconn"):
        driver.pgconn.exec_(b"COMMIT")
    else:
        from psycopg2 import extensions

        extensions.cursor(driver).execute("COMMIT")


def by_protocol(session: Session) -> None:
    await_only(raw(session)._protocol.query("COMMIT", 10))


def by_packets(session: Session) -> None:
    driver = raw(session)
    awaited(driver._execute_command(3, "COMMIT"))
    awaited(driver._read_query_result())


def by_a_plain_cursor(session: Session) -> None:
    driver = raw(session)
    if isinstance(driver, sqlite3.Connection):
        sqlite3.Cursor(driver).execute("COMMIT")
    else:
        await_only(driver._execute(lambda: sqlite3.Cursor(driver._conn).execute("COMMIT")))


def past_us(units: Units, session: Session) -> None:
    """Commit by what the driver does not show, or not to us."""
    ways = {"sqlite": by_a_plain_cursor, "mariadb": by_packets}
    way = by_protocol if "asyncpg" in units.url else ways.get(units.system, by_libpq)
    way(session)


@pytest.mark.parametrize("goes_on", [False, True], ids=["at its end", "in its midst"])
def test_a_commit_that_nobody_can_refuse_is_noticed_before_the_units_own(driven: Units, goes_on: bool) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        inserted(driven, session)
        past_us(driven, session)
        if goes_on and driven.system != "sqlite":  # which would begin no transaction: what follows is saved at once
            session.execute(INSERT)

    with pytest.raises(CommitUncertain, match="ended outside its session") as raised:
        driven.run(work)
    assert raised.value.unknown == ("units",) or not driven.direct
    assert calls == [1]


def test_a_unit_that_was_committed_past_its_session_is_not_repeated(driven: Units) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        inserted(driven, session)
        past_us(driven, session)
        raise OperationalError("UPDATE", None, pymysql.err.OperationalError(1213, "Deadlock found"))

    with pytest.raises(OperationalError, match="Deadlock found") as raised:
        driven.run(work)
    assert calls == [1]
    assert "not retried" in raised.value.__notes__[-1]


@pytest.mark.parametrize("reads", [False, True], ids=["nothing", "a read"])
def test_a_unit_of_nothing_but_reads_is_none_that_was_ended(driven: Units, reads: bool) -> None:
    def work(session: Session) -> Any:
        session.connection()
        return session.scalar(text("SELECT 1")) if reads else 1

    assert driven.run(work) == 1


@pytest.fixture(params=[each.name for each in of("mariadb")])
def procedures(request: pytest.FixtureRequest) -> Units:
    found = units_of(request.param, request)
    found.sql("CREATE TABLE t (x INT) ENGINE=InnoDB")
    found.sql("CREATE PROCEDURE goes_back() BEGIN ROLLBACK; END")
    found.sql("CREATE PROCEDURE own() BEGIN START TRANSACTION; INSERT INTO t VALUES (7); COMMIT; END")
    found.sql("CREATE PROCEDURE harmless() BEGIN INSERT INTO t VALUES (2); END")
    return found


@pytest.mark.parametrize("name", ["goes_back", "own"])
def test_a_procedure_that_ends_the_units_transaction_is_noticed(procedures: Units, name: str) -> None:
    """A handler of errors that rolls back, for instance: the unit was reported as saved without its first half."""
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        session.execute(text(f"CALL {name}()"))
        session.execute(INSERT)

    with pytest.raises(CommitUncertain, match="ended outside its session"):
        procedures.run(work)
    assert calls == [1]


def test_a_procedure_that_writes_is_part_of_the_unit(procedures: Units) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        session.execute(text("CALL harmless()"))

    procedures.run(work)
    assert sorted(procedures.sql(ROWS)) == [(1,), (2,)]


def test_a_statement_that_commits_by_the_way_makes_a_unit_that_is_not_repeated(procedures: Units) -> None:
    """ANALYZE TABLE and similar statements show only in the server's status."""
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        session.execute(text("ANALYZE TABLE t"))
        raise OperationalError("UPDATE", None, pymysql.err.OperationalError(1213, "Deadlock found"))

    with pytest.raises(OperationalError, match="Deadlock found"):
        procedures.run(work)
    assert calls == [1]
    assert procedures.sql(ROWS) == [(1,)]


# The session's own ends


def by_block(session: Session) -> None:
    with session:
        session.execute(INSERT)


CLOSED: dict[str, Callable[[Session], Any]] = {
    "close": lambda session: session.close(),
    "reset": lambda session: session.reset(),
    "invalidate": lambda session: session.invalidate(),
    "a block": by_block,
}


@pytest.mark.parametrize("how", CLOSED)
def test_a_unit_whose_function_closes_its_session_is_not_reported_as_saved(units: Units, how: str) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        CLOSED[how](session)
        session.execute(INSERT)

    with pytest.raises(InvalidRequestError, match="closed the session"):
        units.run(work)
    assert calls == [1]
    assert units.sql(ROWS) == []


def test_an_error_that_ends_a_block_of_the_session_runs_the_unit_again(units: Units) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        with session:
            session.execute(INSERT)
            if len(calls) == 1:
                raise OperationalError("UPDATE", None, pymysql.err.OperationalError(1213, "Deadlock found"))
            session.flush()

    with pytest.raises(InvalidRequestError, match="closed the session"):  # by the second one, which has no error
        units.run(work)
    assert calls == [1, 1]


# Errors of statements that SQLAlchemy does not see


def fail(session: Session, statement: str) -> None:
    with pytest.raises(Exception, match=r"."):
        cursor_of_the_driver(session, statement)


@pytest.mark.parametrize("way", ["run", "transaction", "session"])
@pytest.mark.parametrize("how", ["its own", "SQLAlchemy's"])
def test_an_error_of_a_cursor_that_is_caught_is_not_reported_as_saved(
    postgresql_units: Units, way: str, how: str
) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        if how == "its own":
            fail(session, "SELECT 1/0")
        else:
            with pytest.raises(Exception, match="division by zero"):
                adapted(session).cursor().execute("SELECT 1/0")

    with pytest.raises(DBAPIError):
        getattr(postgresql_units, way)(work)
    assert postgresql_units.sql(ROWS) == []


def test_a_deadlock_that_a_cursor_meets_and_the_work_catches_is_run_again(mariadb_units: Units) -> None:
    def second(session: Session, row: int) -> None:
        for _ in range(2):  # the second time in what is a new transaction without the first half
            try:
                cursor_of_the_driver(session, f"UPDATE t SET x = x + 1 WHERE id = {row}")
            except Exception:
                continue
            return

    in_opposite_order(mariadb_units, second)


def test_a_rollback_by_a_conflict_that_a_cursor_of_sqlite_hides_is_noticed(sqlite_units: Units) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        fail(session, "INSERT OR ROLLBACK INTO t VALUES (1)")

    with pytest.raises(CommitUncertain, match="ended outside its session"):
        sqlite_units.run(work)
    assert sqlite_units.sql(ROWS) == []
