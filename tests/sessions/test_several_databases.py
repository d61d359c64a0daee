"""A unit of work over two databases: both have it, or none, or the caller learns which."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import CommitUncertain, Profile, Registry
from tests.support import servers
from tests.support.postgresql import PostgreSQLServer
from tests.support.proxy import Proxy
from tests.support.servers import ServerMissing


class ShopBase(SQLModel):
    metadata = MetaData()


class FactsBase(SQLModel):
    metadata = MetaData()


class Order(ShopBase, table=True):
    __tablename__ = "several_order"
    id: int | None = Field(default=None, primary_key=True)


class Total(FactsBase, table=True):
    __tablename__ = "several_total"
    id: int | None = Field(default=None, primary_key=True)
    n: int = 0


DRIVERS = {"psycopg2": False, "psycopg": False, "asyncpg": True, "psycopg async": True}


@pytest.fixture(scope="module")
def forgetful() -> Iterator[PostgreSQLServer]:
    """A server that keeps no prepared transactions, as PostgreSQL comes; the one of all tests keeps them."""
    try:
        server = servers.postgresql(settings={"max_prepared_transactions": 0})
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(params=["in two phases", "in a fixed order"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgreSQLServer]:
    chosen = request.getfixturevalue("postgresql_server" if request.param == "in two phases" else "forgetful")
    with chosen.fresh_database() as fresh:
        yield fresh


class Both:
    """A registry over two databases of a server, and a driver for it."""

    def __init__(
        self, name: str, server: PostgreSQLServer, facts: str, *, network: Proxy | None = None, **settings: Any
    ) -> None:
        self.driver, self.asynchronous = f"postgresql+{name.split()[0]}", DRIVERS[name]
        self._direct = {"default": server.url("postgresql+psycopg2"), "facts": facts}
        through = {"host": network.host, "port": network.port} if network is not None else {}
        urls = {
            "default": server.url(self.driver, **through),
            "facts": facts.replace("postgresql+psycopg2", self.driver),
        }
        self.db = Registry.from_profile(
            Profile(
                name="shop",
                url=urls["default"],
                **settings,
                databases={"facts": {"url": urls["facts"], "isolation_level": "SERIALIZABLE"}},
            )
        )
        self.db.bind(facts=FactsBase.metadata)
        for database, base in (("default", ShopBase), ("facts", FactsBase)):
            engine = create_engine(self._direct[database])
            base.metadata.create_all(engine)
            engine.dispose()
        self.sql("facts", "INSERT INTO several_total (id, n) VALUES (1, 0), (2, 0)")

    def sql(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        engine = create_engine(self._direct[database])
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            found = [tuple(row) for row in result] if result.returns_rows else []
        engine.dispose()
        return found

    def run(self, work: Callable[[Session], Any]) -> None:
        if not self.asynchronous:
            self.db.run_in_transaction(work)
            return

        async def main() -> None:
            async def awaited(session: Any) -> None:
                await session.run_sync(work)

            try:
                await self.db.async_run_in_transaction(awaited)
            finally:
                await self.db.async_dispose()

        asyncio.run(main())

    def counts(self) -> tuple[int, int]:
        ((orders,),) = self.sql("default", "SELECT count(*) FROM several_order")
        ((total,),) = self.sql("facts", "SELECT sum(n) FROM several_total")
        return orders, int(total)

    def left_prepared(self) -> int:
        return int(self.sql("default", "SELECT count(*) FROM pg_prepared_xacts")[0][0])


@pytest.fixture(params=DRIVERS)
def both(request: pytest.FixtureRequest, server: PostgreSQLServer) -> Iterator[Both]:
    pytest.importorskip(request.param.split()[0])
    url = server.url("postgresql+psycopg2", database=server.create_database(f"{server.database}_facts"))
    found = Both(request.param, server, url)
    with found.db:
        yield found


def add(session: Session) -> None:
    session.add(Order())
    session.flush()
    session.get_one(Total, 1).n += 1


def test_both_databases_have_the_unit(both: Both) -> None:
    both.run(add)
    assert both.counts() == (1, 1)
    assert both.left_prepared() == 0


def test_a_failure_leaves_both_as_they_were(both: Both) -> None:
    def work(session: Session) -> None:
        add(session)
        session.flush()
        raise LookupError

    with pytest.raises(LookupError):
        both.run(work)
    assert both.counts() == (0, 0)
    assert both.left_prepared() == 0


def test_a_conflict_at_the_second_databases_commit_doubles_nothing_in_the_first(both: Both) -> None:
    attempts = []

    def work(session: Session) -> None:
        attempts.append(1)
        session.add(Order())
        session.flush()
        total = sum(row.n for row in session.exec(select(Total)).all())
        session.get_one(Total, 1).n = total + 1
        session.flush()
        if len(attempts) == 1:  # what neither transaction could have seen, had they run one after the other
            engine = create_engine(both._direct["facts"], isolation_level="SERIALIZABLE")
            with engine.begin() as rival:
                rival.execute(text("SELECT sum(n) FROM several_total"))
                rival.execute(text("UPDATE several_total SET n = n + 10 WHERE id = 2"))
            engine.dispose()

    both.run(work)
    assert len(attempts) == 2
    assert both.counts() == (1, 21)
    assert both.left_prepared() == 0


def test_what_one_database_refuses_at_the_commit_is_told_with_the_names(
    both: Both, request: pytest.FixtureRequest
) -> None:
    body = "$$BEGIN RAISE EXCEPTION 'not today'; END$$"
    both.sql("default", f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS {body}")
    when = "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    both.sql("default", f"CREATE CONSTRAINT TRIGGER c AFTER INSERT ON several_order {when}")
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        add(session)

    with pytest.raises(DBAPIError, match="not today") as raised:
        both.run(work)
    assert calls == [1]
    if "two phases" in request.node.callspec.id:
        assert not isinstance(raised.value, CommitUncertain)
        assert both.counts() == (0, 0)
    else:
        # The one that can meet a conflict has gone first.
        assert isinstance(raised.value, CommitUncertain)
        assert (raised.value.committed, raised.value.unknown) == (("facts",), ())
        assert "committed in facts, and not elsewhere" in str(raised.value)
        assert both.counts() == (0, 1)
    assert both.left_prepared() == 0


@pytest.mark.parametrize("name", DRIVERS)
def test_a_connection_lost_at_the_last_word_does_not_undo_the_decision(
    name: str, postgresql_server: PostgreSQLServer, proxy: Callable[[Any], Proxy]
) -> None:
    pytest.importorskip(name.split()[0])
    with postgresql_server.fresh_database() as server:
        facts = server.url("postgresql+psycopg2", database=server.create_database(f"{server.database}_facts"))
        network = proxy(server)
        both = Both(name, server, facts, network=network)

        def work(session: Session) -> None:
            add(session)
            session.flush()
            network.cut_when(b"COMMIT PREPARED", after_forwarding=False)

        with both.db:
            both.run(work)
        assert both.counts() == (1, 1)
        assert both.left_prepared() == 0


@pytest.mark.parametrize("name", DRIVERS)
def test_a_prepared_transaction_that_cannot_be_committed_is_named_and_stops_no_other_one(
    name: str,
    postgresql_server: PostgreSQLServer,
    proxy: Callable[[Any], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(name.split()[0])
    monkeypatch.setattr("dbconfig.sessions.several_databases.PATIENCE", 0.0)
    with postgresql_server.fresh_database() as server:
        facts = server.url("postgresql+psycopg2", database=server.create_database(f"{server.database}_facts"))
        network = proxy(server)
        both = Both(name, server, facts, network=network, pool_timeout=1, isolation_level="SERIALIZABLE")

        def work(session: Session) -> None:
            add(session)
            session.flush()
            network.cut_when(b"COMMIT PREPARED", after_forwarding=False)
            network.refuse()

        with both.db, pytest.raises(CommitUncertain) as raised:
            both.run(work)
        notes = "\n".join(raised.value.__notes__)
        assert (raised.value.committed, raised.value.unknown) == (("facts",), ("default",))
        ((statement, database),) = re.findall(r"end it by hand: (COMMIT PREPARED 'dbconfig-\w+') in (\w+)", notes)
        assert database == "default"
        assert both.counts() == (0, 1)
        engine = create_engine(both._direct["default"], isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()
        assert both.counts() == (1, 1)


def test_a_session_that_is_committed_by_hand_commits_both_as_well(both: Both) -> None:
    if both.asynchronous:

        async def main() -> None:
            async with both.db.async_session() as session:
                await session.run_sync(add)
                await session.commit()
            async with both.db.async_transaction() as session:
                await session.run_sync(add)
            await both.db.async_dispose()

        asyncio.run(main())
    else:
        with both.db.session() as session:
            add(session)
            session.commit()
        with both.db.transaction() as session:
            add(session)
    assert both.counts() == (2, 2)
    assert both.left_prepared() == 0
