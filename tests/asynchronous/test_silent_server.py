"""A server that has fallen silent holds no task up: statements and COMMITs end without it."""

import asyncio
import gc
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dbconfig import Profile, Registry
from dbconfig.engine import connection_failures
from dbconfig.engine.pool import farewell, statement_limit
from tests.asynchronous.conftest import DRIVERS
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.servers import Server

SLOW = {"postgresql": "SELECT 1 FROM pg_sleep(300)", "mariadb": "SELECT SLEEP(300)"}
RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT 1 FROM pg_s%'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(300)'",
}
SERVED = [name for name, (system, *_) in DRIVERS.items() if system != "sqlite"]


def cancels_beside() -> bool:
    from dbconfig.engine.dialects.postgresql import psycopg_tasks

    return psycopg_tasks.can_cancel()


def served(name: str, request: pytest.FixtureRequest) -> tuple[Server, str, str]:
    """Return the server of a driver that can ask it to cancel, its system, and the driver's name in a URL."""
    system, drivername, module = DRIVERS[name]
    pytest.importorskip(module)
    if name == "psycopg" and not cancels_beside():
        pytest.skip("psycopg cannot ask a server to cancel without blocking: that takes libpq 17")
    return request.getfixturevalue(system), system, drivername


@pytest.mark.server
@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("what", ["statement", "commit"])
def test_what_waits_for_a_silent_server_ends(
    name: str,
    what: str,
    request: pytest.FixtureRequest,
    proxy: Callable[[Server], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system, drivername, module = DRIVERS[name]
    pytest.importorskip(module)
    monkeypatch.setattr(statement_limit, "GRACE", 0.5)
    server = request.getfixturevalue(system)
    network = proxy(server)
    url = server.url(drivername, port=network.port)

    async def main() -> None:
        async with Registry.from_profile(Profile(name="silent", url=url, statement_timeout=1)) as db:
            async with db.async_session() as session:
                await session.scalar(text("SELECT 1"))
                network.swallow()
                with pytest.raises(DBAPIError):
                    await asyncio.wait_for(
                        session.commit() if what == "commit" else session.scalar(text("SELECT 2")), 20
                    )
                network.pass_through()
                network.cut()
            async with db.async_session() as session:
                assert await session.scalar(text("SELECT 3")) == 3

    asyncio.run(main())


@pytest.mark.server
@pytest.mark.parametrize("name", ["sync", *SERVED])
def test_a_ping_that_is_not_answered_leads_to_no_further_question(
    name: str, request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed connect is explained, for which PostgreSQL is asked again; a caller in the pool has no time for that."""
    system, drivername, module = DRIVERS.get(name, ("postgresql", "postgresql+psycopg2", "psycopg2"))
    pytest.importorskip(module)
    server = request.getfixturevalue(system)
    network = proxy(server)
    url = server.url(drivername, port=network.port)
    settings = {"pool_timeout": 1, "pool_pre_ping": True, "connect_timeout": 60}
    explained: list[BaseException] = []
    annotate = connection_failures.annotate

    def note(error: BaseException, settings: object) -> None:
        explained.append(error)
        annotate(error, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(connection_failures, "annotate", note)

    async def main(db: Registry) -> None:
        async with db.async_session() as session:
            await session.scalar(text("SELECT 1"))
        network.swallow()
        async with db.async_session() as session:
            with pytest.raises((SQLAlchemyError, OSError)):
                await session.scalar(text("SELECT 2"))
        assert explained == []
        network.pass_through()
        network.cut()
        await db.async_dispose()

    with Registry.from_profile(Profile(name="silent", url=url, **settings)) as db:
        if name != "sync":
            asyncio.run(main(db))
            return
        with db.session() as session:
            session.execute(text("SELECT 1"))
        network.swallow()
        with db.session() as session, pytest.raises(SQLAlchemyError):
            session.execute(text("SELECT 2"))
        assert explained == []
        network.pass_through()
        network.cut()


@pytest.mark.server
@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("what", ["statement", "check"])
def test_a_task_that_is_cancelled_does_not_wait_for_a_silent_server(
    name: str, what: str, request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy]
) -> None:
    server, system, drivername = served(name, request)
    network = proxy(server)
    url = server.url(drivername, port=network.port)
    complaints: list[str] = []

    async def use(db: Registry, statement: str) -> None:
        async with db.async_session() as session:
            await session.scalar(text(statement))

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        profile = Profile(name="silent", url=url, pool_size=1, max_overflow=0, pool_pre_ping=True)
        async with Registry.from_profile(profile) as db:
            await use(db, "SELECT 1")
            if what == "check":
                network.swallow()
            task = asyncio.create_task(use(db, SLOW[system]))
            if what == "statement":
                while not server.sql(RUNNING[system])[0][0]:
                    await asyncio.sleep(0.01)
                network.swallow()
            else:
                while not network.bytes_swallowed:
                    await asyncio.sleep(0.01)
            began = loop.time()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            took = loop.time() - began
            network.pass_through()
            network.cut()
            await use(db, "SELECT 2")
            await asyncio.sleep(0)
        return took

    took = asyncio.run(asyncio.wait_for(main(), 60))
    gc.collect()
    assert took < farewell.CLOSE_LIMIT + 2.0
    assert complaints == []


@pytest.mark.server
@pytest.mark.parametrize("name", SERVED)
def test_a_statement_whose_task_is_cancelled_again_and_again_ends_on_the_server(
    name: str, request: pytest.FixtureRequest
) -> None:
    server, system, drivername = served(name, request)

    count = 6  # at the same time: MariaDB looks every five seconds whether the client of a SLEEP is still there

    async def use(db: Registry, statement: str) -> None:
        async with db.async_session() as session:
            await session.scalar(text(statement))

    async def running(wanted: int) -> None:
        end = asyncio.get_running_loop().time() + 30
        while server.sql(RUNNING[system])[0][0] != wanted:
            assert asyncio.get_running_loop().time() < end, f"there are not {wanted} statements that run"
            await asyncio.sleep(0.02)

    async def cancel(task: asyncio.Task[None], pause: int) -> None:
        while not task.done():  # as anyio does it to each await of a clean-up
            task.cancel()
            for _ in range(1 + pause):
                await asyncio.sleep(0)

    async def main() -> None:
        profile = Profile(name="silent", url=server.url(drivername), pool_size=count, max_overflow=0)
        async with Registry.from_profile(profile) as db:
            tasks = [asyncio.create_task(use(db, SLOW[system])) for _ in range(count)]
            await running(count)
            await asyncio.gather(*(cancel(task, pause) for pause, task in enumerate(tasks)))
            await running(0)
            await asyncio.gather(*(use(db, "SELECT 1") for _ in range(count)))

    asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.server
@pytest.mark.parametrize("name", SERVED)
def test_a_statement_that_is_cancelled_at_the_end_of_its_loop_ends_on_the_server(
    name: str, request: pytest.FixtureRequest
) -> None:
    """As by Ctrl-C: `asyncio.run` cancels what is to deliver the request, too."""
    server, system, drivername = served(name, request)

    async def main(db: Registry) -> None:
        async def use() -> None:
            async with db.async_session() as session:
                await session.scalar(text(SLOW[system]))

        task = asyncio.create_task(use())
        while not server.sql(RUNNING[system])[0][0]:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Registry.from_profile(Profile(name="silent", url=server.url(drivername))) as db:
        asyncio.run(asyncio.wait_for(main(db), 60))
        wait_until(lambda: not server.sql(RUNNING[system])[0][0], "the end of the statement on the server")
