"""Reading sessions: one round trip, refused writes, and what a reader sees."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlmodel import Field, MetaData, SQLModel, select

from dbconfig import Profile, Registry
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.servers import Server


class Base(SQLModel):
    metadata = MetaData()


class Hero(Base, table=True):
    __tablename__ = "reading_hero"
    id: int = Field(primary_key=True)
    name: str


@dataclass(frozen=True)
class Place:
    """A database of one driver, and the network to it where there is one."""

    db: Registry
    network: Proxy | None

    def rename(self, name: str) -> None:
        with self.db.transaction() as session:
            session.get_one(Hero, 1).name = name

    def name(self, **how: bool) -> str:
        with self.db.session(**how) as session:
            return session.get_one(Hero, 1).name


DRIVERS = [
    pytest.param(name, marks=pytest.mark.server)
    for name in ("postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql")
]


@pytest.fixture(params=[*DRIVERS, "sqlite file", "sqlite memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, proxy: Callable[[Server], Proxy]) -> Iterator[Place]:
    network = None
    if request.param.startswith("sqlite"):
        url = "sqlite://" if request.param == "sqlite memory" else f"sqlite:///{tmp_path}/reading.db"
    else:
        if "+psycopg" in request.param and not request.param.endswith("2"):
            pytest.importorskip("psycopg")
        server = request.getfixturevalue("postgresql" if request.param.startswith("postgresql") else "mariadb")
        network = proxy(server)
        url = server.url(request.param, port=network.port)
    with Registry.from_profile(Profile(name="reading", url=url)) as db:
        db.create_tables(Hero)
        with db.transaction() as session:
            session.add(Hero(id=1, name="Ada"))
        yield Place(db, network)


def round_trips(place: Place, work: Callable[[], object], times: int = 4) -> float:
    if place.network is None:
        pytest.skip("SQLite uses no network")
    for _ in range(8):  # what a first connection asks; psycopg prepares a statement that it has seen five times
        work()
    place.network.reset_counters()
    for _ in range(times):
        work()
    return place.network.round_trips() / times


def test_a_get_costs_one_round_trip_and_each_further_one_as_well(place: Place) -> None:
    def three() -> None:
        with place.db.session(read_only=True) as session:
            for _ in range(3):
                session.expire_all()
                session.get_one(Hero, 1)

    assert round_trips(place, lambda: place.name(read_only=True)) == 1
    assert round_trips(place, three) == 3


def test_a_snapshot_costs_its_begin_and_its_end(place: Place) -> None:
    assert round_trips(place, lambda: place.name(snapshot=True)) == 3


def test_each_statement_sees_what_is_committed_then(place: Place) -> None:
    with place.db.session(read_only=True) as session:
        hero = session.get_one(Hero, 1)
        assert hero.name == "Ada"
        place.rename("Grace")
        session.refresh(hero)
        assert hero.name == "Grace"


def test_all_statements_of_a_snapshot_see_the_same(place: Place, request: pytest.FixtureRequest) -> None:
    if "sqlite memory" in request.node.name:
        pytest.skip("in memory a writer waits for the snapshot's end")
    with place.db.session(snapshot=True) as session:
        hero = session.get_one(Hero, 1)
        place.rename("Grace")
        session.refresh(hero)
        assert hero.name == "Ada"
        session.rollback()
        assert session.get_one(Hero, 1).name == "Grace"
    assert place.name(read_only=True) == "Grace"


def test_the_server_refuses_writes_also_of_the_raw_driver(place: Place) -> None:
    insert = "INSERT INTO reading_hero VALUES (2, 'Eve')"
    for how in ({"read_only": True}, {"snapshot": True}):
        with place.db.session(**how) as session:
            with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
                session.execute(text(insert))
            session.rollback()
            cursor = session.connection().connection.cursor()
            with pytest.raises(Exception, match=r"(?i)read.?only"):
                cursor.execute(insert)
            cursor.close()
    with place.db.session() as session:
        assert session.get(Hero, 2) is None


def test_a_flush_is_refused_before_with_the_names_of_the_models(place: Place) -> None:
    with place.db.session(read_only=True) as session:
        session.add(Hero(id=2, name="Eve"))
        with pytest.raises(InvalidRequestError, match="Hero is added"):
            session.commit()
        session.rollback()
        session.get_one(Hero, 1).name = "Eve"
        with pytest.raises(InvalidRequestError, match="Hero is changed"):
            session.exec(select(Hero)).all()
        session.rollback()
        session.delete(session.get_one(Hero, 1))
        with pytest.raises(InvalidRequestError, match="Hero is deleted"):
            session.flush()
    assert place.name() == "Ada"


def test_a_session_that_has_nothing_to_write_may_commit(place: Place) -> None:
    with place.db.session(read_only=True) as session:
        hero = session.get_one(Hero, 1)
        hero.name = "Ada"  # as it is
        session.commit()
        assert hero.name == "Ada"


def test_a_transaction_that_was_begun_by_hand_does_not_stay_open(place: Place) -> None:
    """The dangerous case of a ROLLBACK that is not sent: the next reader would see an old state for ever."""
    begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT" if place.db.engine().dialect.name == "mysql" else "BEGIN"
    if place.db.engine().dialect.name == "postgresql":
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    with place.db.session(read_only=True) as session:
        session.execute(text(begin))
        session.get_one(Hero, 1)
    place.rename("Grace")
    assert [place.name(read_only=True) for _ in range(6)] == ["Grace"] * 6


def test_an_error_leaves_nothing_behind(place: Place) -> None:
    for how in ({"read_only": True}, {"snapshot": True}):
        with place.db.session(**how) as session, pytest.raises(DBAPIError):
            session.execute(text("SELECT * FROM nowhere"))
        place.rename("Grace")
        assert place.name(**how) == "Grace"
        place.rename("Ada")


def test_rows_are_streamed_without_a_transaction(place: Place) -> None:
    with place.db.transaction() as session:
        session.add_all(Hero(id=number, name="Many") for number in range(2, 502))
    for how in ({"read_only": True}, {"snapshot": True}):
        with place.db.session(**how) as session:
            assert sum(1 for _ in session.exec(select(Hero).execution_options(yield_per=100))) == 501
    assert place.name(read_only=True) == "Ada"


def test_reading_connections_are_never_those_that_write(place: Place) -> None:
    for _ in range(5):
        assert place.name(read_only=True) == place.name()
        place.rename("Ada")


def test_a_lock_is_no_reading(postgresql: Server) -> None:
    with Registry.from_profile(Profile(name="reading", url=postgresql.url())) as db:
        db.create_tables(Hero)
        with db.session(read_only=True) as session, pytest.raises(DBAPIError, match="FOR UPDATE in a read-only"):
            session.exec(select(Hero).with_for_update()).all()


def test_a_profile_that_asks_for_the_primary_is_read_from_too(postgresql: Server) -> None:
    url = postgresql.url() + "?target_session_attrs=read-write"
    with Registry.from_profile(Profile(name="reading", url=url)) as db:
        db.create_tables(Hero)
        with db.session(read_only=True) as session:
            assert session.exec(select(Hero)).all() == []


def test_a_profile_without_readers_has_no_reading_connections(postgresql: Server) -> None:
    with Registry.from_profile(Profile(name="reading", url=postgresql.url())) as db:
        with db.session() as session:
            session.execute(text("SELECT 1"))
        assert len(postgresql.connections()) == 1
        with db.session(read_only=True) as session:
            session.execute(text("SELECT 1"))
        assert len(postgresql.connections()) == 2
    wait_until(lambda: postgresql.connections() == [], "the end of the connections")


@pytest.mark.server
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
def test_options_of_the_url_make_no_writer_of_a_reader(postgresql: Server, driver: str) -> None:
    pytest.importorskip(driver)
    url = (
        postgresql.url(f"postgresql+{driver}")
        + "?options=-c%20default_transaction_read_only%3Doff%20-c%20work_mem%3D5MB"
    )
    show = text("SELECT current_setting('default_transaction_read_only'), current_setting('work_mem')")

    async def shown(db: Registry) -> tuple[str, ...]:
        async with db.async_session(read_only=True) as session:
            return tuple((await session.exec(show)).one())  # type: ignore[call-overload]  # text is for raw statements

    with Registry.from_profile(Profile(name="reading", url=url)) as db:
        if driver == "asyncpg":
            assert asyncio.run(shown(db)) == ("on", "5MB")
        else:
            with db.session(read_only=True) as session:
                assert tuple(session.execute(show).one()) == ("on", "5MB")
            with db.session() as session:
                assert tuple(session.execute(show).one()) == ("off", "5MB")
