"""Group replication of MySQL with one primary: the primary is found, and after a failover no read is stale."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlmodel import Session

from dbconfig import CommitUncertain, Profile, Registry
from tests.support import mysql, servers
from tests.support.mariadb import account
from tests.support.ports import free_port
from tests.support.processes import wait_until

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not mysql.wanted(), reason="of MySQL alone; DBCONFIG_TEST_MYSQL=… names one"),
]

MEMBERS = "SELECT member_port, member_state, member_role FROM performance_schema.replication_group_members"


class Group:
    """Three servers that elect a primary among themselves."""

    def __init__(self, stack: ExitStack) -> None:
        name, places = str(uuid.uuid4()), [f"127.0.0.1:{free_port()}" for _ in range(3)]
        self.nodes: list[Any] = []
        for number, place in enumerate(places, 1):
            settings = {
                "group_replication_group_name": name,
                "group_replication_local_address": place,
                "group_replication_group_seeds": ",".join(places),
                "group_replication_start_on_boot": "OFF",
                "group_replication_consistency": "BEFORE_ON_PRIMARY_FAILOVER",
                "group_replication_ssl_mode": "DISABLED",
                "group_replication_recovery_get_public_key": "ON",
            }
            own = {"server-id": number, "log-bin": "binlog", "plugin-load-add": "group_replication.so"}
            node = stack.enter_context(
                servers.mariadb(settings=own | {f"loose-{key}": value for key, value in settings.items()})
            )
            self.nodes.append(node)
            self._join(node, first=number == 1)
        wait_until(lambda: self.members() == {node.port: "ONLINE" for node in self.nodes}, "the group")

    def _join(self, node: Any, *, first: bool) -> None:
        node._administrate("RESET BINARY LOGS AND GTIDS")
        statements = [
            "SET SQL_LOG_BIN = 0",
            f"CREATE USER {account('group')} IDENTIFIED BY 'group'",
            "GRANT REPLICATION SLAVE, CONNECTION_ADMIN, BACKUP_ADMIN, GROUP_REPLICATION_STREAM ON *.* "
            f"TO {account('group')}",
            "SET SQL_LOG_BIN = 1",
            "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'group', SOURCE_PASSWORD = 'group' "
            "FOR CHANNEL 'group_replication_recovery'",
            f"SET GLOBAL group_replication_bootstrap_group = {'ON' if first else 'OFF'}",
            "START GROUP_REPLICATION",
            "SET GLOBAL group_replication_bootstrap_group = OFF",
        ]
        connection = node._connect(None)
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()

    def members(self, *, by: int = 0) -> dict[int, str]:
        return {port: state for port, state, _ in self.nodes[by]._administrate(MEMBERS)}

    def registry(self, driver: str) -> Registry:
        known = self.nodes[0]
        profile = Profile(
            name="group",
            drivername=f"mysql+{driver}",
            username=known.user,
            password=known.password,
            database=known.database,
            host=[f"{node.host}:{node.port}" for node in self.nodes],
            replicas=[{"host": node.host, "port": node.port} for node in self.nodes],
            pool_timeout=60,
            connect_timeout="3s",
        )
        return Registry.from_profile(profile)


@pytest.fixture
def group() -> Iterator[Group]:
    with ExitStack() as stack:
        yield Group(stack)


class Ledger:
    """What became of each unit, and of the read after it."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.reads = self.stale = 0
        self.enough = threading.Event()

    def wait_for(self, more: int) -> None:
        so_far = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) >= so_far + more, f"{more} more units", timeout=180)

    def note_read(self, found: object) -> None:
        self.reads += 1
        self.stale += not found


def insert(name: str, session: Session) -> None:
    session.execute(text("INSERT INTO journal VALUES (:name)"), {"name": name})


FIND = text("SELECT count(*) FROM journal WHERE name = :name")


def write_and_read(db: Registry, ledger: Ledger) -> None:
    while not ledger.enough.is_set():
        name = str(uuid.uuid4())
        try:
            db.run_in_transaction(partial(insert, name), timeout=120)
        except CommitUncertain:
            continue
        ledger.acknowledged.append(name)
        try:
            with db.session(read_only=True) as session:
                ledger.note_read(session.scalar(FIND, {"name": name}))
        except exc.DBAPIError as error:  # a read whose server dies under it raises; nobody repeats it
            if not error.connection_invalidated:
                raise


async def async_write_and_read(db: Registry, ledger: Ledger) -> None:
    while not ledger.enough.is_set():
        name = str(uuid.uuid4())

        async def work(session: Any, name: str = name) -> None:
            await session.run_sync(partial(insert, name))

        try:
            await db.async_run_in_transaction(work, timeout=120)
        except CommitUncertain:
            continue
        ledger.acknowledged.append(name)
        try:
            async with db.async_session(read_only=True) as session:
                ledger.note_read(await session.scalar(FIND, {"name": name}))
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql", "asyncmy"])
def test_the_next_primary_is_found_and_no_read_is_stale(driver: str, group: Group) -> None:
    pytest.importorskip(driver)
    first, second, third = group.nodes
    first.sql("CREATE TABLE journal (name varchar(40) PRIMARY KEY)")
    db, ledger = group.registry(driver), Ledger()

    def run() -> None:
        if driver == "pymysql":
            with ThreadPoolExecutor(4) as threads:
                for each in [threads.submit(write_and_read, db, ledger) for _ in range(4)]:
                    each.result()
            return

        async def main() -> None:
            await asyncio.gather(*(async_write_and_read(db, ledger) for _ in range(4)))
            await db.async_dispose()

        asyncio.run(main())

    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(run)
        try:
            ledger.wait_for(20)
            first.stop("immediate")
            ledger.wait_for(40)
        finally:
            ledger.enough.set()
        running.result()
    db.dispose()
    assert ledger.stale == 0
    assert ledger.reads > 40
    wait_until(lambda: group.members(by=1) == {second.port: "ONLINE", third.port: "ONLINE"}, "the group of two")
    names = [name for (name,) in second.sql("SELECT name FROM journal")]
    assert set(ledger.acknowledged) <= set(names)
