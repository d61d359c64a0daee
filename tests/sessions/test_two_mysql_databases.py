"""A unit of work over two databases of MySQL or MariaDB: the second is an XA transaction, so both have it, or none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from dbconfig import CommitUncertain, Profile, Registry
from dbconfig.engine.dialects.mysql import xa
from tests.sessions.conftest import WITHOUT_TLS
from tests.sessions.test_several_databases import FactsBase, Order, ShopBase, Total
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.servers import MariaDBServer

DRIVERS = {"pymysql": False, "asyncmy": True, "aiomysql": True}


class Both:
    """Two databases of a server, the second one behind a network that can be cut."""

    def __init__(self, driver: str, server: MariaDBServer, first: Proxy, second: Proxy) -> None:
        facts = server.create_database(f"{server.database}_facts")
        urls = {"default": server.url("mysql+pymysql"), "facts": server.url("mysql+pymysql", database=facts)}
        self._direct = {name: url + WITHOUT_TLS for name, url in urls.items()}
        for database, base in (("default", ShopBase), ("facts", FactsBase)):
            engine = create_engine(self._direct[database])
            base.metadata.create_all(engine)
            engine.dispose()
        self.sql("facts", "INSERT INTO several_total (id, n) VALUES (1, 0)")
        self.first, self.second, self.asynchronous = first, second, DRIVERS[driver]
        name = f"mysql+{driver}"
        url = server.url(name, host=first.host, port=first.port)
        other = server.url(name, host=second.host, port=second.port, database=facts)
        self.db = Registry.from_profile(Profile(name="shop", url=url, databases={"facts": {"url": other}}))
        self.db.bind(facts=FactsBase.metadata)

    def sql(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        engine = create_engine(self._direct[database])
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            found = [tuple(row) for row in result] if result.returns_rows else []
        engine.dispose()
        return found

    def run(self, *works: Callable[[Session], Any]) -> None:
        if not self.asynchronous:
            for work in works:
                self.db.run_in_transaction(work)
            return

        async def main() -> None:
            try:
                for work in works:

                    async def awaited(session: Any, work: Callable[[Session], Any] = work) -> None:
                        await session.run_sync(work)

                    await self.db.async_run_in_transaction(awaited)
            finally:
                await self.db.async_dispose()

        asyncio.run(main())

    def counts(self) -> tuple[int, int]:
        ((orders,),) = self.sql("default", "SELECT count(*) FROM several_order")
        ((total,),) = self.sql("facts", "SELECT sum(n) FROM several_total")
        return orders, int(total)


@pytest.fixture(params=DRIVERS)
def both(request: pytest.FixtureRequest, mariadb: MariaDBServer, proxy: Callable[[Any], Proxy]) -> Iterator[Both]:
    pytest.importorskip(request.param)
    found = Both(request.param, mariadb, proxy(mariadb), proxy(mariadb))
    with found.db:
        yield found


def add(session: Session) -> None:
    session.add(Order())
    session.flush()
    session.get_one(Total, 1).n += 1
    session.flush()


def test_both_databases_have_the_unit_and_their_connections_serve_the_next_one(both: Both) -> None:
    both.run(add, add, add)
    assert both.counts() == (3, 3)


def test_a_failure_leaves_both_as_they_were(both: Both) -> None:
    def fail(session: Session) -> None:
        with session.begin_nested():
            add(session)
        raise LookupError

    with pytest.raises(LookupError):
        both.run(fail)
    both.run(add)
    assert both.counts() == (1, 1)


def test_a_statement_that_fails_in_the_second_database_does_not_end_the_unit(both: Both) -> None:
    def work(session: Session) -> None:
        add(session)
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(text("INSERT INTO several_total (id, n) VALUES (1, 100)"), bind_arguments={"mapper": Total})

    both.run(work)
    assert both.counts() == (1, 1)


def test_only_the_second_database_pays_for_it(both: Both) -> None:
    def work(session: Session) -> None:
        add(session)
        connections = [session.connection(bind_arguments={"mapper": model}) for model in (Order, Total)]
        assert [xa.name_of(each) is not None for each in connections] == [False, True]

    both.run(work)
    both.run(lambda session: session.get_one(Total, 1))
    assert both.counts() == (1, 1)


@pytest.mark.parametrize("delivered", [True, False], ids=["the reply is lost", "the COMMIT is lost"])
def test_a_connection_lost_at_the_last_word_does_not_undo_the_decision(both: Both, delivered: bool) -> None:
    def work(session: Session) -> None:
        add(session)
        both.second.cut_when(b"XA COMMIT", after_forwarding=delivered)

    both.run(work)
    wait_until(lambda: both.counts() == (1, 1), "the end of what was prepared")


def test_a_connection_lost_while_it_is_prepared_leaves_none_with_the_unit_or_repeats_it(both: Both) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        add(session)
        if len(calls) == 1:
            both.second.cut_when(b"XA PREPARE", after_forwarding=False)

    both.run(work)
    assert len(calls) == 2
    assert both.counts() == (1, 1)


def test_an_outcome_that_nobody_knows_is_told(both: Both, caplog: pytest.LogCaptureFixture) -> None:
    def work(session: Session) -> None:
        add(session)
        both.first.cut_when(b"COMMIT", after_forwarding=True)

    with pytest.raises(CommitUncertain) as raised:
        both.run(work)
    assert raised.value.unknown == ("default",)
    ((name, database),) = re.findall(r"'(dbconfig-\w+)' in (\w+)", caplog.text)
    assert database == "facts"
    assert f"end it by hand: XA COMMIT '{name}', or ROLLBACK" in "\n".join(raised.value.__notes__)
    engine = create_engine(both._direct["facts"], isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:  # as an operator does who has looked
        connection.execute(text(f"XA COMMIT '{name}'"))
    engine.dispose()
    assert both.counts() == (1, 1)


def test_a_session_that_is_committed_by_hand_commits_both_as_well(both: Both) -> None:
    if both.asynchronous:

        async def main() -> None:
            async with both.db.async_session() as session:
                await session.run_sync(add)
                await session.commit()
            await both.db.async_dispose()

        asyncio.run(main())
    else:
        with both.db.session() as session:
            add(session)
            session.commit()
    assert both.counts() == (1, 1)
