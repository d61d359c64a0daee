"""What is the same on SQLite in memory, a SQLite file, PostgreSQL and MariaDB."""

import multiprocessing
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlmodel import Session, select

from dbconfig import Registry
from tests.databases.conftest import SHARED, Place
from tests.registries import Account, Hero, Team, ask, at_once, names
from tests.support import mysql

# Sessions


def test_an_error_of_the_commit_itself_rolls_back_and_leaves_the_pool_whole(db: Registry) -> None:
    for _ in range(20):
        with pytest.raises(IntegrityError), db.transaction() as session:
            session.add_all([Account(id=1, balance=1), Hero(name="Deadpond", team_id=77)])
    assert names(db) == []
    assert db.engine().pool.checkedout() == 0


def test_a_released_savepoint_goes_with_its_transaction(db: Registry) -> None:
    with pytest.raises(LookupError), db.transaction() as session:  # noqa: PT012
        session.begin_nested()
        session.add(Hero(name="released"))
        session.get_nested_transaction().commit()
        raise LookupError
    assert names(db) == []


def test_a_generator_dependency_closes_its_session_whatever_happens(db: Registry) -> None:
    def get_session() -> Iterator[Session]:
        with db.session() as session:
            yield session

    for leave in ("close", "throw"):
        dependency = get_session()
        session = next(dependency)
        session.add(Hero(name="never committed"))
        session.flush()
        assert db.engine().pool.checkedout() == 1
        if leave == "close":
            dependency.close()
        else:
            with pytest.raises(LookupError):
                dependency.throw(LookupError())
        assert db.engine().pool.checkedout() == 0
    assert names(db) == []


def test_a_session_is_sqlmodels_own_and_two_calls_give_two(db: Registry) -> None:
    with db.session() as one, db.session() as other:
        assert type(one) is Session
        assert one is not other


def test_autocommit_writes_at_once(place: Place) -> None:
    db = place.open(isolation_level="AUTOCOMMIT")
    assert db.create_tables(Hero, Team) == ["engine_team", "engine_hero"]
    with db.session() as session:
        session.add(Hero(name="at once"))
        session.flush()
        assert names(db) == ["at once"]
    with pytest.raises(LookupError), db.transaction() as session:  # noqa: PT012
        session.add(Hero(name="too"))
        session.flush()
        raise LookupError
    assert names(db) == ["at once", "too"]


def test_the_isolation_level_of_one_connection_is_not_that_of_the_next(db: Registry) -> None:
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO engine_account (id, balance) VALUES (1, 1)"))
    with db.session() as session:
        session.execute(text("INSERT INTO engine_account (id, balance) VALUES (2, 1)"))
    with db.session() as session:
        assert session.exec(select(Account.id)).all() == [1]


# Tables


def test_one_table_is_created_alone_and_once(place: Place) -> None:
    db = place.open()
    assert db.create_tables(Team) == ["engine_team"]
    assert db.create_tables(Team) == []
    with pytest.raises(DBAPIError):
        names(db)
    assert db.create_tables(Hero, Team) == ["engine_hero"]
    assert names(db) == []


def test_tables_are_created_and_dropped_in_the_order_of_their_foreign_keys(place: Place) -> None:
    db = place.open()
    assert db.create_tables(Hero, Team) == ["engine_team", "engine_hero"]
    with db.transaction() as session:
        session.add(Team(id=1, name="Preventers"))
        session.flush()
        session.add(Hero(name="Deadpond", team_id=1))
    assert db.drop_tables(Team, Hero) == ["engine_hero", "engine_team"]
    assert db.drop_tables(Team, Hero) == []


@pytest.mark.parametrize("place", SHARED, indirect=True)
@pytest.mark.parametrize("level", [None, "SERIALIZABLE", "AUTOCOMMIT"])
def test_eight_processes_create_the_tables_at_once(place: Place, level: str | None) -> None:
    """And each of them finds the tables there afterwards, one process having created each table."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    start = context.Barrier(8)
    settings = {} if level is None else {"isolation_level": level}
    if not place.sqlite:
        settings["lock_timeout"] = settings["statement_timeout"] = "1s"

    def work() -> None:
        try:
            db = place.open(**settings)
            start.wait(60)
            results.put((db.create_tables(Hero, Team, Account), names(db)))
        except BaseException as error:
            results.put(repr(error))

    processes = [context.Process(target=work) for _ in range(8)]
    for process in processes:
        process.start()
    answers = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert [answer for answer in answers if isinstance(answer, str)] == []
    created = [name for answer, _ in answers for name in answer]
    assert sorted(created) == ["engine_account", "engine_hero", "engine_team"]


# Engines and their life


def test_after_dispose_the_next_use_begins_anew(place: Place) -> None:
    db = place.open()
    first = db.engine()
    with db.session() as session:
        session.execute(text("SELECT 1"))
    db.dispose()
    assert first.pool.checkedin() == 0
    assert ask(db, "SELECT 1") == 1
    # Somebody has kept the engine: it stays the registry's, so that statistics, drains, and forks know its pool.
    assert (db.engine() is first) == (place.kind != "memory")


def test_what_is_under_way_survives_a_dispose(db: Registry) -> None:
    with db.transaction() as session:
        session.add(Hero(name="under way"))
        session.flush()
        engine = db.engine()
        engine.dispose()
        session.add(Hero(name="and on"))
    with Session(engine) as session:
        assert sorted(session.exec(select(Hero.name))) == ["and on", "under way"]


def test_a_registry_closes_its_connections_at_the_end_of_a_with_block(place: Place) -> None:
    closed = []
    with place.open() as db:
        event.listen(db.engine(), "close", lambda *_: closed.append(1))
        ask(db, "SELECT 1")
        assert closed == []
    assert closed == [1]


def test_threads_share_one_engine_and_its_data(db: Registry) -> None:
    def write(number: int) -> None:
        with db.transaction() as session:
            session.add(Hero(name=str(number)))

    at_once([lambda number=number: write(number) for number in range(12)])
    assert sorted(map(int, names(db))) == list(range(12))


# Timeouts and session variables

VARIABLES = {
    "memory": ({"cache_size": 77}, {"PRAGMA cache_size": 77, "PRAGMA busy_timeout": 1500, "PRAGMA foreign_keys": 1}),
    "file": ({"cache_size": 77}, {"PRAGMA cache_size": 77, "PRAGMA busy_timeout": 1500, "PRAGMA journal_mode": "wal"}),
    "postgresql": (
        {"work_mem": "77kB", "application_name": 'it\'s "a\\b"\t$x'},
        {
            "SHOW work_mem": "77kB",
            # PostgreSQL's way with a tab in this one: "?", and since 16 its code
            "SELECT replace(current_setting('application_name'), '\\x09', '?')": 'it\'s "a\\b"?$x',
            "SHOW statement_timeout": "2500ms",
            "SHOW lock_timeout": "1500ms",
        },
    ),
    "mariadb": (
        {"sort_buffer_size": 65536, "default_storage_engine": "MyISAM", "foreign_key_checks": False},
        {
            "SELECT @@sort_buffer_size": 65536,
            "SELECT @@default_storage_engine": "MyISAM",
            "SELECT @@foreign_key_checks": 0,
            **({"SELECT @@max_execution_time": 2500} if mysql.wanted() else {"SELECT @@max_statement_time": 2.5}),
            "SELECT @@innodb_lock_wait_timeout": 2,
            "SELECT @@lock_wait_timeout": 2,
        },
    ),
}


def test_variables_and_timeouts_are_in_force_on_every_connection_and_after_a_rollback(place: Place) -> None:
    variables, expected = VARIABLES[place.kind]
    db = place.open(variables=variables, statement_timeout="2500ms", lock_timeout=1.5)
    sessions = [db.session() for _ in range(3)]
    for session in sessions:
        for again in (False, True):
            found = {question: ask(session, question) for question in expected}
            assert found == expected, f"{'after a rollback' if again else 'at first'}"
            session.rollback()
    assert db.engine().pool.checkedout() == 0
    for session in sessions:
        session.close()
    db.engine().dispose()  # and on those of a new pool
    assert {question: ask(db, question) for question in expected} == expected


ENDLESS = {
    "memory": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "file": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(30)",
    "mariadb": "SELECT SLEEP(30) FROM information_schema.tables",
}


def test_a_statement_that_takes_too_long_is_ended_and_the_connection_goes_on(place: Place) -> None:
    db = (
        place.open(statement_timeout="200ms", pool_size=1)
        if place.kind != "memory"
        else place.open(statement_timeout=0.2)
    )
    with pytest.raises(OperationalError, match=r"interrupted|statement timeout|max_statement_time"):
        ask(db, ENDLESS[place.kind])
    assert ask(db, "SELECT 1") == 1


def test_who_waits_too_long_for_a_lock_is_told(place: Place) -> None:
    db = place.open(lock_timeout="300ms")
    db.create_tables(Account)
    with db.transaction() as session:
        session.add(Account(id=1, balance=1))
    update = text("UPDATE engine_account SET balance = balance + 1")
    with db.transaction() as session:
        session.execute(update)
        with pytest.raises(OperationalError, match=r"database is locked|lock timeout|Lock wait timeout"):
            at_once([lambda: _update(db, update)])
    assert ask(db, "SELECT balance FROM engine_account") == 2


def _update(db: Registry, statement: object) -> None:
    with db.transaction() as session:
        session.execute(statement)  # type: ignore[call-overload]


# Settings of the engine


@pytest.mark.parametrize("poolclass", ["NullPool", "StaticPool", "SingletonThreadPool", "AssertionPool", "QueuePool"])
def test_every_pool_class_works(place: Place, poolclass: str) -> None:
    db = place.open(poolclass=poolclass)
    assert type(db.engine().pool).__name__ == poolclass
    db.create_tables(Account)
    with db.transaction() as session:
        session.add(Account(id=1, balance=7))
    assert ask(db, "SELECT balance FROM engine_account") == 7


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_a_ping_replaces_a_connection_that_died_while_it_rested(place: Place) -> None:
    db = place.open(pool_pre_ping=True)
    with db.engine().connect() as connection:
        driver_connection = connection.connection.driver_connection
    driver_connection.close()
    assert ask(db, "SELECT 1") == 1


def test_threads_that_ask_first_at_once_get_one_engine_and_one_pool(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy

    made = []
    create = sqlalchemy.create_engine
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda *args, **kwargs: made.append(1) or create(*args, **kwargs))
    db = place.open()
    start = threading.Barrier(64)

    def first() -> tuple[int, int]:
        start.wait(60)
        engine = db.engine()
        return id(engine), id(engine.pool)

    assert len(set(at_once([first] * 64))) == 1
    assert made == [1]
