"""A unit of work is applied once, or its caller gets an error: whatever fails and is caught, with every driver."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymysql
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError, ProgrammingError
from sqlalchemy.pool import Pool
from sqlalchemy.util import await_only
from sqlmodel import Field, MetaData, Session, SQLModel

from dbconfig import CommitUncertain, Profile, Registry
from dbconfig.engine.commit_guard import Mark
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import fate_of
from dbconfig.sessions.commit import uncertain_after
from tests.sessions.conftest import Units, units_of
from tests.support.drivers import BY_NAME
from tests.support.servers import MariaDBServer, PostgreSQLServer


class Base(SQLModel):
    metadata = MetaData()


class Row(Base, table=True):
    __tablename__ = "t"
    id: int = Field(primary_key=True)
    x: int


INSERT = text("INSERT INTO t (x) VALUES (1)")
ROWS = "SELECT x FROM t"


def conflict() -> OperationalError:
    """An error that says: run it again."""
    return OperationalError("UPDATE", None, pymysql.err.OperationalError(1213, "Deadlock found"))


# Once COMMIT has been acknowledged


def test_an_error_in_a_hook_after_the_commit_does_not_repeat_the_work(units: Units) -> None:
    calls = []

    def hook(session: Session) -> None:
        raise conflict()

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        event.listen(session, "after_commit", hook, once=True)

    with pytest.raises(OperationalError, match="Deadlock found") as raised:
        units.run(work)
    assert calls == [1]
    assert units.sql(ROWS) == [(1,)]
    assert "the transaction is committed" in raised.value.__notes__[-1]
    assert fate_of(raised.value) is Fate.FINAL  # for a unit around this one, too


def test_an_error_in_a_hook_before_the_commit_repeats_the_work(units: Units) -> None:
    calls = []

    def hook(session: Session) -> None:
        if len(calls) == 1:
            raise conflict()

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        event.listen(session, "before_commit", hook, once=True)

    units.run(work)
    assert calls == [1, 1]
    assert units.sql(ROWS) == [(1,)]


def test_an_error_while_the_session_closes_does_not_repeat_the_work(units: Units) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        close = session.close

        def close_and_fail() -> None:
            close()
            raise conflict()

        session.close = close_and_fail  # type: ignore[method-assign]  # of this one session

    with pytest.raises(OperationalError, match="Deadlock found") as raised:
        units.run(work)
    assert calls == [1]
    assert units.sql(ROWS) == [(1,)]
    assert "the transaction is committed" in raised.value.__notes__[-1]


def test_an_uncertain_commit_within_a_unit_of_another_database_repeats_neither() -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        raise CommitUncertain(OperationalError("COMMIT", None, pymysql.err.OperationalError(2013, "Lost connection")))

    with Registry.from_profile(Profile(name="outer", url="sqlite://")) as db, pytest.raises(CommitUncertain):
        db.run_in_transaction(work)
    assert calls == [1]


# Errors that the work catches


@pytest.mark.parametrize("way", ["run", "transaction", "session"])
def test_a_failed_transaction_of_postgresql_is_not_reported_as_saved(postgresql_units: Units, way: str) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        with contextlib.suppress(DBAPIError):
            session.execute(text("SELECT 1/0"))

    with pytest.raises(DBAPIError, match="division by zero"):
        getattr(postgresql_units, way)(work)
    assert postgresql_units.sql(ROWS) == []


def test_a_conflict_that_the_commit_meets_is_certain_and_costs_an_attempt(postgresql_units: Units) -> None:
    postgresql_units.sql("CREATE SEQUENCE asked")  # its numbers are not taken back with the transaction
    postgresql_units.sql(
        "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('asked') = 1 THEN "
        "RAISE EXCEPTION 'in whatever words' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$"
    )
    postgresql_units.sql(
        "CREATE CONSTRAINT TRIGGER meets AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION conflict()"
    )
    attempts = []

    def work(session: Session) -> None:
        attempts.append(session.info["attempt"])
        session.execute(INSERT)

    postgresql_units.run(work)
    assert attempts == [1, 2]
    assert postgresql_units.sql(ROWS) == [(1,)]


@pytest.mark.parametrize("way", ["run", "transaction", "session"])
def test_an_error_that_a_savepoint_has_taken_back_is_none(units: Units, way: str) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        try:
            with session.begin_nested():
                session.execute(text("SELECT * FROM no_such_table"))
        except DBAPIError:
            pass

    getattr(units, way)(work)
    assert units.sql(ROWS) == [(1,)]


def test_a_rollback_of_the_session_makes_the_transaction_whole(units: Units) -> None:
    def work(session: Session) -> None:
        try:
            session.execute(text("SELECT * FROM no_such_table"))
        except DBAPIError:
            session.rollback()
        session.execute(INSERT)

    units.run(work)
    assert units.sql(ROWS) == [(1,)]


@pytest.mark.parametrize("way", ["run", "transaction", "session"])
def test_a_transaction_that_sqlite_has_rolled_back_is_not_reported_as_saved(sqlite_units: Units, way: str) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        with contextlib.suppress(DBAPIError):
            session.execute(text("INSERT OR ROLLBACK INTO t VALUES (1)"))
        session.execute(text("INSERT INTO t VALUES (2)"))

    with pytest.raises(DBAPIError, match="UNIQUE"):
        getattr(sqlite_units, way)(work)
    assert (1,) not in sqlite_units.sql(ROWS)


def in_opposite_order(units: Units, second: Callable[[Session, int], None]) -> None:
    """Let two units change two rows, in opposite order: one of them loses a deadlock in `second`."""
    both, failed = threading.Barrier(2), list[BaseException]()

    def unit(first: int, last: int) -> None:
        attempts = []

        def work(session: Session) -> None:
            attempts.append(1)
            session.execute(text("UPDATE t SET x = x + 1 WHERE id = :id"), {"id": first})
            if len(attempts) == 1:
                both.wait(30)
            second(session, last)

        try:
            units.run(work, timeout=60)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=unit, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert units.sql("SELECT id, x FROM t ORDER BY id") == [(1, 2), (2, 2)]


def test_a_deadlock_that_the_work_catches_is_run_again(mariadb_units: Units) -> None:
    def second(session: Session, row: int) -> None:
        for _ in range(2):  # it tries again itself, in what is a new transaction without the first half
            try:
                session.execute(text("UPDATE t SET x = x + 1 WHERE id = :id"), {"id": row})
            except DBAPIError:
                continue
            return

    in_opposite_order(mariadb_units, second)


def test_a_deadlock_inside_a_savepoint_is_run_again(mariadb_units: Units) -> None:
    def second(session: Session, row: int) -> None:
        with session.begin_nested():
            session.execute(text("UPDATE t SET x = x + 1 WHERE id = :id"), {"id": row})

    in_opposite_order(mariadb_units, second)


def test_a_deadlock_caught_inside_a_savepoint_is_run_again(mariadb_units: Units) -> None:
    def second(session: Session, row: int) -> None:
        with session.begin_nested(), contextlib.suppress(DBAPIError):
            session.execute(text("UPDATE t SET x = x + 1 WHERE id = :id"), {"id": row})

    in_opposite_order(mariadb_units, second)


def test_a_deadlock_of_a_flush_that_the_work_catches_is_run_again(mariadb_units: Units) -> None:
    def second(session: Session, row: int) -> None:
        found = session.get_one(Row, row)
        found.x += 1
        with suppress(DBAPIError):
            session.flush()  # after which the session refuses everything but a rollback

    in_opposite_order(mariadb_units, second)


# COMMIT is not for the work to call


def by_begin(session: Session) -> None:
    with session.begin():
        session.execute(INSERT)


def raw(session: Session) -> Any:
    return session.connection().connection.driver_connection


def awaited(found: Any) -> Any:
    return await_only(found) if inspect.isawaitable(found) else found


def by_block_of_the_driver(session: Session) -> None:
    driver = raw(session)

    async def enter() -> None:
        async with driver:
            pass

    if hasattr(driver, "__aenter__"):
        await_only(enter())
    else:
        with driver:
            pass


REFUSED: dict[str, Callable[[Session], Any]] = {
    "commit": lambda session: session.commit(),
    "begin": by_begin,
    "the transaction's commit": lambda session: session.get_transaction().commit(),  # type: ignore[union-attr]
    "the connection's commit": lambda session: session.connection().commit(),
    "COMMIT": lambda session: session.execute(text("COMMIT")),
    "COMMIT by the connection": lambda session: session.connection().exec_driver_sql("/* now */ commit"),
    "the pooled connection's commit": lambda session: session.connection().connection.commit(),
    "the pooled connection's rollback": lambda session: session.connection().connection.rollback(),
    "a cursor's COMMIT": lambda session: session.connection().connection.cursor().execute("COMMIT"),
    "BEGIN": lambda session: session.execute(text("BEGIN")),
    "ROLLBACK": lambda session: session.execute(text("ROLLBACK")),
}
# What some drivers have, or take.
REFUSED_BY_SOME: dict[str, tuple[set[str], Callable[[Session], Any]]] = {
    "the driver's commit": ({"asyncpg"}, lambda session: awaited(raw(session).commit())),
    "the driver's rollback": ({"asyncpg"}, lambda session: awaited(raw(session).rollback())),
    # asyncpg and SQLite take one statement at a time, the block of PyMySQL and its like does not commit
    "INSERT and COMMIT": (
        {"asyncpg", "sqlite3", "aiosqlite"},
        lambda session: session.execute(text("INSERT INTO t VALUES (8);\n-- saved\n commit")),
    ),
    "many of INSERT and COMMIT": (
        {"asyncpg", "sqlite3", "aiosqlite"},
        lambda session: session.connection().exec_driver_sql("INSERT INTO t VALUES (8); COMMIT", [(), ()]),
    ),
    "the driver's block": ({"asyncpg", "pymysql", "asyncmy", "aiomysql", "aiosqlite"}, by_block_of_the_driver),
    "a script": (
        {*BY_NAME} - {"sqlite3", "aiosqlite"},
        lambda session: awaited(raw(session).executescript("INSERT INTO t VALUES (8)")),
    ),
    "autocommit": (
        {*BY_NAME} - {"pymysql", "asyncmy", "aiomysql"},
        lambda session: awaited(raw(session).autocommit(True)),
    ),
}
NAMES = [*((kind, how) for kind in BY_NAME for how, (but, _) in REFUSED_BY_SOME.items() if kind not in but)]


@pytest.mark.parametrize(("kind", "how"), NAMES)
def test_what_a_driver_commits_by_is_refused_within_the_work(
    kind: str, how: str, request: pytest.FixtureRequest
) -> None:
    units = units_of(kind, request)
    units.sql("CREATE TABLE t (x INT)")

    def work(session: Session) -> None:
        session.execute(INSERT)
        REFUSED_BY_SOME[how][1](session)

    with pytest.raises((InvalidRequestError, ProgrammingError), match="commits when its function returns"):
        units.run(work)
    assert units.sql(ROWS) == []


@pytest.mark.parametrize("statement", ["SELECT 1; ", "SELECT ';' || 'COMMIT'", "SELECT 1 -- ; COMMIT"])
def test_a_semicolon_alone_ends_no_unit(units: Units, statement: str) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        session.execute(text(statement))
        session.connection().connection.cursor().execute(statement)

    units.run(work)
    assert units.sql(ROWS) == [(1,)]


@pytest.mark.parametrize("how", REFUSED)
def test_whatever_would_commit_within_the_work_is_refused_before_it_acts(units: Units, how: str) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)
        REFUSED[how](session)

    with pytest.raises((InvalidRequestError, ProgrammingError), match="commits when its function returns"):
        units.run(work)
    assert calls == [1]
    assert units.sql(ROWS) == []


def test_a_transaction_may_be_committed_by_its_own_block(units: Units) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        session.commit()

    units.transaction(work)
    assert units.sql(ROWS) == [(1,)]


def test_a_unit_that_mysql_has_committed_in_part_is_not_repeated(mariadb_units: Units) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(text("INSERT INTO t VALUES (3, 3)"))
        session.execute(text("CREATE TABLE other (x INT)"))  # it commits what came before it
        raise conflict()

    with pytest.raises(OperationalError) as raised:
        mariadb_units.run(work)
    assert calls == [1]
    assert "committed the work before it" in raised.value.__notes__[-1]


# Calls within a unit


def test_a_copied_context_has_a_unit_of_its_own(units: Units) -> None:
    if units.system == "sqlite":
        pytest.skip("a second unit of SQLite waits for the first one's lock")
    sessions: list[Any] = []

    with units.open() as db:
        if units.asynchronous:

            async def inner(session: Any) -> None:
                sessions.append(session)

            async def outer(session: Any) -> None:
                sessions.append(session)
                await asyncio.create_task(db.async_run_in_transaction(inner))

            async def main() -> None:
                await db.async_run_in_transaction(outer)
                await db.async_dispose()

            asyncio.run(main())
        else:

            def work(session: Session) -> None:
                sessions.append(session)
                within = contextvars.copy_context()
                other = threading.Thread(target=within.run, args=(db.run_in_transaction, sessions.append))
                other.start()
                other.join(30)

            db.run_in_transaction(work)
    assert sessions[0] is not sessions[1]


def test_a_unit_that_is_over_is_not_joined(units: Units) -> None:
    contexts: list[contextvars.Context] = []
    sessions: list[Any] = []
    with units.open() as db:
        if units.asynchronous:

            async def keep(session: Any) -> None:
                sessions.append(session.sync_session)
                contexts.append(contextvars.copy_context())

            async def main() -> None:
                async def insert(session: Any) -> None:
                    sessions.append(session.sync_session)
                    await session.exec(INSERT)

                await db.async_run_in_transaction(keep)
                loop = asyncio.get_running_loop()
                await loop.create_task(db.async_run_in_transaction(insert), context=contexts[0])
                await db.async_dispose()

            asyncio.run(main())
        else:

            def keep_it(session: Session) -> None:
                sessions.append(session)
                contexts.append(contextvars.copy_context())

            def insert_it(session: Session) -> None:
                sessions.append(session)
                session.execute(INSERT)

            db.run_in_transaction(keep_it)
            contexts[0].run(db.run_in_transaction, insert_it)
    assert sessions[0] is not sessions[1]
    assert units.sql(ROWS) == [(1,)]


# Functions that are not work


class Called:
    async def __call__(self, session: Session) -> None: ...


async def coroutine(session: Session) -> None: ...


def generator(session: Session) -> Any:
    yield session.execute(INSERT)


async def asynchronous_generator(session: Any) -> Any:
    yield await session.execute(INSERT)


async def returns_its_generator(session: Any) -> Any:
    return generator(session)


async def returns_its_asynchronous_generator(session: Any) -> Any:
    return asynchronous_generator(session)


NO_WORK: dict[str, Callable[[Session], Any]] = {
    "a coroutine function": coroutine,
    "an object that is called by one": Called(),
    "a function that returns a coroutine": lambda session: coroutine(session),
    "a generator function": generator,
    "a function that returns its generator": lambda session: generator(session),
    "a function that returns an asynchronous generator": lambda session: asynchronous_generator(session),
}


@pytest.mark.parametrize("what", NO_WORK)
def test_what_a_call_would_not_run_is_refused(what: str) -> None:
    with Registry.from_profile(Profile(name="units", url="sqlite://")) as db, pytest.raises(TypeError):
        db.run_in_transaction(NO_WORK[what])


@pytest.mark.parametrize(
    "work",
    [
        *(lambda session: None, generator, asynchronous_generator),
        *(returns_its_generator, returns_its_asynchronous_generator),
    ],
)
def test_what_cannot_be_awaited_is_refused(work: Any) -> None:
    async def main() -> None:
        with Registry.from_profile(Profile(name="units", url="sqlite://")) as db:
            with pytest.raises(TypeError):
                await db.async_run_in_transaction(work)
            await db.async_dispose()

    pytest.importorskip("aiosqlite")
    asyncio.run(main())


# How long


def test_the_deadline_and_no_number_ends_the_attempts(units: Units, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbconfig.sessions.retry.FIRST_PAUSE", 0.0)
    calls = []

    def work(session: Session) -> None:
        calls.append(session.info["attempt"])
        if len(calls) < 6:
            raise conflict()

    units.run(work)
    assert calls == [1, 2, 3, 4, 5, 6]


def test_an_unknown_outcome_is_told_as_such_by_its_code(postgresql_units: Units) -> None:
    for number, code in enumerate(("40003", "08007")):
        postgresql_units.sql(f"CREATE TABLE t{number} (x INT)")
        body = f"$$BEGIN RAISE EXCEPTION SQLSTATE '{code}'; END$$"
        postgresql_units.sql(f"CREATE FUNCTION f{number}() RETURNS trigger LANGUAGE plpgsql AS {body}")
        when = f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f{number}()"
        postgresql_units.sql(f"CREATE CONSTRAINT TRIGGER c AFTER INSERT ON t{number} {when}")
        calls = []

        def work(session: Session, number: int = number, calls: list[int] = calls) -> None:
            calls.append(1)
            session.execute(text(f"INSERT INTO t{number} VALUES (1)"))

        with pytest.raises(CommitUncertain) as raised:
            postgresql_units.run(work)
        assert calls == [1]
        assert raised.value.unknown == ("units",)


# Connections that the work takes out of the pool


# SQLAlchemy leaves the end of psycopg's asynchronous connection to the garbage collector, with its own pool, too.
DETACHED = pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")


@DETACHED
@pytest.mark.parametrize("way", ["run", "transaction", "session"])
def test_the_work_of_a_detached_connection_is_committed(units: Units, way: str) -> None:
    def work(session: Session) -> None:
        session.execute(INSERT)
        session.connection().detach()

    getattr(units, way)(work)
    assert units.sql(ROWS) == [(1,)]


@DETACHED
def test_a_commit_on_a_detached_connection_is_rejected(units: Units) -> None:
    def work(session: Session) -> None:
        session.connection().detach()
        session.execute(INSERT)
        session.execute(text("COMMIT"))

    with pytest.raises(ProgrammingError, match="a commit inside it would prevent a retry"):
        units.run(work)


# What is final


def test_a_write_in_a_transaction_that_the_work_has_made_read_only_is_final(units: Units) -> None:
    if units.system == "sqlite":
        pytest.skip("SQLite has no transactions that are read-only")
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        if units.system == "postgresql":
            session.execute(text("SET TRANSACTION READ ONLY"))
        else:
            session.execute(text("SET SESSION TRANSACTION READ ONLY"))
            session.rollback()  # it acts on the next transaction
        session.execute(INSERT)

    with pytest.raises(DBAPIError, match=r"(?i)read.only transaction") as raised:
        units.run(work)
    assert calls == [1]
    assert not raised.value.connection_invalidated


READ_ONLY = "default_transaction_read_only"


def refused_once(units: Units, db: Registry | None = None) -> DBAPIError:
    """Return the error of a unit of work that writes, after one attempt."""
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(INSERT)

    with pytest.raises(DBAPIError, match=r"(?i)read.only transaction") as raised:
        units.run(work, db)
    assert calls == [1]
    assert not raised.value.connection_invalidated
    return raised.value


@pytest.mark.parametrize(
    ("way", "place"), [("variables", "variables"), ("options", "options of the connection"), ("PGOPTIONS", "PGOPTIONS")]
)
def test_a_write_in_a_transaction_that_the_profile_has_made_read_only_is_final(
    postgresql_units: Units, way: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {}
    if way == "variables":
        settings = {"variables": {READ_ONLY: "on"}}
    elif way == "options":
        settings = {"query": {"options": f"-c {READ_ONLY}=on"}}
    else:
        monkeypatch.setenv("PGOPTIONS", f"-c {READ_ONLY}=on")
    error = refused_once(postgresql_units, postgresql_units.open(**settings))
    assert place in "\n".join(error.__notes__)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("ROLE app", 'set for the role "app"; to undo it: ALTER ROLE "app" RESET'),
        ('DATABASE "{0}"', 'set for the database "{0}"; to undo it: ALTER DATABASE "{0}" RESET'),
        (
            'ROLE app IN DATABASE "{0}"',
            'set for the role "app" in the database "{0}"; to undo it: ALTER ROLE "app" IN DATABASE "{0}" RESET',
        ),
        ("ROLE ALL", "set for all roles; to undo it: ALTER ROLE ALL RESET"),
    ],
)
def test_a_write_of_a_role_or_in_a_database_that_is_read_only_by_default_is_final(
    postgresql_units: Units, postgresql: PostgreSQLServer, subject: str, words: str
) -> None:
    subject, words = (part.format(postgresql.database) for part in (subject, words))
    postgresql.sql(f"ALTER {subject} SET {READ_ONLY} = on")
    try:
        error = refused_once(postgresql_units)
    finally:
        postgresql.sql(f"BEGIN READ WRITE; ALTER {subject} RESET {READ_ONLY}; COMMIT")
    assert f"{READ_ONLY} is {words} {READ_ONLY}" in "\n".join(error.__notes__)


def test_a_write_on_connections_that_a_listener_has_made_read_only_is_final(postgresql_units: Units) -> None:
    def restrict(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET {READ_ONLY} = on")
        cursor.close()
        connection.commit()

    event.listen(Pool, "connect", restrict)
    try:
        error = refused_once(postgresql_units)
    finally:
        event.remove(Pool, "connect", restrict)
    assert "by a statement on each new connection" in "\n".join(error.__notes__)


def test_a_write_with_a_variable_of_mysql_that_makes_it_read_only_is_final(mariadb_units: Units) -> None:
    names = "('tx_read_only', 'transaction_read_only')"  # MariaDB's before 11.1, and MySQL's
    ((name, _), *_) = mariadb_units.sql(f"SHOW VARIABLES WHERE Variable_name IN {names}")
    error = refused_once(mariadb_units, mariadb_units.open(variables={name: True}))
    assert f"{name} is set in variables" in "\n".join(error.__notes__)


def test_a_write_on_a_server_whose_init_connect_makes_it_read_only_is_final(
    mariadb_units: Units, mariadb: MariaDBServer
) -> None:
    mariadb.sql("SET GLOBAL init_connect = 'SET SESSION TRANSACTION READ ONLY'")
    try:
        error = refused_once(mariadb_units)
    finally:
        mariadb.sql("SET GLOBAL init_connect = ''")
    assert "its init_connect makes" in "\n".join(error.__notes__)


@pytest.mark.parametrize("by", ["variable", "init_connect"])
def test_a_write_on_a_server_of_mysql_that_is_read_only_by_default_is_final_until_that_is_undone(
    mariadb_units: Units, mariadb: MariaDBServer, by: str
) -> None:
    names = "('tx_read_only', 'transaction_read_only')"
    name = mariadb.sql(f"SHOW VARIABLES WHERE Variable_name IN {names}")[0][0] if by == "variable" else "init_connect"
    mariadb.sql(f"SET GLOBAL {name} = {'ON' if by == 'variable' else repr('SET SESSION TRANSACTION READ ONLY')}")
    try:
        error = refused_once(mariadb_units)
    finally:
        mariadb.sql(f"SET GLOBAL {name} = {'OFF' if by == 'variable' else repr('')}")
    assert f"to undo it: SET GLOBAL {name} = " in "\n".join(error.__notes__)
    insert = text("INSERT INTO t VALUES (3, 1)")
    mariadb_units.run(lambda session: session.execute(insert))  # on another connection: the session's default stays
    assert mariadb_units.sql("SELECT x FROM t WHERE id = 3") == [(1,)]


# Errors of a COMMIT that failed


def told(error: BaseException, *, committed: int = 0, sent: int = 1, of: int = 1) -> BaseException:
    """Return what a session raises when its COMMIT had come so far in so many databases."""
    marks = [Mark(f"db{number}", allowed=True) for number in range(of)]
    for mark in marks[:sent]:
        mark.sent = True
    for mark in marks[:committed]:
        mark.committed = True
    return uncertain_after(error, marks) or error


def test_an_interrupt_of_a_commit_keeps_its_class_and_says_that_the_outcome_is_unknown() -> None:
    for interrupt in (KeyboardInterrupt(), asyncio.CancelledError()):
        assert told(interrupt) is interrupt
        assert interrupt.__notes__ == ["dbconfig: it interrupted a COMMIT whose outcome is unknown."]
        assert told(error := type(interrupt)(), sent=0) is error
        assert not hasattr(error, "__notes__")


def test_an_error_that_no_driver_wraps_leaves_the_outcome_of_a_commit_unknown() -> None:
    found = told(OSError("the loop is closed"))
    assert isinstance(found, CommitUncertain)
    assert found.unknown == ("db0",)
    assert isinstance(found.orig, OSError)
    # As drivers say it that have read something else than an answer.
    garbled = OperationalError("COMMIT", None, ErrorOfServer("Packet sequence number wrong - got 0 expected 1"))
    assert isinstance(told(garbled), CommitUncertain)


def test_an_error_of_the_second_database_names_the_first_one() -> None:
    refused = ProgrammingError("COMMIT", None, ErrorOfServer("deferred constraint", "23505"))
    found = told(refused, committed=1, sent=2, of=3)
    assert isinstance(found, CommitUncertain)
    assert (found.committed, found.unknown) == (("db0",), ())
    lost = OperationalError("COMMIT", None, ErrorOfServer("gone"), connection_invalidated=True)
    found = told(lost, committed=1, sent=2, of=3)
    assert isinstance(found, CommitUncertain)
    assert (found.committed, found.unknown) == (("db0",), ("db1",))
    assert "committed in db0; unknown in db1" in str(found)


class ErrorOfServer(Exception):
    """An error as a driver raises it."""

    def __init__(self, words: str, sqlstate: str | None = None) -> None:
        super().__init__(words)
        self.sqlstate = sqlstate
