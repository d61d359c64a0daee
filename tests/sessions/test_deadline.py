"""`db.deadline`: one budget for waiting, connecting, statements, COMMIT and attempts; in threads and in tasks alike."""

from __future__ import annotations

import asyncio
import inspect
import math
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dbconfig import CommitUncertain, DeadlineExceeded, Profile, Registry
from dbconfig.engine.dialects.mysql.driver import MySQLDriver
from dbconfig.engine.dialects.postgresql.driver import PostgreSQLDriver
from dbconfig.engine.pool.cancelling import Canceller
from tests.registries import ask
from tests.support.drivers import DRIVERS, SERVED, of
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.worlds import LONG, RUNNING, World, worlds


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(request.param, request, tmp_path)
    yield made
    made.end()


everywhere = worlds(DRIVERS)
served = worlds(SERVED)
one_of_each = worlds(of(""))


@everywhere
def test_a_slow_statement_ends_and_is_gone_from_the_server(world: World) -> None:
    db = world.open()
    world.do(db)
    error = world.fails(db, 0.3, world.forever)
    assert isinstance(error, TimeoutError)
    assert str(error).startswith("the deadline of 0.3 s was exceeded while a statement was executed: ")
    assert isinstance(error.__cause__, Exception)
    assert error.spent["executing statements"] > 0.2
    if world.server is not None:
        beside = Registry.from_profile(Profile(name="beside", url=_sync_url(world)))
        with beside:  # a session for each look: PostgreSQL keeps what it has shown until the transaction ends
            wait_until(lambda: world.turn() and ask(beside, RUNNING[world.kind]) == 0, "the statement is gone")
    assert world.do(db) == 1


def _sync_url(world: World) -> str:
    return str(world.server.url({"postgresql": "postgresql+psycopg2", "mariadb": "mysql+pymysql"}[world.kind]))


@served
def test_a_connection_that_was_shut_is_not_used_again_whatever_the_server_said_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (PostgreSQLDriver, MySQLDriver):
        monkeypatch.setattr(kind, "was_cancelled", lambda self, error: True)
    monkeypatch.setattr(Canceller, "ask", lambda self, request: None)
    db = world.open()
    world.do(db)
    world.fails(db, 0.3, world.forever)
    assert world.do(db) == 1


@everywhere
def test_who_waits_for_a_connection_in_vain_leaves(world: World) -> None:
    db = world.open()

    def hold(session: Any) -> None:
        session("SELECT 1")
        in_use = db.stats()
        assert (in_use.used, in_use.waiting) == (1, 0)
        if world.runner is None:
            error = world.fails(db, 0.2)
        else:
            from sqlalchemy.util import await_only

            error = await_only(_fails(db, 0.2))
        assert "waiting for a connection: QueuePool limit of size 1 overflow 0 reached" in str(error)
        assert isinstance(error.__cause__, PoolTimeout)
        assert any(note.startswith("dbconfig[pool-timeout]") for note in error.__notes__)
        assert db.stats().waiting == 0

    world.run(hold, db)
    assert world.do(db) == 1


async def _fails(db: Registry, seconds: float) -> DeadlineExceeded:
    with pytest.raises(DeadlineExceeded) as caught, db.deadline(seconds):
        async with db.async_session() as session:
            await session.scalar(text("SELECT 1"))
    return caught.value


@served
def test_a_server_that_has_fallen_silent_holds_nobody_up(world: World, proxy: Callable[[Any], Proxy]) -> None:
    network = proxy(world.server)
    db = world.open(network, pool_pre_ping=False)
    world.do(db)
    network.swallow()
    error = world.fails(db, 0.3)
    assert "a statement was executed" in str(error)
    network.pass_through()
    network.cut()
    assert world.do(db) == 1


@served
def test_a_server_that_is_silent_from_the_beginning_holds_nobody_up(
    world: World, proxy: Callable[[Any], Proxy]
) -> None:
    network = proxy(world.server)
    network.mute_accept()
    db = world.open(network, connect_timeout=LONG)
    error = world.fails(db, 0.3)
    assert "waiting for a connection" in str(error)


@served
def test_a_connect_that_was_begun_for_somebody_who_left_serves_the_next(
    world: World, proxy: Callable[[Any], Proxy]
) -> None:
    network = proxy(world.server)
    network.delay(0.1)
    db = world.open(network)
    world.fails(db, 0.15)
    assert world.do(db) == 1
    assert world.created(db) == 1


@served
def test_a_replica_that_does_not_answer_in_time_is_no_reason_to_wait_for_another_one(
    world: World, proxy: Callable[[Any], Proxy]
) -> None:
    first, second = proxy(world.server), proxy(world.server)
    first.mute_accept()
    second.mute_accept()
    replicas = [{"port": first.port}, {"port": second.port}]
    db = world.open(replicas=replicas, replica_max_lag=False, connect_timeout=LONG)
    world.fails(db, 0.3, read_only=True)
    assert first.accepted + second.accepted <= 1


@everywhere
def test_of_nested_deadlines_the_nearest_counts(world: World) -> None:
    db = world.open()
    world.do(db)
    with db.deadline(LONG):
        assert "deadline of 0.2 s" in str(world.fails(db, 0.2, world.forever))
    with db.deadline(0.2):
        error = world.fails(db, LONG, world.forever)
        assert "deadline of 0.2 s" in str(error)
        assert error.seconds == 0.2
    assert world.do(db) == 1


@everywhere
def test_a_deadline_that_is_over_sends_nothing_and_costs_no_connection(world: World) -> None:
    db = world.open()
    world.do(db)
    for seconds in (0, -1.0):
        error = world.fails(db, seconds)
        assert "about to be executed" in str(error) or "waiting for a connection" in str(error)
    assert world.do(db) == 1
    assert world.created(db) == 1


@everywhere
def test_a_commit_that_comes_too_late_is_not_sent(world: World) -> None:
    db = world.open()
    world.run(lambda session: session("CREATE TABLE late (id INTEGER PRIMARY KEY)"), db, transaction=True)

    def work(session: Any) -> None:
        session("INSERT INTO late VALUES (1)")
        with db.deadline(0):
            session.session.commit()

    with pytest.raises(DeadlineExceeded, match="COMMIT was about to be sent"):
        world.run(work, db)
    assert world.do(db, "SELECT count(*) FROM late") == 0


@served
def test_a_commit_without_an_answer_is_uncertain(world: World, proxy: Callable[[Any], Proxy]) -> None:
    network = proxy(world.server)
    db = world.open(network)
    world.run(lambda session: session("CREATE TABLE doubt (id INTEGER PRIMARY KEY)"), db, transaction=True)

    def work(session: Any) -> None:
        session("INSERT INTO doubt VALUES (1)")
        network.swallow()

    with pytest.raises(CommitUncertain) as caught, db.deadline(1.0):
        world.run(work, db, transaction=True)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    network.pass_through()
    network.cut()


@served
def test_the_attempts_of_a_unit_of_work_end_with_it(world: World) -> None:
    db = world.open(port=free_port())
    attempts = []

    def work(session: Any) -> Any:
        attempts.append(session)
        return session.execute(text("SELECT 1"))

    async def async_work(session: Any) -> Any:
        attempts.append(session)
        return await session.scalar(text("SELECT 1"))

    def run() -> Any:
        if world.runner is None:
            return db.run_in_transaction(work, timeout=LONG)
        return world.loop(db.async_run_in_transaction(async_work, timeout=LONG))

    for seconds in (0.4, 1.6, 6.4):  # on a busy machine the first attempt may take all the time
        attempts.clear()
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught, db.deadline(seconds):
            run()
        assert time.monotonic() - began < LONG / 2
        if len(attempts) > 1:
            break
    assert len(attempts) > 1
    # Mostly because no further pause fits; or in one of the connects, of which each is a moment.
    again = "a unit of work was about to be retried" in str(caught.value)
    assert again or "waiting for a connection" in str(caught.value)
    assert caught.value.spent["pausing before another attempt"] > 0
    assert not again or isinstance(caught.value.__cause__, DBAPIError)


@one_of_each
def test_on_sqlite_the_reading_of_rows_and_the_wait_for_a_lock_end_too(world: World) -> None:
    db = world.open(lock_timeout=LONG)
    world.run(lambda session: session("CREATE TABLE hero (id INTEGER PRIMARY KEY)"), db, transaction=True)
    with closing(sqlite3.connect(world.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert isinstance(world.fails(db, 0.3, "INSERT INTO hero VALUES (1)").__cause__, Exception)
        other.execute("ROLLBACK")
    slow_rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c WHERE x % 1000000 = 1"

    def read(session: Any) -> None:
        session.session.execute(text(slow_rows)).all()

    with pytest.raises(DeadlineExceeded), db.deadline(0.3):
        world.run(read, db)
    assert world.do(db, "PRAGMA busy_timeout") == LONG * 1000


@one_of_each
def test_on_sqlite_nothing_is_left_of_a_deadline_when_its_block_has_ended(world: World) -> None:
    db = world.open(lock_timeout=7)

    def work(session: Any) -> Any:
        with db.deadline(0.2):
            session("SELECT 1")
        time.sleep(0.3)
        session(
            "SELECT count(*) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100000) "
            "SELECT x FROM c)"
        )
        return session("PRAGMA busy_timeout")

    assert world.run(work, db) == 7000


@one_of_each
def test_on_sqlite_a_statement_timeout_acts_beside_a_deadline(world: World) -> None:
    db = world.open(statement_timeout=0.2)
    with pytest.raises(OperationalError), db.deadline(LONG):
        world.do(db, world.forever)
    with pytest.raises(OperationalError):
        world.do(db, world.forever)


def test_it_goes_along_into_tasks_and_threads_and_not_out_of_them(tmp_path: Path) -> None:
    db = Registry.from_profile(Profile(name="tests", url=f"sqlite:///{tmp_path}/a.db"))

    def late() -> bool:
        try:
            with db.session() as session:
                session.execute(text("SELECT 1"))
        except DeadlineExceeded:
            return True
        return False

    async def main() -> None:
        async def inside() -> bool:
            return await asyncio.to_thread(late)

        with db.deadline(0):
            assert late()
            assert await asyncio.create_task(inside())
            found: list[bool] = []
            thread = threading.Thread(target=lambda: found.append(late()))  # which copies no context
            thread.start()
            thread.join()
            assert found == [False]
        assert not late()

        async def within() -> None:
            with db.deadline(0):
                await asyncio.sleep(0)

        task = asyncio.create_task(within())
        await asyncio.sleep(0)
        assert not late()
        await task

    with db:
        asyncio.run(main())


def test_the_error_says_what_the_time_was_spent_on(tmp_path: Path) -> None:
    with Registry.from_profile(Profile(name="tests", url=f"sqlite:///{tmp_path}/a.db")) as db:

        def work() -> None:
            with db.deadline(0.3) as deadline, db.session() as session:
                for _ in range(3):
                    session.execute(text("SELECT 1"))
                time.sleep(0.4)
                assert deadline.remaining() == 0
                session.execute(text("SELECT 1"))

        with pytest.raises(DeadlineExceeded) as caught:
            work()
        error = caught.value
        assert error.spent["elsewhere in the application"] > error.spent["executing statements"] > 0
        assert "s executing statements (3 times)" in str(error)
        assert error.__notes__ == ["dbconfig[deadline-exceeded]: see `dbconfig explain deadline-exceeded`"]
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.seconds, again.spent) == (str(error), error.seconds, error.spent)


def test_who_stands_around_a_statement_may_name_its_arguments(tmp_path: Path) -> None:
    settings: Any = {"url": f"sqlite:///{tmp_path}/a.db", "slow_statement": 60, "query_tags": ["application"]}
    with Registry.from_profile(Profile(name="tests", **settings)) as db:
        dialect: Any = db.engine().dialect
        with closing(db.engine().raw_connection()) as connection:
            cursor = connection.cursor()
            for each in (db.deadline(60), nullcontext()):
                with each:
                    dialect.do_execute(cursor, "SELECT ?", parameters=(1,), context=None)
                    assert cursor.fetchall() == [(1,)]
                    dialect.do_execute_no_params(cursor, statement="SELECT 2", context=None)
                    assert cursor.fetchall() == [(2,)]


@pytest.mark.parametrize("seconds", [math.nan, "2", True, None])
def test_a_deadline_that_is_no_number_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="a deadline must be a number of seconds"):
        Registry().deadline(seconds)


def test_nothing_looks_for_a_deadline_before_there_is_one() -> None:
    program = """
        from sqlalchemy import text
        from dbconfig import Profile, Registry
        db = Registry.from_profile(Profile(name="tests", url="sqlite://"))
        def limited(db): return "within" in db.engine().dialect.do_execute.__qualname__
        with db.session() as session: session.execute(text("SELECT 1"))
        print(limited(db))
        with db.deadline(1): print(limited(db))
        other = Registry.from_profile(Profile(name="tests", url="sqlite://"))
        print(limited(other))
    """
    result = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(program)], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.split() == ["False", "True", "True"]
