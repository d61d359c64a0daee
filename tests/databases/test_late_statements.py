"""A statement that reaches the server, or begins there, after its caller has given up does not run on.

PostgreSQL drops a request to cancel that reaches a backend between two statements, and MySQL does the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dbconfig import DeadlineExceeded, Profile, Registry
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool import statement_limit
from dbconfig.engine.pool.driver import Left
from tests.registries import ask
from tests.support import drivers, mysql
from tests.support.interpreter import run_python
from tests.support.postgresql import PostgreSQLServer
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.worlds import World

pytestmark = pytest.mark.server

OWN = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
LISTED = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE pid = {:d}",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE id = {:d}",
}
# MariaDB notices the end of a client that sleeps, but not of one that computes.
LASTS = {"postgresql": "SELECT pg_sleep(:long)", "mariadb": "SELECT BENCHMARK(:long, SHA2('x', 256))"}
LONG = {"postgresql": 600.0, "mariadb": 1_000_000_000_000}


class Held:
    """A registry whose one connection is in a network that keeps what the client sends."""

    def __init__(self, world: World, network: Proxy, **settings: Any) -> None:
        self.world, self.network = world, network
        self.db = world.open(network, **settings)
        self.number = world.do(self.db, OWN[world.kind])
        self.accepted = network.accepted
        plain = drivers.plain(world.kind)
        self.beside = Registry.from_profile(Profile(name="beside", url=str(world.server.url(plain.scheme))))

    def execute_late(self, session: Session) -> None:
        """Send a statement that the server receives at `release`."""
        statement = text(LASTS[self.world.kind])
        session.execute(statement, {"long": type(LONG[self.world.kind])()})  # so that a transaction has begun
        self.network.hold()
        session.execute(statement, {"long": LONG[self.world.kind]})

    def listed(self) -> bool:
        return bool(ask(self.beside, LISTED[self.world.kind].format(self.number)))

    def wait_for_the_request(self) -> None:
        """Wait until the server has been asked to end the statement."""
        network = self.network
        wait_until(
            lambda: self.world.turn() and network.accepted > self.accepted and network.connections == 0,
            "the request to cancel",
        )

    def wait_for_the_end(self) -> None:
        wait_until(lambda: self.world.turn() and not self.listed(), "the end of the connection on the server")


@pytest.fixture
def held(request: pytest.FixtureRequest, tmp_path: Path, proxy: Callable[[Any], Proxy]) -> Iterator[Held]:
    world = World(request.param, request, tmp_path)
    made = Held(world, proxy(world.server))
    with made.beside:
        yield made
        made.network.pass_through()
        world.end()


class Limit(Exception):
    """A job's time limit, raised by a signal handler."""


everywhere = pytest.mark.parametrize("held", drivers.params(drivers.SERVED), indirect=True)
tasks = pytest.mark.parametrize(
    "held", drivers.params(each for each in drivers.SERVED if each.asynchronous), indirect=True
)


@everywhere
def test_a_statement_does_not_run_that_arrives_after_its_deadline(held: Held) -> None:
    with pytest.raises(DeadlineExceeded), held.db.deadline(1.0):
        held.world.run(lambda doing: held.execute_late(doing.session), held.db)
    held.wait_for_the_request()
    held.network.release()
    held.wait_for_the_end()


@pytest.mark.parametrize("driver", drivers.params(drivers.of("mariadb")))
def test_a_statement_does_not_run_that_arrives_after_the_limit_of_the_client(
    driver: drivers.Driver,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    proxy: Callable[[Any], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MySQL has a limit of its own for SELECT alone, as this server without one."""
    monkeypatch.setattr(statement_limit, "GRACE", 0.3)
    world = World(driver, request, tmp_path)
    held = Held(world, proxy(world.server), statement_timeout=0.7)

    def work(doing: Any) -> None:
        doing(f"SET SESSION {'max_execution_time' if mysql.wanted() else 'max_statement_time'} = 0")
        held.execute_late(doing.session)

    with held.beside:
        with pytest.raises(DBAPIError):
            world.run(work, held.db)
        held.wait_for_the_request()
        held.network.release()
        held.wait_for_the_end()
        held.network.pass_through()
        world.end()


@tasks
def test_a_statement_does_not_run_that_arrives_after_its_task_was_cancelled(held: Held) -> None:
    async def use() -> None:
        async with held.db.async_session() as session:
            await session.run_sync(held.execute_late)

    async def main() -> None:
        task = asyncio.create_task(use())
        while not held.network.kept:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    held.world.loop(main())
    held.wait_for_the_request()
    held.network.release()
    held.wait_for_the_end()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Limit])
@pytest.mark.parametrize(
    "held", drivers.params(drivers.BY_NAME[name] for name in ("psycopg", "pymysql")), indirect=True
)
def test_a_statement_does_not_run_that_arrives_after_a_signal_handler_has_raised(
    held: Held, kind: type[BaseException]
) -> None:
    """psycopg waits for the confirmation of a request for Ctrl-C: the second one ends that."""
    times = 2 if (kind, held.world.drivername) == (KeyboardInterrupt, "postgresql+psycopg") else 1
    raised: list[BaseException] = []

    def strike(*_: object) -> None:
        raised.append(kind())
        raise raised[-1]

    def send() -> None:
        wait_until(lambda: held.network.kept > 0, "the statement")
        os.kill(os.getpid(), signal.SIGUSR1)
        if times == 2:
            wait_until(lambda: held.network.accepted > held.accepted, "the driver's own request")
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    beside = threading.Thread(target=send)
    try:
        with pytest.raises(kind):
            held.world.run(lambda doing: (beside.start(), held.execute_late(doing.session)), held.db)
    finally:
        beside.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(raised) == times
    held.wait_for_the_request()
    held.network.release()
    held.wait_for_the_end()


@everywhere
def test_a_statement_does_not_run_that_arrives_after_a_disposal(held: Held) -> None:
    db, world = held.db, held.world
    if world.runner is not None:

        async def use() -> None:
            async with db.async_session() as session:
                await session.run_sync(held.execute_late)

        async def main() -> None:
            task = asyncio.create_task(use())
            while not held.network.kept:
                await asyncio.sleep(0.01)
            await db.async_dispose(timeout=0.1)
            with pytest.raises((DBAPIError, TypeError)):  # which is asyncpg's when a connection is aborted
                await task

        world.loop(main())
    else:
        errors: list[BaseException] = []

        def work() -> None:
            with pytest.raises(DBAPIError) as caught:
                world.run(lambda doing: held.execute_late(doing.session), db)
            errors.append(caught.value)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: held.network.kept > 0, "the statement")
        db.dispose(timeout=0.1)
        thread.join()
        assert errors
    held.wait_for_the_request()
    held.network.release()
    held.wait_for_the_end()


@pytest.mark.parametrize("name", ["psycopg2", "psycopg"])
def test_a_connection_with_the_same_id_and_another_age_is_not_ended(name: str, request: pytest.FixtureRequest) -> None:
    """As it may exist at another server behind the same name, where a failover or a balancer has led."""
    db = Registry.from_profile(Profile(name="ages", url=drivers.BY_NAME[name].url(request)))
    engine = db.engine()
    own = driver_protocol.of(engine.dialect)
    with db, engine.connect() as innocent, engine.connect() as other:
        under = driver_protocol.own_of(innocent)
        number, left = own.number(under), own.leave(under)
        assert left.opened is not None
        for seconds in (-60.0, 60.0):
            another = Left(opened=(left.opened[0] + seconds, left.opened[1] + seconds))
            cursor = other.connection.cursor()
            assert not own.end(cursor, driver_protocol.own_of(other), number, another)
            assert innocent.scalar(text("SELECT 7")) == 7
        assert own.end(cursor, driver_protocol.own_of(other), number, left)
        with pytest.raises(DBAPIError):
            innocent.scalar(text("SELECT 8"))


INTERRUPTED = """
    import sys
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="keys", url=sys.argv[1]))
    with db.session() as session:
        print(session.scalar(text("SELECT pg_backend_pid()")), flush=True)
        sys.stdin.readline()
        session.scalar(text("SELECT pg_sleep(600)"))
"""


def test_a_statement_of_a_deaf_driver_ends_that_arrives_after_ctrl_c(
    postgresql: PostgreSQLServer, proxy: Callable[[Any], Proxy]
) -> None:
    """psycopg2 waits in C, where no signal handler runs: it has to be asked for until the statement is there."""
    network = proxy(postgresql)
    url = postgresql.url("postgresql+psycopg2", port=network.port)
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), url]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            network.hold()
            accepted = network.accepted
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            wait_until(lambda: network.kept > 0, "the statement")
            process.send_signal(signal.SIGINT)
            wait_until(lambda: network.accepted > accepted, "the request to cancel")
            network.release()
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert told.endswith("KeyboardInterrupt\n")


ENDS = """
    import asyncio, sys
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="ends", url=sys.argv[1]))

    async def main():
        async with db.async_session() as session:
            await session.scalar(text("SELECT 1"))
            with db.deadline(0.5):
                await session.scalar(text(sys.argv[2]))

    if sys.argv[3] == "tasks":
        asyncio.run(main())
    else:
        with db, db.session() as session:
            session.scalar(text("SELECT 1"))
            with db.deadline(0.5):
                session.scalar(text(sys.argv[2]))
"""
RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{}'",
    "mariadb": 'SELECT count(*) FROM information_schema.processlist WHERE info = "{}"',
}


@pytest.mark.parametrize("driver", drivers.params(drivers.SERVED))
def test_a_statement_ends_with_a_process_that_its_deadline_ends(
    driver: drivers.Driver, request: pytest.FixtureRequest, proxy: Callable[[Any], Proxy]
) -> None:
    """The server is far away: the process would have ended before the request arrives."""
    server = request.getfixturevalue(driver.server)
    network = proxy(server)
    network.delay(0.03)
    statement = LASTS[driver.server].replace(":long", f"{LONG[driver.server]:.0f}")
    program = ["-c", textwrap.dedent(ENDS), driver.url(request, port=network.port), statement]
    program.append("tasks" if driver.asynchronous else "thread")
    done = run_python(program, folder=Path.cwd(), environ=os.environ, whole=True)
    assert "DeadlineExceeded: the deadline of 0.5 s was exceeded while a statement was executed" in done.stderr
    wait_until(lambda: server.sql(RUNNING[driver.server].format(statement)) == [(0,)], "the end of the statement")
