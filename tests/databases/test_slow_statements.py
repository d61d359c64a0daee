"""Slow statements are logged with their facts and without their values, with every driver, sync and async."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine import slow_statements
from dbconfig.engine.pool import TaskPool
from dbconfig.engine.pool.line import Line
from tests.engine.pool.support import eventually
from tests.sessions.conftest import Units
from tests.sessions.conftest import units as units

ALWAYS = 1e-9  # seconds; every statement takes longer
SECRET = "planted-3c9b"


def slow(caplog: pytest.LogCaptureFixture, words: str = "slow statement:") -> list[Any]:
    return [each for each in caplog.records if each.name == "dbconfig.slow" and words in each.getMessage()]


def insert(session: Session) -> None:
    session.execute(text("INSERT INTO t VALUES (:x)"), {"x": 7})
    session.execute(text(f"SELECT x FROM t WHERE x = 7 AND '{SECRET}' <> ''"))


def test_a_slow_statement_is_logged_with_its_facts(units: Units, caplog: pytest.LogCaptureFixture) -> None:
    units.run(insert, units.open(slow_statement=ALWAYS))
    (record,) = [each for each in slow(caplog) if "INSERT" in each.statement]
    assert record.levelno == logging.WARNING
    assert record.profile == "units"
    assert record.database == "default"
    assert record.rows == 1
    assert record.seconds > 0
    assert record.error is None
    assert record.statement.startswith("INSERT INTO t VALUES (")
    assert "tests/databases/test_slow_statements.py:" in record.place
    assert record.place.endswith("in insert")
    assert record.place in record.getMessage()
    assert SECRET not in caplog.text
    assert "7" not in record.statement


def test_what_is_fast_is_not_logged(units: Units, caplog: pytest.LogCaptureFixture) -> None:
    units.run(insert, units.open(slow_statement="1h", slow_statement_plan=True))
    assert slow(caplog, "") == []


def test_a_slow_statement_that_fails_is_logged_with_the_kind_of_error(
    units: Units, caplog: pytest.LogCaptureFixture
) -> None:
    def work(session: Session) -> None:
        session.execute(text("SELECT 1 FROM nowhere"))

    with pytest.raises(DBAPIError):
        units.run(work, units.open(slow_statement=ALWAYS))
    (record,) = [each for each in slow(caplog) if "nowhere" in each.statement]
    assert record.error
    assert record.rows is None


def test_the_plan_of_a_slow_statement_is_logged_without_its_values(
    units: Units, caplog: pytest.LogCaptureFixture
) -> None:
    db = units.open(slow_statement=ALWAYS, slow_statement_plan=True)

    def work(session: Session) -> None:
        session.execute(text("SELECT x FROM t WHERE x < :x AND :secret <> ''"), {"x": 4711, "secret": SECRET})

    def both(session: Session) -> Any:
        work(session)
        return session.connection().engine

    if units.asynchronous:

        async def within() -> None:
            async with db.async_session() as session:
                await session.run_sync(both)
                while not slow(caplog, "plan of"):  # in a task of its own
                    await asyncio.sleep(0.01)
            await db.async_dispose()

        asyncio.run(asyncio.wait_for(within(), 60))
    else:
        with db, db.session() as session:
            both(session)
            assert eventually(lambda: bool(slow(caplog, "plan of")))
    (record,) = slow(caplog, "plan of")
    assert record.plan
    assert " t" in record.plan or "=t" in record.plan
    assert SECRET not in record.getMessage()
    assert "4711" not in record.getMessage()


def test_a_statement_is_explained_at_most_once_a_minute(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = Profile(name="slow", url=f"sqlite:///{tmp_path}/a.db", slow_statement=ALWAYS, slow_statement_plan=True)

    def plans() -> int:
        explained()
        return len(slow(caplog, "plan of"))

    with Registry.from_profile(profile) as db, db.engine().connect() as connection:
        for number in range(5):
            connection.execute(text(f"SELECT {number} AS a"))
            assert plans() == 1
        connection.execute(text("SELECT 1 AS b"))
        assert plans() == 2
        monkeypatch.setattr(slow_statements, "PLAN_PAUSE", 0.0)
        connection.execute(text("SELECT 1 AS b"))
        assert plans() == 3


def explained() -> None:
    """Wait until no plan is being asked for."""
    for each in threading.enumerate():
        if each.name == "dbconfig-explain":
            each.join(30)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize("isolation", [None, "AUTOCOMMIT"])
def test_a_text_of_several_statements_is_not_explained(
    postgresql: Any, driver: str, isolation: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """EXPLAIN would be of the first alone, and the others would run once more."""
    pytest.importorskip(driver)
    postgresql.sql("CREATE TABLE IF NOT EXISTS twice (x int)")
    postgresql.sql("DELETE FROM twice")
    settings: dict[str, Any] = {} if isolation is None else {"isolation_level": isolation}
    profile = Profile(
        name="slow",
        url=postgresql.url(f"postgresql+{driver}"),
        slow_statement=ALWAYS,
        slow_statement_plan=True,
        **settings,
    )
    several = "SELECT 1; INSERT INTO twice VALUES (1); COMMIT"
    long = f"SELECT {'1 + ' * 3000} 1; INSERT INTO twice VALUES (1); COMMIT"
    with Registry.from_profile(profile) as db, db.engine().connect() as connection:
        for statement in (several, long):
            connection.exec_driver_sql(statement)
            explained()
        connection.exec_driver_sql("SELECT x FROM twice;")
        explained()
    assert postgresql.sql("SELECT count(*) FROM twice") == [(2,)]
    (record,) = slow(caplog, "plan of")
    assert "twice" in record.plan


def test_what_a_system_quotes_in_its_own_way_is_the_same_statement(
    mariadb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    profile = Profile(name="slow", url=mariadb.url(), slow_statement=ALWAYS, slow_statement_plan=True)
    with Registry.from_profile(profile) as db, db.engine().connect() as connection:
        for number in range(4):
            connection.exec_driver_sql(f'SELECT 1 FROM information_schema.engines WHERE engine <> "no {number}"')
            explained()
    assert len(slow(caplog, "plan of")) == 1


def test_a_plan_that_was_cancelled_before_it_began_is_not_waited_for(
    units: Units, caplog: pytest.LogCaptureFixture
) -> None:
    if not units.asynchronous:
        pytest.skip("a thread is not cancelled")
    db = units.open(slow_statement=ALWAYS, slow_statement_plan=True)

    def ask(session: Session) -> None:
        before = asyncio.all_tasks()
        session.execute(text("SELECT x FROM t"))
        (plan,) = asyncio.all_tasks() - before
        plan.cancel()

    async def main() -> None:
        async with db.async_session() as session:
            await session.run_sync(ask)
            while not slow(caplog, "plan of"):
                await session.scalar(text("SELECT x + 1 FROM t"))
                await asyncio.sleep(0.01)
        await db.async_dispose()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_the_connection_of_a_plan_that_is_cancelled_as_it_arrives_is_closed(
    units: Units, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As at the end of an event loop: the connect has succeeded, and who waits for it has not gone on."""
    if not units.asynchronous:
        pytest.skip("a thread is not cancelled")
    db = units.open(slow_statement=ALWAYS, slow_statement_plan=True)
    pools: list[Any] = []

    async def main() -> None:
        async with db.async_session() as session:
            await session.connection()
            arrived, before = Line.connected, asyncio.all_tasks()

            def cancel(line: Line, *arguments: Any) -> None:
                arrived(line, *arguments)
                for task in asyncio.all_tasks() - {*before, asyncio.current_task()}:
                    task.cancel()

            monkeypatch.setattr(Line, "connected", cancel)
            recreate = TaskPool.recreate
            monkeypatch.setattr(TaskPool, "recreate", lambda pool: pools.append(recreate(pool)) or pools[-1])
            await session.scalar(text("SELECT x FROM t"))
            ended = await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
            assert any(isinstance(each, asyncio.CancelledError) for each in ended)
            assert [pool.open for pool in pools] == [0]
            monkeypatch.undo()
        await db.async_dispose()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_plan_that_is_asked_for_when_its_loop_ends_leaves_no_connection(units: Units) -> None:
    """Wherever the end finds it: asyncio cancels it, and waits for no task that begins then."""
    if not units.asynchronous:
        pytest.skip("a thread is not cancelled")

    async def main(db: Registry, steps: int) -> None:
        async with db.async_session() as session:
            await session.scalar(text(f"SELECT x + {steps} FROM t"))
            for _ in range(steps):
                await asyncio.sleep(0)

    with (
        units.open(slow_statement=ALWAYS, slow_statement_plan=True) as db,
        warnings.catch_warnings(record=True) as seen,
    ):
        warnings.simplefilter("always")
        for steps in range(0, 120, 2):
            asyncio.run(main(db, steps))
            gc.collect()
    assert [str(each.message) for each in seen if "unclosed" in str(each.message).lower()] == []


def test_the_log_is_limited_and_says_what_it_left_out(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    profile = Profile(name="slow", url=f"sqlite:///{tmp_path}/a.db", slow_statement=ALWAYS)
    now = [time.monotonic()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow_statements, "monotonic", lambda: now[0])
        with Registry.from_profile(profile) as db, db.engine().connect() as connection:
            for _ in range(50):
                connection.execute(text("SELECT 1"))
            assert len(slow(caplog)) <= slow_statements.BURST + 1
            written = len(slow(caplog))
            now[0] += 10 * slow_statements.PAUSE
            connection.execute(text("SELECT 1"))
    records = slow(caplog)
    assert len(records) == written + 1
    assert records[-1].suppressed > 0
    assert f"({records[-1].suppressed} more were not logged)" in records[-1].getMessage()


def test_without_a_limit_nothing_is_attached(tmp_path: Any) -> None:
    def attached(**settings: Any) -> list[str]:
        with Registry.from_profile(Profile(name="slow", url=f"sqlite:///{tmp_path}/a.db", **settings)) as db:
            engine: Any = db.engine()
            assert not engine.dispatch.before_cursor_execute  # which would cost ten times as much
            calls = (engine.dialect.do_execute, engine.dialect.do_execute_no_params, engine.dialect.do_executemany)
            return [module for each in calls for module in _modules(each)]

    assert slow_statements.__name__ not in attached()
    assert slow_statements.__name__ not in attached(slow_statement=False)
    assert attached(slow_statement="1s").count(slow_statements.__name__) == 3


def _modules(function: Any) -> list[str]:
    """Return where a function comes from, and those that it calls in turn."""
    cells = [each.cell_contents for each in function.__closure__ or ()]
    within = [each for each in cells if callable(each) and getattr(each, "__name__", "").startswith("do_")]
    return [function.__module__, *(module for each in within for module in _modules(each))]


def test_a_plan_without_a_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="`slow_statement_plan` has no effect without `slow_statement`"):
        Profile(name="slow", url="sqlite://", slow_statement_plan=True)
