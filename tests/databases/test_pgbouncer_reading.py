"""Reading sessions behind a real PgBouncer: limits hold, writes are refused, and nothing stays on its connections."""

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import ARRAY, JSON, Integer, LargeBinary, Text, bindparam, literal, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from dbconfig import Registry
from tests.pooled import Job, Kind
from tests.support.pgbouncer import PgBouncer, pgbouncer
from tests.support.postgresql import PostgreSQLServer
from tests.support.proxy import Proxy

READ = {"read_only": True}
SNAPSHOT = {"snapshot": True}
WAYS = pytest.mark.parametrize("how", [READ, SNAPSHOT], ids=["read_only", "snapshot"])

Open = Callable[..., Registry]


@pytest.fixture
def shared(postgresql: PostgreSQLServer) -> Iterator[PgBouncer]:
    """A PgBouncer with one server connection: whatever stays on it meets the next client."""
    with pgbouncer(postgresql, size=1) as running:
        yield running


@pytest.fixture
def open_registry(shared: PgBouncer, kind: Kind, postgresql: PostgreSQLServer) -> Iterator[Open]:
    postgresql.sql("CREATE TABLE pooled (id serial PRIMARY KEY, value integer)")
    with kind.registries(postgresql, shared.port) as opened:
        yield opened


def rows(server: PostgreSQLServer) -> int:
    return int(server.sql("SELECT count(*) FROM pooled")[0][0])


@pytest.mark.parametrize("how", [{}, READ, SNAPSHOT], ids=["session", "read_only", "snapshot"])
def test_a_statement_that_outlasts_the_timeout_is_ended(open_registry: Open, kind: Kind, how: dict[str, bool]) -> None:
    db = open_registry(statement_timeout="0.2s")

    def work(session: Session) -> None:
        for options in ({}, {"yield_per": 1}):
            # To SQLAlchemy the rows of asyncpg's cursors come from the driver, and so do their errors.
            with pytest.raises(Exception if options else DBAPIError, match="statement timeout"):
                session.execute(text("SELECT pg_sleep(20)"), execution_options=options).all()
            session.rollback()

    kind.run(db, work, **how)


@WAYS
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pooled (value) VALUES (1)",
        "SELECT nextval('pooled_id_seq')",
        "CREATE TABLE other (id integer)",
        "BEGIN; INSERT INTO pooled (value) VALUES (2); COMMIT",
        "SELECT * FROM pooled FOR UPDATE",
    ],
)
def test_the_server_refuses_writes(
    open_registry: Open, kind: Kind, postgresql: PostgreSQLServer, how: dict[str, bool], statement: str
) -> None:
    db = open_registry()

    def work(session: Session) -> None:
        if not (kind.driver == "asyncpg" and ";" in statement):  # which takes one statement at a time
            with pytest.raises(DBAPIError, match="read-only transaction"):
                session.execute(text(statement))
        session.rollback()
        assert session.scalar(text("SELECT 1")) == 1
        session.rollback()
        cursor = session.connection().connection.cursor()
        with pytest.raises(Exception, match=r"read-only transaction|multiple commands"):
            cursor.execute(statement)
        cursor.close()

    kind.run(db, work, **how)
    assert rows(postgresql) == 0


@WAYS
def test_an_error_shows_the_statements_own_line(open_registry: Open, kind: Kind, how: dict[str, bool]) -> None:
    """The guard before it is no part of the excerpt, which asyncpg does not show."""
    told = 'column "nowhere" does not exist' if kind.driver == "asyncpg" else r"(?s)LINE \d: SELECT nowhere\n"

    def work(session: Session) -> None:
        with pytest.raises(DBAPIError, match=told):
            session.execute(text("SELECT nowhere"))

    kind.run(open_registry(statement_timeout="5s"), work, **how)


@WAYS
def test_nothing_stays_on_the_server_connection_that_others_share(
    open_registry: Open, kind: Kind, postgresql: PostgreSQLServer, how: dict[str, bool]
) -> None:
    reader, other = open_registry(statement_timeout="5s", variables={"work_mem": "6MB"}), open_registry()

    def read(session: Session) -> int:
        session.execute(text("SELECT 1"))
        stream = session.execute(text("SELECT generate_series(1, 500)"), execution_options={"yield_per": 10})
        next(stream)
        with pytest.raises(Exception, match="read-only"):
            session.execute(text("INSERT INTO pooled (value) VALUES (1)"))
        session.rollback()
        stream.close()  # too late
        session.execute(text("SELECT 1"))
        session.commit()
        stream = session.execute(text("SELECT generate_series(1, 500)"), execution_options={"yield_per": 10})
        next(stream)
        session.commit()
        stream.close()
        return int(session.scalar(text("SELECT pg_backend_pid()")))

    def write(session: Session) -> Any:
        session.execute(text("INSERT INTO pooled (value) VALUES (3)"))
        session.commit()
        asked = "current_setting('statement_timeout'), current_setting('work_mem'), current_setting('search_path')"
        left = "(SELECT count(*) FROM pg_cursors WHERE name <> ''), (SELECT count(*) FROM pg_prepared_statements)"
        return tuple(session.execute(text(f"SELECT pg_backend_pid(), {asked}, {left}")).one())

    for turn in range(3):
        number = kind.run(reader, read, **how)
        assert kind.run(other, write) == (number, "0", "4MB", '"$user", public', 0, 0)
        assert rows(postgresql) == turn + 1
    assert len(postgresql.connections()) == 1


def test_a_stream_is_a_transaction_until_the_sessions_rollback(
    open_registry: Open, kind: Kind, postgresql: PostgreSQLServer
) -> None:
    db = open_registry(statement_timeout="5s")
    other = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"

    def work(session: Session) -> None:
        for end in (session.rollback, session.commit):
            stream = session.execute(text("SELECT generate_series(1, 5000)"), execution_options={"yield_per": 10})
            next(stream)
            assert postgresql.sql(other) == [(1,)]
            # A statement beside the stream is in its transaction, and under the same limits.
            assert session.scalar(text("SHOW statement_timeout")) == "5s"
            assert session.scalar(text("SHOW transaction_read_only")) == "on"
            assert len(list(stream)) == 4999
            end()
            assert postgresql.sql(other) == [(0,)]
            session.execute(text("SELECT 1"))
            assert postgresql.sql(other) == [(int(kind.driver == "asyncpg"),)]
            session.rollback()
            stream.close()

    kind.run(db, work, **READ)


def test_all_statements_of_a_snapshot_see_the_same_and_a_readers_what_is_committed(
    open_registry: Open, kind: Kind, postgresql: PostgreSQLServer
) -> None:
    db = open_registry(statement_timeout="5s")
    count = text("SELECT count(*), current_setting('transaction_isolation'), current_setting('statement_timeout')")

    def work(session: Session) -> list[tuple[object, ...]]:
        found = []
        for _ in range(2):
            found.append(tuple(session.execute(count.columns()).one()))
            found.append(session.scalar(text("SELECT count(*) FROM pooled")))
            postgresql.sql("INSERT INTO pooled (value) VALUES (1)")
        session.rollback()
        found.append(session.scalar(text("SELECT count(*) FROM pooled")))
        return found

    snapshot = (1, "repeatable read", "5s")
    assert kind.run(db, work, **SNAPSHOT) == [snapshot, 0, snapshot, 0, 2]
    reader = (1, "read committed", "5s")
    assert kind.run(db, work, **READ) == [reader, 2, reader, 3, 4]


@pytest.mark.parametrize("begin", ["BEGIN", "begin isolation level serializable", " START TRANSACTION"])
def test_a_transaction_that_was_begun_by_hand_has_guard_and_limits(open_registry: Open, kind: Kind, begin: str) -> None:
    db = open_registry(statement_timeout="5s")

    def work(session: Session) -> None:
        session.execute(text(begin))
        isolation = "serializable" if "serializable" in begin else "read committed"
        assert session.scalar(text("SHOW transaction_isolation")) == isolation
        assert session.scalar(text("SHOW statement_timeout")) == "5s"
        with pytest.raises(DBAPIError, match="read-only transaction"):
            session.execute(text("INSERT INTO pooled (value) VALUES (1)"))
        session.rollback()
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"

    kind.run(db, work, **READ)


def test_an_isolation_level_for_one_session_is_under_the_same_guard(open_registry: Open, kind: Kind) -> None:
    db = open_registry(statement_timeout="5s")

    def work(session: Session) -> None:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        assert session.scalar(text("SHOW transaction_isolation")) == "serializable"
        assert session.scalar(text("SHOW statement_timeout")) == "5s"
        stream = session.execute(text("SELECT generate_series(1, 50)"), execution_options={"yield_per": 10})
        assert len(list(stream)) == 50
        with pytest.raises(DBAPIError, match="read-only transaction"):
            session.execute(text("INSERT INTO pooled (value) VALUES (1)"))
        session.rollback()

    kind.run(db, work, **READ)
    assert kind.run(db, lambda session: session.scalar(text("SHOW transaction_isolation"))) == "read committed"


def test_values_of_every_type_come_back_as_in_a_writing_session(open_registry: Open, kind: Kind) -> None:
    db = open_registry(variables={"work_mem": "5MB", "app.percent": "100%s of 'x'; %(y)s\\"})
    now = datetime.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=datetime.UTC)
    values = [
        *(None, True, 0, -1, 2**40, 1.5, -0.25, decimal.Decimal("-12.50"), "", "50% of %s %(x)s %%", "it's \\ \n é"),
        *(
            b"",
            b"\x00\xff%s'\\",
            now,
            now.date(),
            now.time().replace(tzinfo=None),
            datetime.timedelta(days=-1, seconds=3),
        ),
        uuid.UUID(int=7),
    ]
    statement = select(
        *(literal(value).label(f"c{number}") for number, value in enumerate(values)),
        literal({"a": [1, None, "%s"], "b": {"c": "it's"}}, JSON()).label("json"),
        literal([1, -2, 3], ARRAY(Integer)).label("numbers"),
        literal(["a", "it's", '"%s"', "b,c"], ARRAY(Text)).label("texts"),
        literal(b"%s", LargeBinary()).label("binary"),
        text("'100%' AS percent, 7 % 4 AS modulo, current_setting('app.percent') AS variable"),
    ).where(literal(5).in_(bindparam("those", [1, 5, -7], expanding=True)))

    def work(session: Session) -> list[Any]:
        plain = session.connection().exec_driver_sql("SELECT '%', 7 % 4", execution_options={"no_parameters": True})
        return [tuple(session.execute(statement).one()), *map(tuple, plain)]

    written = kind.run(db, work)
    assert list(written[0][: len(values)]) == values
    assert written[0][-3:] == ("100%", 3, "100%s of 'x'; %(y)s\\")
    assert kind.run(db, work, **READ) == written
    assert kind.run(db, work, **SNAPSHOT) == written


COSTS = {"psycopg2": (1, 3, 4), "psycopg": (1, 3, 4), "psycopg async": (1, 3, 4), "asyncpg async": (4, 4, 4)}


def test_what_a_get_costs(
    open_registry: Open,
    kind: Kind,
    shared: PgBouncer,
    postgresql: PostgreSQLServer,
    proxy: Callable[[PgBouncer], Proxy],
) -> None:
    """In a reading session, in a snapshot, and in a session that may write."""
    network = proxy(shared)
    with kind.registries(postgresql, network.port) as open_:
        db = open_(
            pool_size=1, statement_timeout="7s", variables={"search_path": "public, pg_catalog", "work_mem": "5MB"}
        )
        found = []
        for how in (READ, SNAPSHOT, {}):

            def work(session: Session) -> None:
                session.execute(text("SELECT value FROM pooled WHERE id = :id"), {"id": 1}).all()

            found.append(_round_trips(kind, network, db, work, how))
    assert tuple(found) == COSTS[str(kind)]


def _round_trips(
    kind: Kind, network: Proxy, db: Registry, work: Callable[[Session], None], how: dict[str, bool]
) -> int:
    """Return what one session costs on a connection that is open."""
    marks: list[int] = []

    def counted(session: Session) -> None:
        # Before a session's first statement all of the one before it has been sent.
        marks.append(network.round_trips())
        work(session)

    kind.at_once([Job(db, counted, how, sessions=10)])
    costs = [after - before for before, after in pairwise(marks[5:])]
    assert len(set(costs)) == 1, costs
    return costs[0]
