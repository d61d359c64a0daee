"""A read-only session stays one, whatever its caller says to the server or to the driver."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlmodel import Session

from dbconfig import Profile, Registry
from dbconfig.engine.writing_statements import Effect, effect
from tests.support.drivers import DRIVERS, Driver, params
from tests.support.mariadb import MariaDBServer
from tests.support.pgbouncer import pgbouncer
from tests.support.postgresql import PostgreSQLServer

INSERT = "INSERT INTO kept VALUES (1)"
REFUSED = r"(?i)read.?only|read-write mode|multiple commands|terminat|in progress"
READ, SNAPSHOT = {"read_only": True}, {"snapshot": True}

POSTGRESQL = [
    ["SET default_transaction_read_only = off", INSERT],
    ["set session default_transaction_read_only to 'off'", INSERT],
    ["SET SESSION CHARACTERISTICS AS TRANSACTION READ /* and */ WRITE", INSERT],
    ["ROLLBACK", "BEGIN READ WRITE", INSERT, "COMMIT"],
    [
        "ROLLBACK",
        "/* a /* nested */ one */ start transaction isolation level serializable, read write",
        INSERT,
        "COMMIT",
    ],
    ["ROLLBACK", "BEGIN", "SET TRANSACTION READ WRITE", INSERT, "COMMIT"],
    ["ROLLBACK", "BEGIN", "SET LOCAL transaction_read_only = off", INSERT, "COMMIT"],
    ["ROLLBACK", "BEGIN", 'SET U&"transaction_read_onl\\0079" = off', INSERT, "COMMIT"],
    ["ROLLBACK", "BEGIN", "RESET transaction_read_only", INSERT, "COMMIT"],
    ["SELECT set_config('transaction_read_only', 'off', false)", INSERT],
    ["SELECT set_config('default_transaction_read_only', 'off', false)", "COMMIT", INSERT],
    ["SELECT set_config('default_' || 'transaction_read_only', 'off', false)", "COMMIT", INSERT],
    ["SELECT set_config('default_' || 'transaction_read_only', 'off', false)", "COMMIT", "SELECT writes()"],
    ["SELECT turns_off()", "COMMIT", INSERT],
    ["SELECT turns_off_and_writes()"],
    ["CALL commits_and_writes()"],
    ["DO $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO kept VALUES (1); END $$"],
    ["DO 'BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO kept VALUES (1); END'"],
    ["SELECT 1; SET default_transaction_read_only = off", INSERT],
    [f"SELECT set_config('default_' || 'transaction_read_only', 'off', false); COMMIT; {INSERT}"],
    [f"COMMIT; {INSERT}"],
]
MYSQL = [
    ["SET SESSION TRANSACTION READ WRITE", INSERT, "COMMIT"],
    ["SET TRANSACTION READ WRITE", INSERT, "COMMIT"],
    ["ROLLBACK", "START TRANSACTION READ WRITE", INSERT, "COMMIT"],
    ["SET tx_read_only = 0", INSERT, "COMMIT"],
    ["SET @@session.tx_read_only := 0", INSERT, "COMMIT"],
    ["/*!50000 SET tx_read_only = 0 */", INSERT, "COMMIT"],
    ["EXECUTE IMMEDIATE CONCAT('SET tx_', 'read_only = 0')", "ROLLBACK", INSERT],
    ["EXECUTE IMMEDIATE CONCAT('SET tx_', 'read_only = 0')", "ROLLBACK", "BEGIN", INSERT, "COMMIT"],
    ["ROLLBACK", "EXECUTE IMMEDIATE CONCAT('START TRANSACTION READ ', 'WRITE')", INSERT, "COMMIT"],
    ["SELECT turns_off()", "ROLLBACK", INSERT],
    ["SELECT turns_off()", "ROLLBACK", "START TRANSACTION", INSERT, "COMMIT"],
    ["CALL turn_off()", "ROLLBACK", INSERT],
    ["BEGIN NOT ATOMIC SET tx_read_only = 0; INSERT INTO kept VALUES (1); END"],
    [f"SET STATEMENT tx_read_only = 0 FOR {INSERT}"],
]
SQLITE = [
    ["PRAGMA query_only = OFF", INSERT, "COMMIT"],
    ["pragma main.query_only(0)", INSERT],
    ['PRAGMA/* */"query_only"=no', INSERT],
]
ROUTINES = {
    "postgresql": [
        "CREATE FUNCTION writes() RETURNS integer LANGUAGE sql AS $$ INSERT INTO kept VALUES (1) RETURNING x $$",
        "CREATE FUNCTION turns_off() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN "
        "SET default_transaction_read_only = off; RETURN 1; END $$",
        "CREATE FUNCTION turns_off_and_writes() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN "
        "SET transaction_read_only = off; INSERT INTO kept VALUES (1); RETURN 1; END $$",
        "CREATE PROCEDURE commits_and_writes() LANGUAGE plpgsql AS $$ BEGIN "
        "COMMIT; SET TRANSACTION READ WRITE; INSERT INTO kept VALUES (1); END $$",
    ],
    "mysql": [
        "CREATE FUNCTION turns_off() RETURNS integer BEGIN SET SESSION tx_read_only = 0; RETURN 1; END",
        "CREATE PROCEDURE turn_off() BEGIN SET SESSION tx_read_only = 0; END",
    ],
    "sqlite": [],
}
WAYS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "sqlite": SQLITE}
IN_MEMORY = Driver("sqlite3-memory", "", "sqlite")


@dataclass(frozen=True)
class Place:
    db: Registry
    system: str
    asynchronous: bool

    def run(self, work: Callable[[Session], Any], **how: bool) -> Any:
        if not self.asynchronous:
            with self.db.session(**how) as session:
                return work(session)
        return asyncio.run(self._in_loop([(work, how)]))[0]

    def run_all(self, works: Sequence[Callable[[Session], Any]], **how: bool) -> list[Any]:
        """One session after the other, in one event loop, so that they use the same connection."""
        if not self.asynchronous:
            return [self.run(work, **how) for work in works]
        return asyncio.run(self._in_loop([(work, how) for work in works]))

    async def _in_loop(self, works: Sequence[tuple[Callable[[Session], Any], dict[str, bool]]]) -> list[Any]:
        found = []
        for work, how in works:
            async with self.db.async_session(**how) as session:
                found.append(await session.run_sync(work))
        await self.db.async_dispose()
        return found

    def rows(self) -> int:
        return int(self.run(lambda session: session.scalar(text("SELECT count(*) FROM kept"))))


@pytest.fixture(params=params([*DRIVERS, IN_MEMORY]))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    driver: Driver = request.param
    system = driver.scheme.partition("+")[0]
    url = "sqlite://" if driver is IN_MEMORY else driver.url(request)
    if system == "mysql":  # a test before this one may have asked for a binary log
        request.getfixturevalue(driver.server).sql("SET GLOBAL log_bin_trust_function_creators = 1")
    pool = {} if url == "sqlite://" else {"pool_size": 1, "max_overflow": 0}
    with Registry.from_profile(Profile(name="reading", url=url, **pool)) as db:
        made = Place(db, system, driver.asynchronous)

        def create(session: Session) -> None:
            for statement in ["CREATE TABLE kept (x INTEGER)", *ROUTINES[system]]:
                session.connection().exec_driver_sql(statement)
            session.commit()

        made.run(create)
        yield made


def by_sqlalchemy(session: Session, statement: str) -> None:
    session.connection().exec_driver_sql(statement)


def by_the_driver(session: Session, statement: str) -> None:
    cursor: Any = session.connection().connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


@pytest.mark.parametrize("how", [READ, SNAPSHOT], ids=["read_only", "snapshot"])
@pytest.mark.parametrize("say", [by_sqlalchemy, by_the_driver])
def test_no_statement_lets_a_reading_session_write(
    place: Place, how: dict[str, bool], say: Callable[[Session, str], None]
) -> None:
    def say_all(session: Session, statements: list[str]) -> None:
        for statement in statements:
            say(session, statement)

    def try_to_write(statements: list[str]) -> Callable[[Session], None]:
        def work(session: Session) -> None:
            # The driver's own errors, as raw cursors raise them, have no common class.
            with pytest.raises(Exception, match=REFUSED):
                say_all(session, statements)

        return work

    def read(session: Session) -> int:
        return int(session.scalar(text("SELECT 1")) or 0)

    for statements in WAYS[place.system]:
        found = place.run_all([try_to_write(statements), read, try_to_write([INSERT])], **how)
        assert found == [None, 1, None], statements
        assert place.rows() == 0, statements


def test_what_only_reads_passes(place: Place) -> None:
    harmless = {
        "postgresql": [
            "SHOW default_transaction_read_only",
            "SELECT 'SET default_transaction_read_only = off; begin read write'",
            "SET statement_timeout = 5000",
            "DO $$ BEGIN PERFORM 1; END $$",
            "SET TRANSACTION READ ONLY",
            "SET default_transaction_read_only = on",
        ],
        "mysql": [
            "SELECT 'SET tx_read_only = 0; START TRANSACTION READ WRITE'",
            "SET @tx_read_only = 0",
            "SET SESSION TRANSACTION READ ONLY",
            "SHOW VARIABLES LIKE 'tx_read_only'",
        ],
        "sqlite": ["PRAGMA query_only", "PRAGMA query_only = ON", "SELECT 'PRAGMA query_only = OFF'"],
    }[place.system]

    def work(session: Session) -> None:
        for statement in harmless:
            session.connection().exec_driver_sql(statement)

    place.run(work, **READ)


@pytest.mark.server
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_driver_that_is_told_to_write_does_not(postgresql: PostgreSQLServer, driver: str) -> None:
    pytest.importorskip(driver)
    postgresql.sql("CREATE TABLE kept (x INTEGER)")
    url = postgresql.url(f"postgresql+{driver}")
    with Registry.from_profile(Profile(name="reading", url=url, pool_size=1, max_overflow=0)) as db:
        options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": False}
        for _ in range(2):
            with db.connect(read_only=True) as connection, pytest.raises(DBAPIError, match="read-only"):
                connection.execution_options(**options).exec_driver_sql(INSERT)
            with db.connect(read_only=True) as connection:
                own: Any = connection.connection.driver_connection
                own.autocommit = False
                setattr(own, "readonly" if driver == "psycopg2" else "read_only", False)
                with pytest.raises(Exception, match="read-only"):
                    own.cursor().execute(INSERT)
                own.rollback()
                own.autocommit = True
    assert postgresql.sql("SELECT count(*) FROM kept") == [(0,)]


@pytest.mark.server
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_what_a_function_has_changed_is_restored_for_good_where_the_driver_begins_transactions(
    postgresql: PostgreSQLServer, driver: str
) -> None:
    pytest.importorskip(driver)
    postgresql.sql(ROUTINES["postgresql"][1])
    url = postgresql.url(f"postgresql+{driver}")
    with Registry.from_profile(Profile(name="reading", url=url, pool_size=1, max_overflow=0)) as db:
        with db.connect(read_only=True) as connection:
            own: Any = connection.connection.driver_connection
            own.autocommit = False
            own.cursor().execute("SELECT turns_off()")
            own.commit()
        own.rollback()  # whatever is still open ends, and takes with it what was not committed
        with db.connect(read_only=True) as connection:
            assert connection.scalar(text("SHOW default_transaction_read_only")) == "on"
            assert connection.connection.driver_connection is own


@pytest.mark.server
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_behind_a_pooler_no_text_goes_on_after_its_transaction(postgresql: PostgreSQLServer, driver: str) -> None:
    pytest.importorskip(driver)
    postgresql.sql("CREATE TABLE kept (x INTEGER)")
    with pgbouncer(postgresql, size=1) as pooler:
        url = postgresql.url(f"postgresql+{driver}", port=pooler.port)
        with Registry.from_profile(Profile(name="reading", url=url, pgbouncer=True)) as db:
            for statement in (f"COMMIT; {INSERT}", "BEGIN READ WRITE", "SET TRANSACTION READ WRITE"):
                with db.session(**READ) as session, pytest.raises(InvalidRequestError, match="cannot be made to write"):
                    session.connection().exec_driver_sql(statement)
    assert postgresql.sql("SELECT count(*) FROM kept") == [(0,)]


def test_a_script_of_sqlite_is_looked_through(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    with Registry.from_profile(Profile(name="reading", url=url)) as db:
        with db.transaction() as session:
            session.connection().exec_driver_sql("CREATE TABLE kept (x INTEGER)")
        with db.session(**READ) as session:
            own: Any = session.connection().connection.driver_connection
            with pytest.raises(InvalidRequestError, match="cannot be made to write"):
                own.executescript(f"SELECT 1; PRAGMA query_only = 0; {INSERT}")
        with db.session() as session:
            assert session.scalar(text("SELECT count(*) FROM kept")) == 0


def test_words_within_texts_and_comments_are_no_statements() -> None:
    for statement in (
        "select ';' , '; begin read write'",
        "-- begin read write\nselect 1",
        "/* set x read_only */ select 1",
    ):
        assert effect(statement, "postgresql") is Effect.READS
    for statement in ('select "; set tx_read_only = 0"', "# set tx_read_only = 0\nselect 1"):
        assert effect(statement, "mysql") is Effect.READS


class Traced:
    """What a tracer puts before a connection."""

    def __init__(self, connection: Any) -> None:
        self.__wrapped__ = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


@pytest.mark.server
def test_a_connection_behind_a_tracers_proxy_is_guarded_too(mariadb: MariaDBServer) -> None:
    mariadb.sql("CREATE TABLE kept (x INTEGER)")
    address = make_url(mariadb.url("mysql+pymysql"))

    def connect() -> Traced:
        names = {"host": address.host, "port": address.port, "user": address.username, "database": address.database}
        return Traced(pymysql.connect(password=address.password or "", **names))

    profile = Profile(name="reading", url=mariadb.url("mysql+pymysql"))
    registry = Registry.from_profile(profile, engine_options={"creator": connect})
    with registry as db, db.session(**READ) as session:
        with pytest.raises(InvalidRequestError, match="read-only"):
            session.connection().exec_driver_sql("SET SESSION TRANSACTION READ WRITE")
        assert session.scalar(text("SELECT 1")) == 1
        with pytest.raises(DBAPIError, match="1792"):
            session.connection().exec_driver_sql(INSERT)
    assert mariadb.sql("SELECT count(*) FROM kept")[0][0] == 0


def test_what_is_refused_costs_neither_the_connection_nor_the_session(place: Place) -> None:
    statement = WAYS[place.system][0][0]

    def work(session: Session) -> None:
        before = session.connection().connection.driver_connection
        with pytest.raises(InvalidRequestError, match="read-only"):
            session.connection().exec_driver_sql(statement)
        assert session.scalar(text("SELECT 1")) == 1
        assert session.connection().connection.driver_connection is before

    place.run(work, **READ)
