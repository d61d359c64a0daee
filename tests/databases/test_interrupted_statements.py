"""A statement whose caller was interrupted ends on the server, and its transaction gives up its locks."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from tests.support import drivers
from tests.support.processes import wait_until
from tests.support.servers import Server

pytestmark = pytest.mark.server

LIMIT = 60.0  # seconds; nothing takes so long
# MariaDB notices the end of a client that sleeps, but not of one that computes.
ENDLESS = {
    "postgresql": "SELECT count(*) FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b",
    "mariadb": "SELECT BENCHMARK(1000000000000, SHA2('x', 256))",
}
# PostgreSQL 15 loses a request to cancel that arrives while it compiles the statement, in its first tenth of a second.
# After a task is cancelled, its connection is ended, too. In a thread, psycopg waits until the request is confirmed.
NOT_COMPILED = {"postgresql": {"variables": {"jit": False}}, "mariadb": {}}
TASKS = [each for each in drivers.SERVED if each.asynchronous]
THREADS = ("pymysql", "psycopg")  # psycopg2 is deaf to signals: see the tests of interrupts in a process of their own
LOCKED = "UPDATE item SET n = n + 1"
RUNNING = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE query IN ({0}, {1}) AND state = 'active'",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE info IN ({0}, {1})",
}


def running(server: Server, system: str) -> list[Any]:
    written = ["'" + each.replace("'", "''") + "'" for each in (ENDLESS[system], LOCKED)]
    return list(server.sql(RUNNING[system].format(*written)))


@pytest.fixture(params=["endless", "locked"])
def statement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Interrupted:
    """A database with a statement that lasts, of a task or of the main thread."""

    def __init__(self, driver: drivers.Driver, request: pytest.FixtureRequest, kind: str) -> None:
        url = driver.url(request)
        self.system, self.driver = driver.server, driver
        self.server: Server = request.getfixturevalue(driver.server)
        self.statement = ENDLESS[self.system] if kind == "endless" else LOCKED
        self.server.sql("CREATE TABLE item (n INT)")
        self.server.sql("CREATE TABLE held (n INT)")
        self.server.sql("INSERT INTO item VALUES (1)")
        self.server.sql("INSERT INTO held VALUES (1)")
        # The lock on `item` is not waited for in vain.
        more: dict[str, Any] = {"lock_timeout": "1000s"} if kind == "locked" else {}
        if not driver.asynchronous:
            more |= NOT_COMPILED[self.system]
        settings: Any = {"url": url, "pool_size": 2, "max_overflow": 0, **more}
        self.db = Registry.from_profile(Profile(name="interrupted", **settings))
        self.plain = drivers.plain(driver.server).url(request)
        self.kind = kind

    def blocker(self) -> Registry:
        return Registry.from_profile(Profile(name="blocker", url=self.plain))

    def runs(self) -> bool:
        return bool(running(self.server, self.system))

    def wait_for_the_end(self) -> None:
        wait_until(lambda: not self.runs(), "the end of the statement on the server", timeout=LIMIT)
        # Its transaction has ended, too: nobody waits for the row that it had changed.
        wait_until(lambda: self.server.sql("UPDATE held SET n = n + 1") is not None, "the lock", timeout=LIMIT)


@pytest.mark.parametrize("driver", drivers.params(TASKS))
@pytest.mark.parametrize("way", ["cancel", "end of the loop"])
def test_the_statement_of_a_cancelled_task_ends_on_the_server(
    driver: drivers.Driver, way: str, statement: str, request: pytest.FixtureRequest
) -> None:
    it = Interrupted(driver, request, statement)

    async def use() -> None:
        async with it.db.async_transaction() as session:
            connection = await session.connection()
            await connection.execute(text("UPDATE held SET n = n + 1"))
            await connection.execute(text(it.statement))

    async def main() -> None:
        task = asyncio.create_task(use())
        async with asyncio.timeout(LIMIT):
            while not it.runs():
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if way == "cancel":
                while it.runs():
                    await asyncio.sleep(0.01)
                async with it.db.async_session() as session:
                    assert await session.scalar(text("SELECT 7")) == 7
                assert it.db.all_stats()[0].used == 0
                await it.db.async_dispose()

    with it.blocker() as blocker, it.db, blocker.transaction() as other:
        other.connection().execute(text("UPDATE item SET n = n + 1"))
        asyncio.run(main())
        it.wait_for_the_end()


@pytest.mark.parametrize("driver", drivers.params(drivers.BY_NAME[name] for name in THREADS))
def test_the_statement_of_a_thread_under_ctrl_c_ends_on_the_server(
    driver: drivers.Driver, statement: str, request: pytest.FixtureRequest
) -> None:
    it = Interrupted(driver, request, statement)

    def use(beside: threading.Thread) -> None:
        with it.db.transaction() as session:
            session.connection().execute(text("UPDATE held SET n = n + 1"))
            beside.start()
            session.connection().execute(text(it.statement))

    def interrupt() -> None:
        wait_until(it.runs, "the statement", timeout=LIMIT)
        os.kill(os.getpid(), signal.SIGINT)

    with it.blocker() as blocker, it.db, blocker.transaction() as other:
        other.connection().execute(text("UPDATE item SET n = n + 1"))
        beside = threading.Thread(target=interrupt)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a parallel pytest ignores it
        try:
            with pytest.raises(KeyboardInterrupt):
                use(beside)
        finally:
            signal.signal(signal.SIGINT, before)
        beside.join()
        it.wait_for_the_end()
        assert it.db.all_stats()[0].used == 0
