"""Round trips that carry nothing are not sent, and the dangerous cases show that those that do are."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, MetaData, Session, SQLModel

from dbconfig import Profile, Registry
from dbconfig.engine.pool import ping
from tests.support.clock import Clock
from tests.support.proxy import Proxy
from tests.support.servers import Server


class Base(SQLModel):
    metadata = MetaData()


class Item(Base, table=True):
    __tablename__ = "round_trip_item"
    id: int | None = Field(default=None, primary_key=True)
    value: int = 0


def registry(url: str, **settings: object) -> Registry:
    return Registry.from_profile(Profile(name="trips", url=url, pool_size=1, max_overflow=0, **settings))


@pytest.fixture
def db(mariadb: Server) -> Iterator[Registry]:
    """MariaDB by PyMySQL, with one connection: whatever stays on it meets the next user."""
    with registry(mariadb.url("mysql+pymysql")) as opened:
        opened.create_tables(Item)
        with opened.transaction() as session:
            session.add(Item(id=1))
        yield opened


@pytest.fixture
def change(mariadb: Server) -> Callable[[int], None]:
    return lambda value: (mariadb.sql(f"UPDATE round_trip_item SET value = {value}"), None)[1]


def value(db: Registry) -> int:
    with db.session() as session:
        return session.get_one(Item, 1).value


def add(session: Session) -> None:
    session.add(Item())
    session.commit()


@pytest.mark.server
@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("mysql+pymysql", {"get": 2, "add": 2, "nothing": 0}),  # stock: 3, 3, 1
        ("postgresql+psycopg2", {"get": 3, "add": 3, "nothing": 0}),
        ("postgresql+psycopg", {"get": 3, "add": 3, "nothing": 0}),
    ],
)
def test_what_a_session_costs(
    request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy], driver: str, expected: dict[str, int]
) -> None:
    server = request.getfixturevalue("mariadb" if driver.startswith("mysql") else "postgresql")
    network = proxy(server)
    works: dict[str, Callable[[Session], object]] = {
        "get": lambda session: session.get(Item, 1),
        "add": add,
        "nothing": lambda session: session.connection(),
    }
    if driver == "postgresql+psycopg":
        pytest.importorskip("psycopg")
    with registry(server.url(driver, port=network.port)) as db:
        db.create_tables(Item)
        found = {}
        for name, work in works.items():
            for turn in range(8):
                if turn == 7:
                    network.reset_counters()
                with db.session() as session:
                    work(session)
            found[name] = network.round_trips()
        assert found == expected


def test_a_snapshot_that_a_select_has_taken_is_given_up(db: Registry, change: Callable[[int], None]) -> None:
    for number in range(1, 4):
        change(number)
        assert value(db) == number


def test_a_raw_select_after_a_commit_leaves_no_snapshot(db: Registry, change: Callable[[int], None]) -> None:
    """The hole of every tracking by SQLAlchemy's hooks: the driver itself is used after the COMMIT."""
    with db.engine().connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.commit()
        cursor = connection.connection.cursor()
        cursor.execute("SELECT value FROM round_trip_item WHERE id = 1")
        cursor.close()
    change(9)
    assert value(db) == 9


def test_a_raw_connection_is_rolled_back(db: Registry, change: Callable[[int], None]) -> None:
    raw = db.engine().raw_connection()
    cursor = raw.cursor()
    cursor.execute("INSERT INTO round_trip_item (value) VALUES (77)")
    cursor.close()
    raw.close()
    change(5)
    with db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM round_trip_item")) == 1
    assert value(db) == 5


def test_what_failed_is_rolled_back(db: Registry) -> None:
    with db.session() as session:
        session.add(Item(id=2, value=2))
        session.flush()
        session.add(Item(id=1))
        with pytest.raises(IntegrityError):
            session.flush()
    with db.session() as session:
        assert session.get(Item, 2) is None


def test_a_transaction_begun_by_a_statement_after_a_commit_is_rolled_back(
    db: Registry, change: Callable[[int], None]
) -> None:
    with db.engine().connect() as connection:
        connection.commit()
        connection.connection.driver_connection.begin()
        connection.connection.cursor().execute("SELECT value FROM round_trip_item")
    change(4)
    assert value(db) == 4


def test_a_connection_that_breaks_is_not_taken_for_clean(db: Registry, mariadb: Server, clock: Clock) -> None:
    with db.engine().connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.commit()
        mariadb.terminate()
    clock.advance(ping.TRUST)  # a connection that came back a moment ago is not looked at
    assert value(db) == 0


def test_psycopg_ends_a_transaction_at_once(postgresql: Server) -> None:
    """Deferred to the next statement, its ROLLBACK would be cheaper; but locks stay, and so do prepared statements."""
    pytest.importorskip("psycopg")
    with registry(postgresql.url("postgresql+psycopg")) as db:
        db.create_tables(Item)
        with db.session() as session:
            session.add(Item())
            session.flush()
        assert postgresql.sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == [(0,)]
