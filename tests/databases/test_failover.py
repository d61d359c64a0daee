"""Several hosts: the primary is found, and found again after a promotion under load."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import TextClause, text
from sqlmodel import Session

from dbconfig import CommitUncertain, ConfigError, Profile, Registry
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQLServer, PostgreSQLStandby
from tests.support.processes import wait_until

DRIVERS = ("psycopg2", "psycopg")


@pytest.fixture
def standby(postgresql: PostgreSQLServer) -> Iterator[PostgreSQLStandby]:
    with postgresql.standby() as running:
        running.database = postgresql.database
        yield running


def registry(driver: str, hosts: list[str], server: PostgreSQLServer, **settings: object) -> Registry:
    pytest.importorskip(driver)
    given = {"username": server.user, "password": server.password, "database": server.database}
    return Registry.from_profile(
        Profile(name="several", drivername=f"postgresql+{driver}", host=hosts, **given, **settings)
    )


def run(statement: TextClause, session: Session) -> None:
    session.execute(statement)


def port_of(session: Session) -> int:
    return int(session.execute(text("SHOW port")).scalar_one())


@pytest.mark.server
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_primary_is_taken_wherever_it_stands_in_the_list(
    driver: str, postgresql: PostgreSQLServer, standby: PostgreSQLStandby
) -> None:
    primary, second = f"127.0.0.1:{postgresql.port}", f"127.0.0.1:{standby.port}"
    dead = f"127.0.0.1:{free_port()}"
    for hosts in ([primary, second], [second, primary], [dead, second, primary]):
        with registry(driver, hosts, postgresql) as db, db.session() as session:
            assert port_of(session) == postgresql.port
    with registry(driver, [primary, second], postgresql, query={"target_session_attrs": "standby"}) as db:
        standby.catch_up()
        with db.session() as session:
            assert port_of(session) == standby.port


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("end", ["kill", "demote"])
def test_a_promotion_under_load_loses_nothing_that_was_acknowledged(
    driver: str, end: str, postgresql: PostgreSQLServer, standby: PostgreSQLStandby
) -> None:
    hosts = [f"127.0.0.1:{postgresql.port}", f"127.0.0.1:{standby.port}"]
    postgresql.sql("CREATE TABLE journal (name text PRIMARY KEY)")
    stop, errors = threading.Event(), list[BaseException]()
    acknowledged: list[tuple[float, str]] = []
    uncertain: list[str] = []

    def work(db: Registry, number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            name = f"{number}-{turn}"
            insert = text("INSERT INTO journal VALUES (:name)").bindparams(name=name)
            try:
                db.run_in_transaction(partial(run, insert), timeout=30, attempts=20)
            except CommitUncertain:
                uncertain.append(name)
            except BaseException as error:
                errors.append(error)
            else:
                acknowledged.append((time.monotonic(), name))

    with registry(driver, hosts, postgresql, connect_timeout="2s", pool_timeout="10s") as db:
        threads = [threading.Thread(target=work, args=(db, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) >= 20, "the first transactions")
        if end == "kill":
            # What is acknowledged must be on the standby too: as synchronous_commit would see to.
            postgresql.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            postgresql.sql("SELECT pg_reload_conf()")
            synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_until(lambda: postgresql.sql(synchronous) == [(1,)], "the synchronous standby")
            postgresql.kill()
        else:
            # An orderly switch: the old primary stays up, and refuses to write.
            postgresql.sql("ALTER SYSTEM SET default_transaction_read_only = on")
            postgresql.sql("SELECT pg_reload_conf()")
            setting = "SHOW default_transaction_read_only"
            wait_until(lambda: postgresql.sql(setting) == [("on",)], "the end of writing")
            standby.catch_up()
        moment = time.monotonic()
        standby.promote()
        wait_until(lambda: any(at > moment for at, _ in list(acknowledged)), "writes after the promotion", timeout=60)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        with db.session() as session:
            assert port_of(session) == standby.port
    found = {name for (name,) in standby.sql("SELECT name FROM journal")}
    back = min((at - moment for at, _ in acknowledged if at > moment), default=None)
    assert errors == []
    assert back is not None
    missing = {name for _, name in acknowledged} - found
    assert missing == set()
    assert found <= {name for _, name in acknowledged} | set(uncertain)
    print(f"{driver}, {end}: back after {back:.2f} s, {len(acknowledged)} acknowledged, {len(uncertain)} uncertain")
    if end == "demote":
        postgresql.sql("ALTER SYSTEM RESET ALL")
        postgresql.sql("SELECT pg_reload_conf()")
    else:
        postgresql.start()
        postgresql.sql("ALTER SYSTEM RESET ALL")
        postgresql.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("hosts", "names", "ports"),
    [
        (["one", "two"], "one,two", "6000,6000"),
        (["one:5433", "two"], "one,two", "5433,6000"),
        (["::1", "[fe80::1]:5433", "10.0.0.1"], "::1,fe80::1,10.0.0.1", "6000,5433,6000"),
        (["/run/postgresql", "two:1"], "/run/postgresql,two", "6000,1"),
    ],
)
def test_hosts_and_ports_are_written_as_libpq_reads_them(hosts: list[str], names: str, ports: str) -> None:
    profile = Profile(name="several", drivername="postgresql", host=hosts, port=6000, database="d")
    query = profile.databases["default"].address.query
    assert query == {"target_session_attrs": ("read-write",), "host": (names,), "port": (ports,)}


@pytest.mark.parametrize(
    ("url", "hosts", "told"),
    [
        ("postgresql://", [], "between one and 32 hosts"),
        ("postgresql://", ["one:0"], "a port between 1 and 65535"),
        ("postgresql://", ["one:x"], "a port between 1 and 65535"),
        ("postgresql://", [3], "each host must be text"),
        ("postgresql://", ["a b:1"], "not a `host` or `host:port`"),
        ("postgresql://one", ["two"], "given both by `url` and by `host`"),
        ("mysql://one", ["two"], "given both by `url` and by `host`"),
        ("mysql://", ["one", "/run/mysqld/mysqld.sock"], "cannot contain sockets on MySQL"),
        ("sqlite://", ["one", "two"], "has no effect on"),
    ],
)
def test_hosts_that_are_none_are_refused(url: str, hosts: list, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Profile(name="several", url=url, host=hosts)
