"""Units of work on real servers: conflicts, lost connections, uncertain commits, nesting."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import CommitUncertain, Profile, Registry
from tests.support.proxy import Proxy
from tests.support.servers import Server


class Base(SQLModel):
    metadata = MetaData()


class Account(Base, table=True):
    __tablename__ = "retry_account"
    id: int = Field(primary_key=True)
    balance: int


ACCOUNTS = range(1, 5)


def registry(url: str, **settings: object) -> Registry:
    return Registry.from_profile(Profile(name="units", url=url, **settings))


def furnish(db: Registry) -> Registry:
    db.create_tables(Account)
    with db.transaction() as session:
        session.add_all(Account(id=number, balance=100) for number in ACCOUNTS)
    return db


@pytest.fixture(params=["memory", "file", "postgresql", "mariadb"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param in ("memory", "file"):
        url, settings = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/units.db", {}
    else:
        url, settings = request.getfixturevalue(request.param).url(), {"isolation_level": "SERIALIZABLE"}
    with registry(url, **settings) as opened:
        yield furnish(opened)


def balances(db: Registry) -> list[int]:
    with db.session() as session:
        return list(session.exec(select(Account.balance).order_by(Account.id)))


def transfer(source: int, target: int) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        taken, given = session.get_one(Account, source), session.get_one(Account, target)
        taken.balance -= 1
        given.balance += 1

    return work


def test_eight_threads_that_conflict_all_time_lose_and_double_nothing(db: Registry) -> None:
    expected = dict.fromkeys(ACCOUNTS, 100)
    counted = threading.Lock()
    failures: list[BaseException] = []

    def run(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(30):
            source, target = choose.sample(ACCOUNTS, 2)
            try:
                db.run_in_transaction(transfer(source, target), attempts=50)
            except BaseException as error:
                failures.append(error)
            else:
                with counted:
                    expected[source] -= 1
                    expected[target] += 1

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert balances(db) == list(expected.values())


def test_the_result_is_returned_and_an_error_of_the_work_rolls_back_and_is_not_repeated(db: Registry) -> None:
    assert db.run_in_transaction(lambda session: session.get_one(Account, 1).balance) == 100
    calls = []

    def fail(session: Session) -> None:
        calls.append(session.info["attempt"])
        session.get_one(Account, 1).balance = 0
        session.flush()
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        db.run_in_transaction(fail)
    assert calls == [1]
    assert balances(db) == [100] * 4


def test_a_call_within_a_unit_joins_it_and_is_rolled_back_with_it(db: Registry) -> None:
    def outer(session: Session) -> None:
        db.run_in_transaction(transfer(1, 2))
        assert db.run_in_transaction(lambda inner: inner is session)
        raise LookupError

    with pytest.raises(LookupError):
        db.run_in_transaction(outer)
    assert balances(db) == [100] * 4


def test_a_commit_within_the_work_is_refused(db: Registry) -> None:
    with pytest.raises(InvalidRequestError, match="commits when its function returns"):
        db.run_in_transaction(lambda session: session.commit())


def lose_own_connection(session: Session, server: Server) -> None:
    identify = "SELECT pg_backend_pid()" if server.kind == "postgresql" else "SELECT CONNECTION_ID()"
    server.terminate(session.execute(text(identify)).scalar_one())


def test_a_connection_lost_before_the_commit_costs_an_attempt_and_nothing_else(server: Server) -> None:
    attempts = []

    def work(session: Session) -> None:
        attempts.append(session.info["attempt"])
        if len(attempts) == 1:
            lose_own_connection(session, server)
        transfer(1, 2)(session)

    with furnish(registry(server.url())) as db:
        db.run_in_transaction(work)
        assert attempts == [1, 2]
        assert balances(db) == [99, 101, 100, 100]


@pytest.mark.parametrize("delivered", [True, False], ids=["the reply is lost", "the COMMIT is lost"])
def test_a_connection_lost_during_the_commit_is_told_and_never_repeated(
    server: Server, proxy: Callable[[Server], Proxy], delivered: bool
) -> None:
    way = proxy(server)
    calls = []

    def work(session: Session) -> None:
        calls.append(session.info["attempt"])
        transfer(1, 2)(session)
        session.flush()
        way.cut_when(b"COMMIT", after_forwarding=delivered)

    with furnish(registry(server.url(host=way.host, port=way.port))) as db, furnish_view(server) as direct:
        with pytest.raises(CommitUncertain):
            db.run_in_transaction(work)
        assert calls == [1]
        assert balances(direct) == ([99, 101, 100, 100] if delivered else [100] * 4)


def furnish_view(server: Server) -> Registry:
    return registry(server.url())


def test_a_server_that_is_down_is_waited_for(server: Server) -> None:
    with furnish(registry(server.url(), pool_pre_ping=True)) as db:
        server.stop()
        timer = threading.Timer(1.0, server.start)
        timer.start()
        try:
            db.run_in_transaction(transfer(1, 2), attempts=1)
        finally:
            timer.join()
        assert balances(db) == [99, 101, 100, 100]
