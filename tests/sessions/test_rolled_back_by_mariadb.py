"""MariaDB: an error that has rolled back the whole transaction, caught by the work, does not save the rest alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from tests.sessions.conftest import Units
from tests.support import servers
from tests.support.drivers import Driver, of, params
from tests.support.mariadb import MariaDBServer
from tests.support.servers import ServerMissing


@pytest.fixture(scope="module")
def strict() -> Iterator[MariaDBServer]:
    """A server whose lock timeouts and snapshot conflicts end the transaction, and not the statement alone."""
    settings = {"innodb-snapshot-isolation": "ON", "innodb-rollback-on-timeout": "ON"}
    try:
        server = servers.mariadb(settings=settings)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


def units_on(driver: Driver, server: MariaDBServer) -> Units:
    pytest.importorskip(driver.module)
    found = Units("mariadb", driver.asynchronous, server.url(driver.scheme), server.url("mysql+pymysql"))
    found.settings = {"isolation_level": "REPEATABLE READ", "lock_timeout": 1}
    found.sql("CREATE TABLE t (id INT PRIMARY KEY, x INT)")
    found.sql("INSERT INTO t VALUES (1, 0), (2, 0)")
    return found


def by_snapshot(session: Session, units: Units) -> Callable[[], None]:
    """Let another transaction change a row that this one has read: 1020."""
    session.execute(text("SELECT x FROM t")).all()
    units.sql("UPDATE t SET x = x + 10 WHERE id = 1")
    return lambda: None


def by_lock(session: Session, units: Units) -> Callable[[], None]:
    """Let another transaction hold a row: 1205."""
    engine = create_engine(units.direct)
    holder = engine.connect()
    holder.execute(text("UPDATE t SET x = x + 10 WHERE id = 1"))

    def let_go() -> None:
        holder.commit()
        holder.close()
        engine.dispose()

    return let_go


@pytest.mark.parametrize("meet", [by_snapshot, by_lock], ids=["1020", "1205"])
@pytest.mark.parametrize("driver", params(of("mariadb")))
def test_the_unit_is_run_again_as_a_whole(driver: Driver, meet: Any, strict: MariaDBServer) -> None:
    attempts = []
    with strict.fresh_database() as server:
        units = units_on(driver, server)

        def work(session: Session) -> None:
            attempts.append(1)
            session.execute(text("UPDATE t SET x = x + 1 WHERE id = 2"))
            let_go = meet(session, units) if len(attempts) == 1 else lambda: None
            try:
                session.execute(text("UPDATE t SET x = x + 1 WHERE id = 1"))
            except DBAPIError:
                let_go()
                session.execute(text("UPDATE t SET x = x + 1 WHERE id = 1"))  # in a transaction without the first half

        units.run(work)
        assert attempts == [1, 1]
        assert units.sql("SELECT id, x FROM t ORDER BY id") == [(1, 11), (2, 1)]


@pytest.mark.parametrize("driver", params(of("mariadb")))
def test_a_lock_timeout_that_ends_the_statement_alone_may_be_caught(driver: Driver, mariadb: MariaDBServer) -> None:
    units = units_on(driver, mariadb)
    attempts = []

    def work(session: Session) -> None:
        attempts.append(1)
        session.execute(text("UPDATE t SET x = x + 1 WHERE id = 2"))
        let_go = by_lock(session, units)
        with pytest.raises(DBAPIError, match="1205"):
            session.execute(text("UPDATE t SET x = x + 1 WHERE id = 1"))
        let_go()

    units.run(work)
    assert attempts == [1]
    assert units.sql("SELECT id, x FROM t ORDER BY id") == [(1, 10), (2, 1)]
