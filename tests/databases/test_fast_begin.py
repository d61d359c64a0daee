"""BEGIN with the first statement changes the number of messages, and nothing else: isolation above all."""

import io
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extras import DictCursor
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, ProgrammingError
from sqlmodel import Field, MetaData, Session, SQLModel, func, select

from dbconfig import ConfigError, Profile, Registry
from tests.support.proxy import Proxy
from tests.support.servers import Server


class Base(SQLModel):
    metadata = MetaData()


class Row(Base, table=True):
    __tablename__ = "fast_begin_row"
    id: int = Field(primary_key=True)
    value: int = 0


def registry(url: str, **settings: object) -> Registry:
    return Registry.from_profile(Profile(name="fast", url=url, fast_begin=True, **settings))


@pytest.fixture
def db(postgresql: Server) -> Iterator[Registry]:
    with registry(postgresql.url()) as opened:
        opened.create_tables(Row)
        with opened.transaction() as session:
            session.add(Row(id=1))
        yield opened


@pytest.fixture
def beside(db: Registry) -> Callable[[str], None]:
    """Run a statement from another connection, committed at once."""

    def run(statement: str) -> None:
        with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))

    return run


def value(session: Session) -> int:
    session.expire_all()
    return session.get_one(Row, 1).value


def test_a_transaction_costs_one_round_trip_less(
    db: Registry, postgresql: Server, proxy: Callable[[Server], Proxy]
) -> None:
    network = proxy(postgresql)
    with registry(postgresql.url(port=network.port)) as ours:
        for number in range(10, 13):  # the first ones look at the server
            with ours.session() as session:
                session.add(Row(id=number))
                session.commit()
        network.reset_counters()
        with ours.session() as session:
            session.add(Row(id=13))
            session.commit()
        assert network.round_trips() == 2
        with ours.session() as session:
            session.get(Row, 13)
        assert network.round_trips() == 4


def test_repeatable_read_sees_one_state_and_read_committed_the_newest(
    db: Registry, beside: Callable[[str], None]
) -> None:
    for level, second in (("REPEATABLE READ", 0), ("READ COMMITTED", 1)):
        beside("UPDATE fast_begin_row SET value = 0")
        with Session(db.engine().execution_options(isolation_level=level)) as session:
            assert value(session) == 0
            assert session.scalar(text("SHOW transaction_isolation")) == level.lower()
            beside("UPDATE fast_begin_row SET value = 1")
            assert value(session) == second
        with db.session() as session:  # the level goes with the checkout, not with the connection
            assert session.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_an_isolation_level_of_the_profile_holds_in_every_transaction(
    db: Registry, postgresql: Server, beside: Callable[[str], None]
) -> None:
    with registry(postgresql.url(), isolation_level="REPEATABLE READ") as ours:
        for _ in range(3):
            beside("UPDATE fast_begin_row SET value = 0")
            with ours.session() as session:
                assert value(session) == 0
                beside("UPDATE fast_begin_row SET value = 1")
                assert value(session) == 0
                session.rollback()
                assert value(session) == 1


def test_two_serializable_transactions_that_cross_are_told(db: Registry) -> None:
    engine = db.engine().execution_options(isolation_level="SERIALIZABLE")
    with Session(engine) as one, Session(engine) as other:
        one.exec(select(func.sum(Row.value))).one()
        other.exec(select(func.sum(Row.value))).one()
        one.add(Row(id=2, value=1))
        other.add(Row(id=3, value=1))
        one.commit()
        with pytest.raises(OperationalError, match="could not serialize"):
            other.commit()


def test_a_repeatable_read_update_of_what_has_changed_is_told(db: Registry, beside: Callable[[str], None]) -> None:
    with Session(db.engine().execution_options(isolation_level="REPEATABLE READ")) as session:
        row = session.get_one(Row, 1)
        beside("UPDATE fast_begin_row SET value = 5")
        row.value += 1
        with pytest.raises(OperationalError, match="could not serialize"):
            session.commit()


def test_a_read_only_transaction_refuses_writes_and_the_next_one_does_not(db: Registry) -> None:
    reading = db.engine().execution_options(postgresql_readonly=True, postgresql_deferrable=True)
    with reading.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert connection.scalar(text("SHOW transaction_deferrable")) == "on"
        with pytest.raises(InternalError, match="read-only"):
            connection.execute(text("INSERT INTO fast_begin_row VALUES (7, 0)"))
    with db.transaction() as session:
        session.add(Row(id=7))


def test_what_is_not_committed_is_rolled_back(db: Registry) -> None:
    with db.session() as session:
        session.add(Row(id=8))
        session.flush()
    with db.engine().connect() as connection:
        connection.execute(text("INSERT INTO fast_begin_row VALUES (9, 0)"))
    with db.session() as session:
        assert session.exec(select(Row.id)).all() == [1]


def test_a_failed_statement_aborts_the_transaction(db: Registry) -> None:
    with db.engine().connect() as connection:
        connection.execute(text("INSERT INTO fast_begin_row VALUES (20, 0)"))
        with pytest.raises(DBAPIError):
            connection.execute(text("INSERT INTO fast_begin_row VALUES (20, 0)"))
        with pytest.raises(InternalError, match="current transaction is aborted"):
            connection.execute(text("SELECT 1"))
        connection.rollback()
        assert connection.scalar(text("SELECT count(*) FROM fast_begin_row")) == 1


@pytest.mark.parametrize("first", ["SELEC 1", "INSERT INTO fast_begin_row VALUES (1, 0)", "SELECT 1/0"])
def test_a_first_statement_that_fails_leaves_nothing_behind(db: Registry, first: str) -> None:
    with db.engine().connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(text(first))
        connection.rollback()
        connection.execute(text("INSERT INTO fast_begin_row VALUES (21, 0)"))
    with db.session() as session:
        assert session.exec(select(Row.id)).all() == [1]


def test_savepoints_and_many_rows_and_copy_are_part_of_the_transaction(db: Registry) -> None:
    with db.session() as session:
        session.add_all(Row(id=number) for number in range(100, 1200))  # execute_values
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(text("SELECT 1/0"))
        session.flush()
    with db.engine().connect() as connection:
        cursor = connection.connection.cursor()
        cursor.copy_expert("COPY fast_begin_row FROM STDIN", io.StringIO("50\t0\n"))
        connection.rollback()
        cursor = connection.connection.cursor()
        cursor.executemany("INSERT INTO fast_begin_row VALUES (%s, 0)", [(51,), (52,)])
        connection.rollback()
        cursor = connection.connection.cursor()
        cursor.execute(sql.SQL("INSERT INTO {} VALUES (53, 0)").format(sql.Identifier("fast_begin_row")))
        connection.connection.rollback()
        cursor.execute(b"INSERT INTO fast_begin_row VALUES (54, 0)")
        connection.connection.rollback()
    with db.session() as session:
        assert session.exec(select(Row.id)).all() == [1]


def test_rows_are_streamed(db: Registry) -> None:
    with db.transaction() as session:
        session.add_all(Row(id=number) for number in range(2, 1002))
    for _ in range(2):
        with db.session() as session:
            rows = session.exec(select(Row.id).execution_options(yield_per=100))
            assert sum(1 for _ in rows) == 1001
            session.add(Row(id=5000))
            session.flush()
    with Session(db.engine().execution_options(isolation_level="REPEATABLE READ")) as session:
        session.exec(select(Row.id).execution_options(yield_per=100)).all()
        assert session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
    with db.session() as session:
        assert session.get(Row, 5000) is None
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_rows_are_streamed_in_a_transaction_that_has_begun(db: Registry) -> None:
    with db.transaction() as session:
        session.add_all(Row(id=number) for number in range(2, 1002))
    with db.session() as session:
        for end in (session.commit, session.rollback):
            assert session.get(Row, 1)
            stream = session.exec(select(Row.id).execution_options(yield_per=100))
            next(stream)
            end()
            assert session.scalar(text("SELECT count(*) FROM pg_cursors")) == 0
            stream.close()  # too late, and no error of this transaction
            assert session.get(Row, 2)


def test_an_own_class_of_cursors_or_connections_still_begins_a_transaction(postgresql: Server, db: Registry) -> None:
    class Own(psycopg2.extensions.connection):
        pass

    with registry(postgresql.url(), connect_args={"connection_factory": Own}) as ours:
        raw = ours.engine().raw_connection()
        assert isinstance(raw.driver_connection, Own)
        for factory in (DictCursor, psycopg2.extensions.cursor):
            raw.cursor(cursor_factory=factory).execute("INSERT INTO fast_begin_row VALUES (90, 0)")
            raw.rollback()
        cursor = raw.cursor(cursor_factory=DictCursor)
        cursor.execute("SELECT count(*) AS number FROM fast_begin_row")
        assert cursor.fetchone()["number"] == 1
        raw.close()


def test_a_two_phase_commit_is_prepared_and_committed(db: Registry) -> None:
    with db.engine().connect() as connection:
        for number in (60, 61):
            transaction = connection.begin_twophase()
            connection.execute(text(f"INSERT INTO fast_begin_row VALUES ({number}, 0)"))
            transaction.prepare()
            transaction.commit() if number == 60 else transaction.rollback()
    with db.session() as session:
        assert session.exec(select(Row.id).order_by(Row.id)).all() == [1, 60]


def test_autocommit_commits_each_statement(db: Registry) -> None:
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO fast_begin_row VALUES (70, 0)"))
        connection.rollback()
        connection.execute(text("VACUUM fast_begin_row"))  # refused inside a transaction
    with db.session() as session:
        assert session.get(Row, 70)


def test_a_connection_without_our_mediation_behaves_as_the_drivers_own(db: Registry) -> None:
    engine: Engine = db.engine()
    connection = engine.raw_connection()
    driver = connection.driver_connection
    cursor = connection.cursor()
    cursor.execute("INSERT INTO fast_begin_row VALUES (80, 0)")
    with pytest.raises(psycopg2.ProgrammingError):
        driver.autocommit = True
    connection.close()  # rolls back
    with db.session() as session:
        assert session.get(Row, 80) is None
    connection = engine.raw_connection()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO fast_begin_row VALUES (81, 0)")
        cursor.execute("COMMIT")
    connection.close()
    with db.session() as session:
        assert session.get(Row, 81)


def test_another_driver_than_psycopg2_is_refused_when_the_profile_is_read() -> None:
    for url in ("postgresql+psycopg://a@b/c", "mysql://a@b/c", "sqlite://"):
        with pytest.raises((ConfigError, ValueError), match="fast_begin"):
            registry(url)


def test_a_programming_error_is_still_one(db: Registry) -> None:
    with db.session() as session, pytest.raises(ProgrammingError, match="does not exist"):
        session.execute(text("SELECT * FROM nowhere"))


@pytest.mark.parametrize("before", ["", "a statement", "a stream"])
def test_large_objects_are_part_of_the_transaction(db: Registry, before: str) -> None:
    def write(session: Session) -> int:
        connection = session.connection()
        if before == "a statement":
            connection.execute(text("UPDATE fast_begin_row SET value = 7"))
        elif before == "a stream":
            connection.execute(text("SELECT 1"))
            streamed = connection.execution_options(stream_results=True).execute(text("SELECT generate_series(1, 9)"))
            assert streamed.fetchone() == (1,)
        large = connection.connection.driver_connection.lobject(0, "wb")  # type: ignore[union-attr]
        large.write(b"x")
        large.close()
        return int(large.oid)

    with db.transaction() as session:
        kept = write(session)
    with db.session() as session:
        lost = write(session)
        session.rollback()
    count = "SELECT count(*) FROM pg_largeobject_metadata WHERE oid = :oid"
    with db.session() as session:
        assert session.execute(text(count), {"oid": kept}).scalar() == 1
        assert session.execute(text(count), {"oid": lost}).scalar() == 0
        assert value(session) == (7 if before == "a statement" else 0)
