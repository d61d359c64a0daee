"""Several hosts of one database, for threads and for tasks: who is found, and at what cost."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.util import await_only
from sqlmodel import Session

from dbconfig import Profile, Registry
from dbconfig.engine import pool
from dbconfig.engine.dialects.mysql import server_role as mysql_role
from dbconfig.engine.dialects.server_role import Answer, Role
from dbconfig.engine.primary import greeting, watch
from dbconfig.engine.primary.search import SPACING
from dbconfig.engine.primary.watch import PLACE
from tests.support import mysql
from tests.support.pgbouncer import pgbouncer
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.server import Server

pytestmark = pytest.mark.server

KINDS = [
    ("postgresql", "psycopg2", "sync"),
    ("postgresql", "psycopg", "sync"),
    ("postgresql", "psycopg", "async"),
    ("postgresql", "asyncpg", "async"),
    ("mariadb", "pymysql", "sync"),
    ("mariadb", "aiomysql", "async"),
    ("mariadb", "asyncmy", "async"),
]
PORT = {"postgresql": "SELECT inet_server_port()", "mariadb": "SELECT @@port"}


@dataclass
class Cluster:
    """A primary and its standby, each behind a proxy, and registries of the list of both."""

    system: str
    driver: str
    style: str
    primary: Server
    standby: Any
    stack: ExitStack
    ways: dict[str, Proxy] = field(default_factory=dict)
    promoted: bool = False  # the standby follows nobody any more

    def __post_init__(self) -> None:
        self.runner = self.stack.enter_context(asyncio.Runner()) if self.style == "async" else None
        for name in ("primary", "standby"):
            server = getattr(self, name)
            self.ways[name] = self.stack.enter_context(Proxy(server.host, server.port))

    def hosts(self, *names: str) -> list[str]:
        return [f"{self.ways[name].host}:{self.ways[name].port}" for name in names]

    def registry(self, hosts: list[str] | None = None, **settings: Any) -> Registry:
        known = self.primary
        given = {"username": known.user, "password": known.password, "database": known.database, **settings}
        system = "postgresql" if self.system == "postgresql" else "mysql"
        hosts = hosts or self.hosts("standby", "primary")
        return Registry.from_profile(Profile(name="several", drivername=f"{system}+{self.driver}", host=hosts, **given))

    def use(self, db: Registry, work: Callable[[Session], Any], *, read_only: bool = False) -> Any:
        """Run a function with a session."""
        if self.runner is None:
            with db.session(read_only=read_only) as session:
                return work(session)

        async def twin() -> Any:
            async with db.async_session(read_only=read_only) as session:
                return await session.run_sync(work)

        return self.runner.run(twin())

    def port(self, db: Registry, *, read_only: bool = False) -> int:
        return int(self.use(db, lambda session: session.scalar(text(PORT[self.system])), read_only=read_only))

    def unit(self, db: Registry, statement: str) -> None:
        """Run a statement as a unit of work."""
        if self.runner is None:
            db.run_in_transaction(lambda session: session.execute(text(statement)))
            return

        async def work(session: Any) -> None:
            await session.run_sync(lambda inner: inner.execute(text(statement)))

        self.runner.run(db.async_run_in_transaction(work))

    def engine(self, db: Registry) -> Any:
        if self.runner is None:
            return db.engine()

        async def here() -> Any:
            return db.async_engine().sync_engine

        return self.runner.run(here())

    def way_of(self, session: Session) -> Proxy:
        """Return the proxy that a session's connection goes through."""
        host = session.connection().connection.info[PLACE]
        return next(way for way in self.ways.values() if (way.host, way.port) == host)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that the event loop, if there is one, has still to do."""

        def holds() -> bool:
            if self.runner is not None:
                self.runner.run(asyncio.sleep(0.01))
            return condition()

        wait_until(holds, what, timeout=120)

    def end(self, db: Registry) -> None:
        if self.runner is not None:
            self.runner.run(db.async_dispose())
        db.dispose()

    def promote(self) -> None:
        self.promoted = True
        if self.system == "postgresql":
            self.standby.promote()
        else:
            self.standby.catch_up()
            self.standby.sql("SET GLOBAL read_only = OFF")


@pytest.fixture(scope="module")
def standbys() -> Iterator[dict[str, Any]]:
    """The standby of each system, for one test after the other: to make one takes longer than most of them."""
    made: dict[str, Any] = {}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture(params=KINDS, ids="-".join)
def cluster(request: pytest.FixtureRequest, standbys: dict[str, Any]) -> Iterator[Cluster]:
    system, driver, style = request.param
    pytest.importorskip(driver)
    primary = request.getfixturevalue(system)
    if system not in standbys:
        standbys[system] = primary.standby() if system == "postgresql" else primary.replica()
    standby = standbys[system]
    standby.database = primary.database
    standby.catch_up()
    with ExitStack() as stack:
        made = Cluster(system, driver, style, primary, standby, stack)
        yield made
    if made.promoted:
        standbys.pop(system).close()


class Opened:
    """A registry whose engines end with the block."""

    def __init__(self, cluster: Cluster, hosts: list[str] | None = None, **settings: Any) -> None:
        self.cluster, self.db = cluster, cluster.registry(hosts, **settings)

    def __enter__(self) -> Registry:
        return self.db

    def __exit__(self, *_: object) -> None:
        self.cluster.end(self.db)


def test_each_kind_of_session_finds_the_primary_and_the_next_connection_goes_straight_there(cluster: Cluster) -> None:
    with Opened(cluster) as db:
        assert cluster.port(db) == cluster.primary.port
        cluster.wait(lambda: cluster.ways["standby"].connections == 0, "the end of what asked the standby")
        cluster.ways["standby"].reset_counters()

        def two(session: Session) -> int:
            session.connection()
            beside = session.get_bind().pool.connect()  # type: ignore[union-attr]
            beside.close()
            return 0

        cluster.use(db, two)
        assert pool.stats(cluster.engine(db)).created == 2
        assert cluster.ways["standby"].accepted == 0
        assert cluster.port(db, read_only=True) == cluster.primary.port


def test_hosts_that_are_silent_or_close_what_they_accept_cost_no_connect_timeout(cluster: Cluster) -> None:
    cluster.ways["standby"].mute_accept()
    closes = cluster.stack.enter_context(Proxy(cluster.primary.host, free_port()))  # as a balancer without a server
    hosts = [*cluster.hosts("standby"), f"{closes.host}:{closes.port}", *cluster.hosts("primary")]
    with Opened(cluster, hosts, connect_timeout="120s", pool_timeout="300s") as db:
        started = time.monotonic()
        assert cluster.port(db) == cluster.primary.port
        assert time.monotonic() - started < 100


def test_after_a_promotion_no_connection_to_the_server_of_before_is_handed_out(cluster: Cluster) -> None:
    cluster.primary.sql("CREATE TABLE journal (name varchar(10) PRIMARY KEY)")
    with Opened(cluster, connect_timeout="3s", pool_timeout="60s", pool_size=3) as db:
        engine = cluster.engine(db)

        def three(session: Session) -> None:
            held = [session.get_bind().pool.connect() for _ in range(2)]  # type: ignore[union-attr]
            session.execute(text("INSERT INTO journal VALUES ('before')"))
            session.commit()
            for each in held:
                each.close()

        cluster.use(db, three)
        assert len(pool.ledger(engine).live()) >= 2
        cluster.standby.catch_up()
        cluster.ways["primary"].swallow()  # as a machine that stands still
        cluster.promote()
        cluster.unit(db, "INSERT INTO journal VALUES ('after')")
        cluster.ways["primary"].pass_through()  # it wakes, and calls itself primary still
        new = cluster.ways["standby"]

        def leads_there() -> bool:
            return {record.info[PLACE] for record in pool.ledger(engine).live()} == {(new.host, new.port)}

        cluster.wait(leads_there, "the end of all connections to the server of before")
        for _ in range(5):
            assert cluster.port(db) == cluster.standby.port
    assert cluster.standby.sql("SELECT count(*) FROM journal") == [(2,)]
    assert cluster.primary.sql("SELECT count(*) FROM journal") == [(1,)]


def test_a_statement_that_waits_for_a_server_that_stands_still_ends_with_the_promotion(cluster: Cluster) -> None:
    cluster.primary.sql("CREATE TABLE journal (name varchar(10) PRIMARY KEY)")
    with Opened(cluster, connect_timeout="3s", pool_timeout="120s") as db:
        cluster.unit(db, "INSERT INTO journal VALUES ('before')")
        cluster.standby.catch_up()

        def stand_still(session: Session) -> None:
            session.connection()
            cluster.ways["primary"].swallow()
            cluster.promote()
            session.execute(text("INSERT INTO journal VALUES ('lost')"))

        started = time.monotonic()
        with pytest.raises(exc.DBAPIError):
            cluster.use(db, stand_still)
        # Not by TCP's own limits alone: the watch has looked where the primary is.
        assert cluster.port(db) == cluster.standby.port
        print(f"{cluster.driver}: ended after {time.monotonic() - started:.1f} s")
    assert cluster.primary.sql("SELECT count(*) FROM journal") == [(1,)]


def test_without_a_primary_each_host_is_asked_once_a_second_and_the_error_says_why(cluster: Cluster) -> None:
    cluster.ways["primary"].refuse()
    with Opened(cluster, pool_timeout="6s", connect_timeout="5s") as db:
        started = time.monotonic()
        with pytest.raises(exc.OperationalError) as told:
            cluster.port(db)
        passed = time.monotonic() - started
        assert "none of the hosts is a usable primary" in str(told.value)
        assert "it is a standby" in str(told.value) or "read_only is on" in str(told.value)
        assert any("dbconfig[no-primary]" in note for note in told.value.__notes__)
        assert cluster.ways["standby"].accepted <= passed / SPACING + 1
        cluster.ways["primary"].pass_through()
        wait_until(lambda: _succeeds(cluster, db), "the primary, which is back")


def _succeeds(cluster: Cluster, db: Registry) -> bool:
    try:
        return cluster.port(db) == cluster.primary.port
    except exc.DBAPIError:
        return False


def test_a_wrong_password_is_told_at_once(cluster: Cluster) -> None:
    with Opened(cluster, password="wrong", pool_timeout="300s") as db:
        with pytest.raises(exc.OperationalError) as told:
            cluster.port(db)
        # A password that is not known yet goes to MySQL over TLS, or encrypted by `cryptography`.
        bare = cluster.system == "mariadb" and mysql.wanted() and find_spec("cryptography") is None
        code = "tls-required" if bare else "login-rejected"
        assert any(f"dbconfig[{code}]" in note for note in told.value.__notes__)


WAYS = {"postgresql": ("role", "database", "options"), "mariadb": ("init_connect", "global")}


@pytest.mark.parametrize(
    ("cluster", "way"),
    [pytest.param(kind, way, id="-".join([way, *kind])) for kind in KINDS for way in WAYS[kind[0]]],
    indirect=["cluster"],
)
def test_a_role_that_is_read_only_by_default_is_reported_at_once_with_its_remedy(cluster: Cluster, way: str) -> None:
    primary, given = cluster.primary, dict[str, Any]()
    primary.sql("CREATE TABLE journal (name varchar(10) PRIMARY KEY)")
    variable = "default_transaction_read_only"
    do, undo, words = {
        "role": (
            f"ALTER ROLE {primary.user} SET {variable} = on",
            f"BEGIN READ WRITE; ALTER ROLE {primary.user} RESET {variable}; COMMIT",
            f'to undo it: ALTER ROLE "{primary.user}" RESET {variable}',
        ),
        "database": (
            f'ALTER DATABASE "{primary.database}" SET {variable} = on',
            f'BEGIN READ WRITE; ALTER DATABASE "{primary.database}" RESET {variable}; COMMIT',
            f'to undo it: ALTER DATABASE "{primary.database}" RESET {variable}',
        ),
        "options": ("SELECT 1", "SELECT 1", f"{variable} is set in PGOPTIONS or the options of the connection"),
        "init_connect": (
            "SET GLOBAL init_connect = 'SET SESSION TRANSACTION READ ONLY'",
            "SET GLOBAL init_connect = ''",
            "to undo it: SET GLOBAL init_connect = ''",
        ),
        "global": ("SET GLOBAL TRANSACTION READ ONLY", "SET GLOBAL TRANSACTION READ WRITE", "to undo it: SET GLOBAL t"),
    }[way]
    if way == "options":
        given = {"query": {"options": f"-c {variable}=on"}}
    cluster.standby.catch_up()
    primary.sql(do)
    try:
        # No limit ends before the test's own: what waits for one fails.
        with Opened(cluster, pool_timeout="3000s", connect_timeout="300s", **given) as db:
            with pytest.raises(exc.DBAPIError) as told:
                cluster.unit(db, "INSERT INTO journal VALUES ('a')")
            assert words in str(told.value) + "\n".join(told.value.__notes__)
            assert "dbconfig[read-only-by-default]" in "\n".join(told.value.__notes__)
            primary.sql(undo)
            if way != "options":
                cluster.unit(db, "INSERT INTO journal VALUES ('b')")
                assert primary.sql("SELECT name FROM journal") == [("b",)]
    finally:
        primary.sql(undo)


def test_a_server_that_is_the_primary_no_more_is_left(cluster: Cluster) -> None:
    """As after an orderly switch: the old one stays up, and refuses to write."""
    cluster.primary.sql("CREATE TABLE journal (name varchar(10) PRIMARY KEY)")
    with Opened(cluster, pool_timeout="60s") as db:
        cluster.unit(db, "INSERT INTO journal VALUES ('before')")
        cluster.standby.catch_up()
        if cluster.system == "postgresql":
            cluster.primary.stop()
        else:
            cluster.primary.sql("SET GLOBAL read_only = ON")
        cluster.promote()
        cluster.unit(db, "INSERT INTO journal VALUES ('after')")
        assert cluster.port(db) == cluster.standby.port
        assert cluster.port(db, read_only=True) == cluster.standby.port
    if cluster.system == "mariadb":
        cluster.primary.sql("SET GLOBAL read_only = OFF")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] == "postgresql"], ids="-".join)
def test_a_pooler_before_each_server_is_asked_and_left_as_its_server_would_be(
    kind: tuple[str, str, str], postgresql: Any
) -> None:
    _, driver, style = kind
    pytest.importorskip(driver)
    with ExitStack() as stack:
        standby = stack.enter_context(postgresql.standby())
        standby.database = postgresql.database
        standby.catch_up()
        cluster = Cluster("postgresql", driver, style, postgresql, standby, stack)
        for name, server in (("primary", postgresql), ("standby", standby)):
            bouncer = stack.enter_context(pgbouncer(server))
            cluster.ways[name].lead_to(bouncer.host, bouncer.port)
        postgresql.sql("CREATE TABLE journal (name varchar(10) PRIMARY KEY)")
        with Opened(cluster, pgbouncer=True, pool_timeout="120s", statement_timeout="100s") as db:
            cluster.unit(db, "INSERT INTO journal VALUES ('before')")
            assert cluster.port(db) == postgresql.port
            assert cluster.port(db, read_only=True) == postgresql.port
            standby.catch_up()
            cluster.ways["primary"].swallow()  # the machine of the primary and its pooler
            cluster.promote()
            cluster.unit(db, "INSERT INTO journal VALUES ('after')")
            cluster.ways["primary"].pass_through()
            assert cluster.port(db) == standby.port
        assert standby.sql("SELECT count(*) FROM journal") == [(2,)]
        assert postgresql.sql("SELECT count(*) FROM journal") == [(1,)]


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql", "asyncmy"])
def test_what_waits_for_a_node_of_several_that_stands_still_ends_and_runs_again_elsewhere(
    driver: str, mariadb: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(driver)
    node = Answer(Role.ONE_OF_SEVERAL, "the node is synced")  # as each node of Galera says
    monkeypatch.setattr(mysql_role, "ask", lambda connection, **how: node)
    with ExitStack() as stack:
        style = "sync" if driver == "pymysql" else "async"
        cluster = Cluster("mariadb", driver, style, mariadb, mariadb, stack)
        db = cluster.registry(cluster.hosts("primary", "standby"))
        cluster.use(db, lambda session: session.connection())
        attempts: list[int] = []

        def work(session: Session) -> None:
            attempts.append(session.info["attempt"])
            if len(attempts) == 1:
                cluster.way_of(session).swallow()
            session.execute(text("DO 1"))

        async def twin(session: Any) -> None:
            await session.run_sync(work)

        if cluster.runner is None:
            db.run_in_transaction(work, timeout=600)
        else:
            cluster.runner.run(asyncio.wait_for(db.async_run_in_transaction(twin, timeout=600), 120))
        assert attempts == [1, 2]
        for way in cluster.ways.values():
            way.pass_through()
        cluster.end(db)


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql", "asyncmy"])
def test_when_one_connect_leaves_a_silent_node_every_statement_that_waits_for_it_ends(
    driver: str, mariadb: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(driver)
    node = Answer(Role.ONE_OF_SEVERAL, "the node is synced")
    monkeypatch.setattr(mysql_role, "ask", lambda connection, **how: node)
    monkeypatch.setattr(watch, "HELD", 3600.0)  # no look because of what is in use
    with ExitStack() as stack:
        style = "sync" if driver == "pymysql" else "async"
        cluster = Cluster("mariadb", driver, style, mariadb, mariadb, stack)
        db = cluster.registry(cluster.hosts("primary", "standby"), pool_timeout="300s", connect_timeout="300s")

        def wait_for_it(session: Session) -> None:
            cluster.way_of(session).swallow()
            beside = Thread(target=lambda: session.get_bind().pool.connect().close())  # type: ignore[union-attr]
            beside.start()
            try:
                session.execute(text("DO 1"))
            finally:
                beside.join()

        async def wait_for_it_in_a_task() -> None:
            async with db.async_session() as first, db.async_session() as second:
                (await first.run_sync(cluster.way_of)).swallow()
                await asyncio.gather(first.scalar(text("SELECT 1")), second.connection())

        def run() -> None:
            if cluster.runner is None:
                cluster.use(db, wait_for_it)
            else:
                cluster.runner.run(asyncio.wait_for(wait_for_it_in_a_task(), 600))

        with pytest.raises(exc.DBAPIError):
            run()
        for way in cluster.ways.values():
            way.pass_through()
        cluster.end(db)


def test_a_slow_node_of_several_that_still_greets_keeps_what_it_works_on(
    mariadb: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Answer(Role.ONE_OF_SEVERAL, "the node is synced")
    monkeypatch.setattr(mysql_role, "ask", lambda connection, **how: node)
    with ExitStack() as stack:
        cluster = Cluster("mariadb", "pymysql", "sync", mariadb, mariadb, stack)
        db = cluster.registry(cluster.hosts("primary", "standby"))
        looks: list[bool] = []
        real = greeting.is_heard

        def heard(host: tuple[str, int], request: bytes) -> bool:
            looks.append(real(host, request))
            return looks[-1]

        monkeypatch.setattr(greeting, "is_heard", heard)
        with db.session() as session:
            way = cluster.way_of(session)
            way.delay(0.6)  # more than a server has before the others are asked
            cluster.wait(lambda: bool(looks), "a look at the server that was left")
            assert looks[0]
            way.pass_through()
            assert session.scalar(text("SELECT 1")) == 1
        cluster.end(db)


def test_what_waits_for_a_replica_of_several_hosts_that_stands_still_ends(cluster: Cluster) -> None:
    only = cluster.hosts("primary")[0].rpartition(":")
    group = {"host": cluster.hosts("standby", "primary")}
    settings = {"replicas": [group], "replica_max_lag": False, "pool_timeout": "300s", "connect_timeout": "60s"}
    with Opened(cluster, only[0], port=int(only[2]), **settings) as db:  # type: ignore[arg-type]
        assert cluster.port(db, read_only=True) == cluster.standby.port
        cluster.ways["standby"].swallow()
        # The first statement waits for the server that stands still, and is sent to the other one.
        assert cluster.port(db, read_only=True) == cluster.primary.port
        cluster.ways["standby"].pass_through()

        def stand_still(session: Session) -> None:
            session.connection()
            cluster.ways["primary"].swallow()
            session.execute(text("SELECT 1"))

        with pytest.raises(exc.DBAPIError):
            cluster.use(db, stand_still, read_only=True)
        assert cluster.port(db, read_only=True) == cluster.standby.port
        cluster.ways["primary"].pass_through()


def test_a_replica_of_several_hosts_that_is_slow_keeps_what_it_works_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    real = greeting.is_heard

    def heard(host: tuple[str, int], request: bytes) -> bool:
        looks.append(real(host, request))
        return looks[-1]

    monkeypatch.setattr(greeting, "is_heard", heard)
    monkeypatch.setattr(greeting, "LIMIT", 30.0)
    only = cluster.hosts("primary")[0].rpartition(":")
    group = {"host": cluster.hosts("standby", "primary")}
    settings = {"replicas": [group], "replica_max_lag": False, "pool_timeout": "300s", "connect_timeout": "60s"}
    with Opened(cluster, only[0], port=int(only[2]), **settings) as db:  # type: ignore[arg-type]

        def wait(session: Session) -> None:
            session.connection()
            cluster.ways["standby"].delay(0.3)  # more than a server has before the others are asked
            if cluster.runner is None:
                wait_until(lambda: bool(looks), "a look at the server that was left", timeout=120)
            while not looks:  # the limit of a test ends it
                await_only(asyncio.sleep(0.01))
            cluster.ways["standby"].pass_through()
            assert session.scalar(text(PORT[cluster.system])) == cluster.standby.port

        cluster.use(db, wait, read_only=True)
        assert looks[0]
