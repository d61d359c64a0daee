"""Units of work with each driver: conflicts, lost connections, uncertain commits, nesting, a server that is down."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError
from sqlmodel import Field, MetaData, Session, SQLModel

from dbconfig import CommitUncertain, Profile, Registry
from dbconfig.sessions import nesting
from tests.registries import registry
from tests.sessions.conftest import Units, _awaiting, units_of
from tests.support import mysql
from tests.support.drivers import BY_NAME, SERVED, Driver
from tests.support.ports import free_port
from tests.support.proxy import Proxy

ACCOUNTS = range(1, 5)


class Base(SQLModel):
    metadata = MetaData()


class Account(Base, table=True):
    __tablename__ = "units_account"
    id: int = Field(primary_key=True)
    balance: int


def furnished(units: Units) -> Units:
    units.sql("CREATE TABLE units_account (id INT PRIMARY KEY, balance INT)")
    units.sql("INSERT INTO units_account VALUES (1, 100), (2, 100), (3, 100), (4, 100)")
    return units


@pytest.fixture(params=[*BY_NAME, "sqlite in memory", "aiosqlite in memory"])
def bank(request: pytest.FixtureRequest) -> Units:
    """Each driver, and SQLite in memory: units are serializable, so that they conflict."""
    name = request.param
    if name.endswith("in memory"):
        return Units("sqlite", name.startswith("aio"), "sqlite://", "")
    found = furnished(units_of(name, request))
    found.settings = {} if found.system == "sqlite" else {"isolation_level": "SERIALIZABLE"}
    return found


@pytest.fixture(params=[each.name for each in SERVED])
def remote(request: pytest.FixtureRequest) -> Units:
    return furnished(units_of(request.param, request))


def open_bank(bank: Units) -> Registry:
    db = bank.open()
    if not bank.direct:  # in memory a database lives as long as its engine
        Base.metadata.create_all(db.engine())
        with db.transaction() as session:
            session.add_all(Account(id=number, balance=100) for number in ACCOUNTS)
    return db


def balances(session: Session) -> list[int]:
    return list(session.scalars(text("SELECT balance FROM units_account ORDER BY id")))


def saved(units: Units) -> list[int]:
    return [balance for (balance,) in units.sql("SELECT balance FROM units_account ORDER BY id")]


def transfer(source: int, target: int) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        taken, given = session.get_one(Account, source), session.get_one(Account, target)
        taken.balance -= 1
        given.balance += 1

    return work


def test_workers_that_conflict_all_the_time_lose_and_double_nothing(bank: Units) -> None:
    expected, counted = dict.fromkeys(ACCOUNTS, 100), threading.Lock()

    def transfers(seed: int) -> Iterator[tuple[int, int]]:
        choose = random.Random(seed)
        for _ in range(12):
            yield tuple(choose.sample(ACCOUNTS, 2))  # type: ignore[misc]  # of two

    def count(source: int, target: int) -> None:
        with counted:
            expected[source] -= 1
            expected[target] += 1

    with open_bank(bank) as db:
        if bank.asynchronous:

            async def task(seed: int) -> None:
                for source, target in transfers(seed):
                    move = transfer(source, target)

                    async def work(session: Any, move: Any = move) -> None:
                        await session.run_sync(move)

                    await db.async_run_in_transaction(work, timeout=120)
                    count(source, target)

            async def main() -> list[int]:
                await asyncio.gather(*(task(seed) for seed in range(6)))
                async with db.async_session() as session:
                    found: list[int] = await session.run_sync(balances)
                await db.async_dispose()
                return found

            assert asyncio.run(main()) == list(expected.values())
            return
        failures = []

        def thread(seed: int) -> None:
            try:
                for source, target in transfers(seed):
                    db.run_in_transaction(transfer(source, target), timeout=120)
                    count(source, target)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(6)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failures == []
        with db.session() as session:
            assert balances(session) == list(expected.values())


def test_the_result_is_returned(remote: Units) -> None:
    assert remote.run(lambda session: session.get_one(Account, 1).balance) == 100


def test_an_error_of_the_work_rolls_back_and_is_not_repeated(remote: Units) -> None:
    calls = []

    def work(session: Session) -> None:
        calls.append(session.info["attempt"])
        transfer(1, 2)(session)
        session.flush()
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        remote.run(work)
    assert calls == [1]
    assert saved(remote) == [100] * 4


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_whatever_the_work_raises_is_raised(remote: Units, error: type[BaseException]) -> None:
    if remote.asynchronous:
        pytest.skip("asyncio itself makes something else of it")

    def work(session: Session) -> None:
        transfer(1, 2)(session)
        raise error

    with pytest.raises(error):
        remote.run(work)
    assert saved(remote) == [100] * 4


def test_a_call_within_a_unit_joins_it_and_is_rolled_back_with_it(remote: Units) -> None:
    seen: list[Any] = []
    with remote.open() as db, suppress(LookupError):
        if remote.asynchronous:

            async def inner(session: Any) -> None:
                seen.append(session)
                await session.run_sync(transfer(1, 2))

            async def outer(session: Any) -> None:
                seen.append(session)
                await db.async_run_in_transaction(inner)
                raise LookupError

            async def main() -> None:
                try:
                    await db.async_run_in_transaction(outer)
                finally:
                    await db.async_dispose()

            asyncio.run(main())
        else:

            def inner_one(session: Session) -> None:
                seen.append(session)
                transfer(1, 2)(session)

            def outer_one(session: Session) -> None:
                seen.append(session)
                db.run_in_transaction(inner_one)
                raise LookupError

            db.run_in_transaction(outer_one)
    assert len(seen) == 2
    assert seen[0] is seen[1]
    assert saved(remote) == [100] * 4


def test_a_connection_lost_before_the_commit_costs_an_attempt_and_nothing_else(
    remote: Units, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(remote.system)
    identify = "SELECT pg_backend_pid()" if remote.system == "postgresql" else "SELECT CONNECTION_ID()"
    attempts = []

    def work(session: Session) -> None:
        attempts.append(session.info["attempt"])
        if len(attempts) == 1:
            server.terminate(session.execute(text(identify)).scalar_one())
        transfer(1, 2)(session)

    remote.run(work)
    assert attempts == [1, 2]
    assert saved(remote) == [99, 101, 100, 100]


def test_a_lost_connection_that_the_work_catches_costs_an_attempt_as_well(
    remote: Units, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(remote.system)
    identify = "SELECT pg_backend_pid()" if remote.system == "postgresql" else "SELECT CONNECTION_ID()"
    attempts = []

    def work(session: Session) -> None:
        attempts.append(session.info["attempt"])
        if len(attempts) == 1:
            server.terminate(session.execute(text(identify)).scalar_one())
            with suppress(DBAPIError):
                session.execute(text("SELECT 1"))
        transfer(1, 2)(session)

    remote.run(work)
    assert attempts == [1, 2]
    assert saved(remote) == [99, 101, 100, 100]


@pytest.mark.parametrize("way", ["run", "transaction"])
@pytest.mark.parametrize("delivered", [True, False], ids=["the reply is lost", "the COMMIT is lost"])
def test_a_connection_lost_during_the_commit_is_told_and_never_repeated(
    remote: Units, request: pytest.FixtureRequest, proxy: Callable[[Any], Proxy], delivered: bool, way: str
) -> None:
    server = request.getfixturevalue(remote.system)
    network = proxy(server)
    drivername = remote.url.partition(":")[0]
    through = Units(
        remote.system,
        remote.asynchronous,
        server.url(drivername, host=network.host, port=network.port),
        remote.direct,
    )
    calls = []

    def work(session: Session) -> None:
        calls.append(1)
        transfer(1, 2)(session)
        session.flush()
        network.cut_when(b"COMMIT", after_forwarding=delivered)

    with pytest.raises(CommitUncertain) as raised:
        getattr(through, way)(work)
    assert calls == [1]
    assert (raised.value.committed, raised.value.unknown) == ((), ("units",))
    assert saved(remote) == ([99, 101, 100, 100] if delivered else [100] * 4)


@pytest.mark.parametrize("question", ["current_schema", "standard_conforming_strings", "@@", "VERSION"])
def test_a_connection_that_dies_at_the_first_questions_to_its_server_was_no_attempt(
    remote: Units, request: pytest.FixtureRequest, proxy: Callable[[Any], Proxy], question: str
) -> None:
    """SQLAlchemy asks them on a connection that has no information yet, and takes some errors for an answer."""
    if (remote.system == "postgresql") != (question in ("current_schema", "standard_conforming_strings")):
        pytest.skip("a question to the other system")
    server = request.getfixturevalue(remote.system)
    network = proxy(server)
    url = server.url(remote.url.partition(":")[0], host=network.host, port=network.port)
    network.cut_when(question.encode(), after_forwarding=True)
    calls = []

    def work(session: Session) -> None:
        calls.append(session.info["attempt"])
        transfer(1, 2)(session)

    Units(remote.system, remote.asynchronous, url, remote.direct).run(work, timeout=60)
    assert len(calls) in (1, 2)  # the work may have asked for its connection, and so have begun
    assert saved(remote) == [99, 101, 100, 100]


def test_a_server_that_is_down_is_waited_for(
    remote: Units, request: pytest.FixtureRequest, proxy: Callable[[Any], Proxy]
) -> None:
    server, units, appear = request.getfixturevalue(remote.system), remote, lambda: None
    if mysql.wanted() and remote.system == "mariadb":
        # It listens before anyone has logged in, and until then asks for encryption, which is no reason to wait.
        network = proxy(server)
        network.refuse()
        appear = network.pass_through
        url = server.url(remote.url.partition(":")[0], host=network.host, port=network.port)
        units = Units(remote.system, remote.asynchronous, url, remote.direct)
    server.stop()

    def start() -> None:
        server.start()
        appear()

    timer = threading.Timer(1.0, start)
    timer.start()
    try:
        units.run(transfer(1, 2), attempts=1, timeout=120)
    finally:
        timer.join()
    assert saved(remote) == [99, 101, 100, 100]


@pytest.mark.parametrize("driver", SERVED, ids=lambda each: each.name)
def test_a_server_that_cannot_be_reached_is_sqlalchemys_error(driver: Driver) -> None:
    pytest.importorskip(driver.module)
    with Registry.from_profile(Profile(name="units", url=f"{driver.scheme}://app@127.0.0.1:{free_port()}/d")) as db:
        if not driver.asynchronous:
            with pytest.raises(OperationalError), db.session() as session:
                session.connection()
            return

        async def main() -> None:
            with pytest.raises(OperationalError):
                async with db.async_session() as session:
                    await session.connection()
            await db.async_dispose()

        asyncio.run(main())


def test_a_user_that_has_all_its_connections_in_use_is_waited_for(
    remote: Units, request: pytest.FixtureRequest
) -> None:
    """The pool retried MySQL's 1226, and units took it for final."""
    server = request.getfixturevalue(remote.system)
    if remote.system == "postgresql":
        server.sql("ALTER ROLE app CONNECTION LIMIT 1")
    else:
        server.sql("ALTER USER app@'%' WITH MAX_USER_CONNECTIONS 1")
    holder = create_engine(remote.direct).connect()
    gate = threading.Timer(1.0, holder.close)  # back into a pool, which is disposed of
    try:
        holder.detach()
        gate.start()
        remote.run(transfer(1, 2), attempts=1, timeout=120)
    finally:
        gate.join()
        holder.close()
        if remote.system == "postgresql":
            server.sql("ALTER ROLE app CONNECTION LIMIT -1")
        else:
            server.sql("ALTER USER app@'%' WITH MAX_USER_CONNECTIONS 0")
    assert saved(remote) == [99, 101, 100, 100]


@pytest.mark.parametrize("error", [None, LookupError, KeyboardInterrupt])
@pytest.mark.parametrize("url", ["sqlite://", "sqlite+aiosqlite://"])
def test_a_unit_that_has_ended_leaves_nothing_in_the_context_of_its_caller(
    url: str, error: type[BaseException] | None
) -> None:
    """A thread or a task may outlive many registries, whose units would pile up in it."""
    found: list[Any] = []

    def end(session: Any) -> None:
        found.append(nesting.found())
        if error is not None:
            raise error

    def in_a_thread(outer: Registry, inner: Registry) -> None:
        def work(session: Any) -> None:
            found.append(nesting.found())
            with suppress(LookupError, KeyboardInterrupt):
                inner.run_in_transaction(end)
            found.append(nesting.found())

        outer.run_in_transaction(work)
        found.append(nesting.found())

    async def in_a_task(outer: Registry, inner: Registry) -> None:
        async def work(session: Any) -> None:
            found.append(nesting.found())
            with suppress(LookupError, KeyboardInterrupt):
                await inner.async_run_in_transaction(_awaiting(end))
            found.append(nesting.found())

        try:
            await outer.async_run_in_transaction(work)
            found.append(nesting.found())
        finally:
            await outer.async_dispose()
            await inner.async_dispose()

    with registry(url) as outer, registry(url) as inner:
        empty = Context()  # other tests strike units, which then leave something in theirs
        if url == "sqlite://":
            empty.run(in_a_thread, outer, inner)
        else:
            pytest.importorskip("aiosqlite")
            empty.run(asyncio.run, in_a_task(outer, inner))
    assert [len(units) for units in found] == [1, 2, 1, 0]
    assert found[2] == found[0]


def test_a_result_that_answers_to_every_name_is_a_result() -> None:
    """It is not a generator: `Mock().gi_frame` is a Mock."""
    answers = Mock()

    async def work(session: Any) -> Any:
        return answers

    async def main(db: Registry) -> Any:
        try:
            return await db.async_run_in_transaction(work)
        finally:
            await db.async_dispose()

    with registry("sqlite://") as db:
        assert db.run_in_transaction(lambda session: Mock(spec=["gi_frame", "ag_frame"])) is not None
    with registry("sqlite+aiosqlite://") as db:
        assert asyncio.run(main(db)) is answers


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"isolation_level": "AUTOCOMMIT"}, {}),
        ({"execution_options": {"isolation_level": "AUTOCOMMIT"}}, {}),
        ({}, {"execution_options": {"isolation_level": "AUTOCOMMIT"}}),
    ],
    ids=["level", "options", "session"],
)
def test_a_unit_without_a_transaction_is_refused_before_it_writes(
    units: Units, settings: dict[str, Any], how: dict[str, Any]
) -> None:
    """A retry would repeat what each statement has committed."""
    tries = []

    def work(session: Session) -> None:
        tries.append(session.connection())
        session.execute(text("INSERT INTO t VALUES (1)"))

    with pytest.raises(InvalidRequestError, match=r"run_in_transaction needs a transaction.*AUTOCOMMIT"):
        units.run(work, units.open(**settings), **how)
    assert (tries, units.sql("SELECT x FROM t")) == ([], [])
    level = {"execution_options": {"isolation_level": "SERIALIZABLE"}}
    units.run(work, units.open(**settings), **level)
    assert units.sql("SELECT x FROM t") == [(1,)]


def test_the_error_of_the_work_is_the_one_that_is_raised_if_closing_fails_too(
    sqlite_units: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(session: Session) -> None:
        original(session)
        raise RuntimeError("the second")

    def work(session: Session) -> None:
        raise ValueError("the first")

    original = Session.close
    monkeypatch.setattr(Session, "close", close)
    with pytest.raises(ValueError, match="the first") as raised:
        sqlite_units.run(work)
    assert "dbconfig: closing the session failed too: the second" in raised.value.__notes__
