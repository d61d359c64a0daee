"""Statements that run away, locks that are not given back, sessions that end: told, bounded, and nothing half done."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from dbconfig import Profile, Registry
from tests.registries import ask
from tests.support.processes import wait_until
from tests.support.servers import Server

SLEEP = {"postgresql": "SELECT pg_sleep(20)", "mariadb": "SELECT SLEEP(20)"}
IDENTIFY = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(20)%' "
    "AND pid <> pg_backend_pid()",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(20)'",
}
SETTINGS = {"statement_timeout": "2s", "lock_timeout": "1s", "idle_in_transaction_timeout": "1s"}


@pytest.fixture
def db(server: Server) -> Iterator[Registry]:
    with Registry.from_profile(Profile(name="limits", url=server.url(), **SETTINGS)) as opened:
        with opened.transaction() as session:
            session.execute(text("CREATE TABLE limits (id int PRIMARY KEY, amount int)"))
            session.execute(text("INSERT INTO limits VALUES (1, 0)"))
        yield opened


def change(session: Session) -> None:
    session.execute(text("UPDATE limits SET amount = amount + 1 WHERE id = 1"))


def test_t03_a_runaway_statement_is_stopped_on_the_server(db: Registry, server: Server) -> None:
    start = time.monotonic()
    with pytest.raises(DBAPIError, match=r"statement timeout|max_statement_time"), db.session() as session:
        session.execute(text(SLEEP[server.kind]))
    took = time.monotonic() - start
    wait_until(lambda: server.sql(RUNNING[server.kind]) == [(0,)], "the end of the statement")
    print(f"\nT03 {server.kind}: {took:.2f} s (statement_timeout 2 s)")
    assert took > 0.5
    assert ask(db, "SELECT 1") == 1


def test_t04_waiting_for_a_lock_is_bounded_and_a_unit_of_work_gets_it_in_the_end(db: Registry, server: Server) -> None:
    held, release = threading.Event(), threading.Event()
    patient = Registry.from_profile(Profile(name="holder", url=server.url()))

    def hold() -> None:
        with patient.transaction() as session:
            change(session)
            held.set()
            release.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    start = time.monotonic()
    with pytest.raises(DBAPIError), db.transaction() as session:
        change(session)
    took = time.monotonic() - start
    threading.Timer(1.5, release.set).start()
    db.run_in_transaction(change, attempts=10)
    holder.join()
    patient.dispose()
    print(f"\nT04 {server.kind}: {took:.2f} s (lock_timeout 1 s)")
    assert took > 0.5
    assert ask(db, "SELECT amount FROM limits") == 2


def test_t05_a_session_that_ended_in_mid_transaction_is_told_and_saves_nothing(db: Registry, server: Server) -> None:

    def lose(session: Session) -> None:
        change(session)
        server.terminate(ask(session, IDENTIFY[server.kind]))
        change(session)

    with pytest.raises(DBAPIError), db.transaction() as session:
        lose(session)
    assert ask(db, "SELECT amount FROM limits") == 0
    with db.transaction() as session:
        change(session)
    assert ask(db, "SELECT amount FROM limits") == 1


def test_a_transaction_that_rests_too_long_lets_go_of_its_locks(db: Registry, server: Server) -> None:
    def rest(session: Session) -> None:
        change(session)
        mine = ask(session, IDENTIFY[server.kind])
        wait_until(lambda: mine not in server.connections(), "the end of the session that rests")
        change(session)

    with pytest.raises(DBAPIError), db.transaction() as session:
        rest(session)
    with db.transaction() as session:
        change(session)
    assert ask(db, "SELECT amount FROM limits") == 1


def test_p13_a_generator_that_is_closed_commits_nothing_and_gives_its_connection_back(db: Registry) -> None:
    def dependency() -> Iterator[Session]:
        with db.transaction() as session:
            yield session

    running = dependency()
    change(next(running))
    running.close()
    assert ask(db, "SELECT amount FROM limits") == 0
    assert db.stats().used == 0


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)  # MariaDB has no SET LOCAL
def test_p14_what_a_session_set_for_its_transaction_is_gone_for_the_next(db: Registry) -> None:
    before = ask(db, "SHOW application_name")
    with db.session() as session:
        session.execute(text("SET LOCAL work_mem = '5MB'"))
        session.execute(text("SET SESSION application_name = 'rolled back'"))
    assert ask(db, "SHOW work_mem") == "4MB"
    assert ask(db, "SHOW application_name") == before


def test_a_commit_is_not_sent_to_a_connection_that_is_known_to_be_dead(db: Registry, server: Server) -> None:
    """Which makes of an uncertain COMMIT a mere repetition."""
    attempts = []

    def work(session: Session) -> None:
        attempts.append(session.info["attempt"])
        change(session)
        if len(attempts) == 1:
            server.terminate(ask(session, IDENTIFY[server.kind]))

    db.run_in_transaction(work)
    assert attempts == [1, 2]
    assert ask(db, "SELECT amount FROM limits") == 1
