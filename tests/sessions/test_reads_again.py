"""A read-only session whose connection ends during its first statement: the statement is sent once more."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import Profile, Registry
from dbconfig.engine import pool
from dbconfig.engine.pool import statement_limit
from tests.support import drivers
from tests.support.drivers import Driver
from tests.support.proxy import Proxy
from tests.support.servers import Server


class Base(SQLModel):
    metadata = MetaData()


class Hero(Base, table=True):
    __tablename__ = "read_again_hero"
    id: int = Field(primary_key=True)
    name: str


@dataclass
class Reader:
    """Read-only sessions of one driver, behind a network that can be cut."""

    db: Registry
    network: Proxy
    runner: asyncio.Runner | None
    settings: dict[str, Any]

    def read(self, work: Callable[[Any], Any], **how: bool) -> Any:
        how = how or {"read_only": True}
        if self.runner is None:
            with self.db.session(**how) as session:
                return work(session)

        async def twin() -> Any:
            async with self.db.async_session(**how) as session:
                return await session.run_sync(work)

        return self.runner.run(twin())

    def cut(self, *, delivered: bool, times: int = 1) -> None:
        self.network.cut_when(b"read_again_hero", after_forwarding=delivered, times=times)


@pytest.fixture(params=drivers.params(drivers.SERVED))
def reader(request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy]) -> Iterator[Reader]:
    driver: Driver = request.param
    network = proxy(request.getfixturevalue(driver.server))
    url = driver.url(request, port=network.port)
    with Registry.from_profile(Profile(name="plain", url=request.getfixturevalue(driver.server).url())) as made:
        made.create_tables(Hero)
        with made.transaction() as session:
            session.add(Hero(id=1, name="Ada"))
    # The text of a statement that is prepared already is not sent, and nothing would be cut.
    arguments = {"prepared_statement_cache_size": 0} if driver.module == "asyncpg" else {}
    settings = {"url": url, "connect_args": arguments}
    with Registry.from_profile(Profile(name="reading", **settings)) as db:
        if not driver.asynchronous:
            yield Reader(db, network, None, settings)
            return
        with asyncio.Runner() as runner:
            yield Reader(db, network, runner, settings)
            runner.run(db.async_dispose())


WAYS: dict[str, Callable[[Any], Any]] = {
    "get": lambda session: session.get(Hero, 1).name,
    "exec": lambda session: session.exec(select(Hero.name)).one(),
    "execute": lambda session: session.execute(select(Hero.name)).scalar_one(),
    "scalar": lambda session: session.scalar(select(Hero.name)),
    "scalars": lambda session: session.scalars(select(Hero.name)).one(),
    "text": lambda session: session.scalar(text("SELECT name FROM read_again_hero")),
}


@pytest.mark.parametrize("delivered", [True, False], ids=["in the answer", "before the server has it"])
def test_the_first_statement_is_sent_once_more(reader: Reader, delivered: bool) -> None:
    for way, work in WAYS.items():
        for how in ({"read_only": True}, {"snapshot": True}):
            reader.cut(delivered=delivered)
            before = reader.network.cuts
            assert reader.read(work, **how) == "Ada", (way, how)
            assert reader.network.cuts == before + 1, (way, how)


def test_a_connection_that_ends_twice_is_an_error(reader: Reader) -> None:
    reader.cut(delivered=True, times=2)
    with pytest.raises(DBAPIError):
        reader.read(WAYS["get"])
    assert reader.network.cuts == 2
    assert reader.read(WAYS["get"]) == "Ada"


def test_what_follows_a_first_statement_is_not_sent_again(reader: Reader) -> None:
    def second(session: Session) -> None:
        session.execute(text("SELECT 1"))
        reader.cut(delivered=True)
        session.execute(select(Hero))

    def of_a_connection(session: Session) -> None:
        session.connection()  # whose state the caller may have changed
        reader.cut(delivered=True)
        session.execute(select(Hero))

    def after_a_commit(session: Session) -> None:
        hero = session.get_one(Hero, 1)
        session.commit()
        reader.cut(delivered=True)
        session.execute(select(Hero))
        assert hero.name

    for work in (second, of_a_connection, after_a_commit):
        before = reader.network.cuts
        with pytest.raises(DBAPIError):
            reader.read(work)
        assert reader.network.cuts == before + 1


def test_an_error_of_the_statement_itself_is_raised_at_once(reader: Reader) -> None:
    sent: list[str] = []

    def wrong(session: Session) -> None:
        event.listen(session.get_bind(), "before_cursor_execute", lambda *given: sent.append(given[2]))
        session.execute(text("SELECT missing FROM read_again_hero"))

    with pytest.raises(DBAPIError, match="missing"):
        reader.read(wrong)
    assert sent == ["SELECT missing FROM read_again_hero"]


# What a node answers that has left its cluster, or shuts down; the connection stays open.
ABSENT = {
    "mariadb": "SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1047, MESSAGE_TEXT = 'WSREP has not yet prepared node'",
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'cannot_connect_now', MESSAGE = 'not yet'; END $$",
}


def test_a_server_that_is_not_ready_is_left_with_all_connections(reader: Reader) -> None:
    places: list[Any] = []

    def hold_two(session: Session) -> None:
        engine = session.connection().engine
        held = [engine.pool.connect() for _ in range(2)]
        places.extend((engine, set(pool.ledger(engine).live())))
        for each in held:
            each.close()

    reader.read(hold_two)
    engine, before = places
    assert len(before) == 3
    system = "postgresql" if engine.dialect.name == "postgresql" else "mariadb"
    with pytest.raises(DBAPIError):
        reader.read(lambda session: session.execute(text(ABSENT[system])))
    assert reader.read(WAYS["get"]) == "Ada"
    assert not before & set(pool.ledger(engine).live())


def test_a_session_that_writes_sends_nothing_again(reader: Reader) -> None:
    reader.cut(delivered=True)
    with pytest.raises(DBAPIError):
        reader.read(WAYS["get"], read_only=False)
    assert reader.network.cuts == 1


def test_a_statement_that_has_reached_its_time_limit_is_not_sent_again(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(statement_limit, "GRACE", 0.5)
    limited = Profile(name="limited", statement_timeout="0.5s", pool_timeout="1s", **reader.settings)
    with Registry.from_profile(limited) as db:
        slow = replace(reader, db=db)
        assert slow.read(WAYS["get"]) == "Ada"
        reader.network.swallow()
        with pytest.raises(SQLAlchemyError), caplog.at_level("INFO", logger="dbconfig.reads"):
            slow.read(WAYS["get"])
        reader.network.pass_through()
        reader.network.cut()
        if slow.runner is not None:
            slow.runner.run(db.async_dispose())
    assert not caplog.records
