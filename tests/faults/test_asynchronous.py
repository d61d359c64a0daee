"""The scenarios of a process and its units of work on the asynchronous side, with each driver of a server."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import Profile, Registry
from tests.asynchronous.conftest import DRIVERS
from tests.faults.test_interrupts import ACTIVE, SLEEP
from tests.support.interpreter import Program, started_python
from tests.support.processes import wait_until
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
BEGIN = """
    import asyncio, atexit, os, signal, sys, threading, time
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    url, statement = sys.argv[1:]
    db = Registry.from_profile(Profile(name="tests", url=url, pool_size=4, max_overflow=0))

    async def ask(statement):
        async with db.async_session() as session:
            return (await (await session.connection()).execute(text(statement))).scalar()
"""
# Forks in one thread, while the loop of another works; an event loop itself cannot be forked.
IN_A_LOOP = """
    stop = threading.Event()
    ready = threading.Barrier(2)
    failed = []

    def run(work):
        async def main():
            await work()
            await db.async_dispose()
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        ready.wait(60)
        return thread
"""
P09 = """
    async def busy(number):
        while not stop.is_set():
            if await ask(f"SELECT {number}") != number:
                failed.append(number)

    async def parent():
        await asyncio.gather(*(ask("SELECT 1") for _ in range(4)))
        tasks = [asyncio.create_task(busy(number)) for number in range(6)]
        await asyncio.to_thread(ready.wait, 60)
        await asyncio.gather(*tasks)

    async def child(number):
        answers = await asyncio.gather(*(ask(f"SELECT {number + i}") for i in range(20)))
        await db.async_dispose()
        return answers == [number + i for i in range(20)]

    thread = run(parent)
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            signal.alarm(120)
            os._exit(0 if asyncio.run(child(1000 * (number + 1))) else 1)
        children.append(pid)
    print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], flush=True)
    stop.set()
    thread.join()
    print(failed)
"""
P10 = """
    async def parent():
        session = db.async_session()
        idle = db.async_session()
        await (await idle.connection()).execute(text("SELECT 1"))
        await idle.close()
        await (await session.connection()).execute(text("INSERT INTO amounts VALUES (1)"))
        await asyncio.to_thread(ready.wait, 60)
        await asyncio.to_thread(stop.wait, 60)
        await session.commit()
        await session.close()
        print(await ask("SELECT count(*) FROM amounts"))

    thread = run(parent)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        sys.exit(0)  # its finalizers run, as at every normal end of a process
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    stop.set()
    thread.join()
"""
# The loop of the parent runs now and then, and not in the fork: at its end a child would close what belongs to a loop
# that it could run. A loop that runs in another thread looks as if it ran in the child too, and is left alone anyway.
P10_BETWEEN = """
    loop = asyncio.new_event_loop()
    before = loop.run_until_complete(ask(statement))
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        assert asyncio.run(ask(statement)) != before
        {end}
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(loop.run_until_complete(ask(statement)) == before)
    loop.run_until_complete(db.async_dispose())
    loop.close()
"""
ENDS_OF_A_CHILD = {
    "exit": "sys.exit(0)",
    "the loop is closed": "loop.close(); os._exit(0)",
    "dispose": "db.dispose(); os._exit(0)",
    "the loop goes on": "assert loop.run_until_complete(ask(statement)) != before; os._exit(0)",
}
P11 = """
    async def main():
        try:
            async with db.async_transaction() as session:
                connection = await session.connection()
                await connection.execute(text("INSERT INTO amounts VALUES (1)"))
                print("up", flush=True)
                await connection.execute(text(statement))
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            print("interrupted", await ask("SELECT count(*) FROM amounts"), db.async_engine().pool.checkedout())
            await db.async_dispose()
            raise

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("as asyncio says it")
"""
P17 = """
    async def main():
        global session  # it is still referred to at the end
        session = db.async_session()
        await (await session.connection()).execute(text("INSERT INTO amounts VALUES (1)"))
        print("up", flush=True)
        {end}

    asyncio.run(main())
"""
ENDS = {
    "the loop ends": "return",
    "an exception": "raise SystemExit(3)",
    "SIGTERM": "await asyncio.sleep(60)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "dispose at exit": "atexit.register(db.dispose)",
}


@pytest.fixture(params=[name for name, (system, *_) in DRIVERS.items() if system != "sqlite"])
def driver(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(DRIVERS[request.param][2])
    return str(request.param)


@pytest.fixture
def server(driver: str, request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(DRIVERS[driver][0])
    found.sql("CREATE TABLE amounts (n int)")
    return found


@pytest.fixture
def url(driver: str, server: Server) -> str:
    return server.url(DRIVERS[driver][1])


@pytest.fixture
def db(url: str) -> Iterator[Registry]:
    with Registry.from_profile(Profile(name="tests", url=url, pool_size=1, max_overflow=0)) as made:
        yield made
    gc.collect()


async def ask(db: Registry, statement: str) -> Any:
    async with db.async_session() as session:
        return (await (await session.connection()).execute(text(statement))).scalar()


# Python 3.12 and newer warn of every fork beside another thread.
OPTIONS = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]


def program(*parts: str, url: str, statement: str = "", whole: bool = False) -> AbstractContextManager[Program]:
    command = [*OPTIONS, "-c", "".join(map(textwrap.dedent, parts)), url, statement]
    return started_python(command, folder=ROOT, environ=os.environ, whole=whole)


def test_n18_eight_tasks_are_told_of_a_wrong_password_soon_without_a_storm(
    server: Server, driver: str, proxy: Callable[..., Any]
) -> None:
    way = proxy(server)
    wrong = server.url(DRIVERS[driver][1], host=way.host, port=way.port, password="wr0ng-canary")

    async def attempt(db: Registry) -> str:
        with pytest.raises(DBAPIError) as caught:
            await ask(db, "SELECT 1")
        return f"{caught.value}{getattr(caught.value, '__notes__', '')}"

    async def main() -> list[str]:
        async with Registry.from_profile(Profile(name="wrong", url=wrong, pool_timeout="5s")) as db:
            return await asyncio.gather(*(attempt(db) for _ in range(8)))

    told = asyncio.run(asyncio.wait_for(main(), 60))
    assert all(server.user in each for each in told)
    assert not any("wr0ng-canary" in each for each in told)
    assert way.accepted <= 20


def test_p07_sixty_four_tasks_that_ask_first_get_one_engine(db: Registry) -> None:
    async def main() -> set[int]:
        async def engine() -> int:
            await asyncio.sleep(0)
            return id(db.async_engine())

        found = set(await asyncio.gather(*(engine() for _ in range(64))))
        await db.async_dispose()
        return found

    assert len(asyncio.run(main())) == 1


def test_p09_children_forked_beside_a_busy_loop_get_their_own_answers(url: str) -> None:
    with program(BEGIN, IN_A_LOOP, P09, url=url) as process:
        output, errors = process.communicate(timeout=120)
    assert (output, errors, process.returncode) == ("[0, 0, 0, 0]\n[]\n", "", 0)


def test_p10_a_child_that_merely_exits_leaves_the_loop_of_its_parent_unhurt(url: str) -> None:
    with program(BEGIN, IN_A_LOOP, P10, url=url) as process:
        output, errors = process.communicate(timeout=120)
    assert (output, errors, process.returncode) == ("0\n1\n", "", 0)


@pytest.mark.parametrize("end", ENDS_OF_A_CHILD)
def test_p10_a_child_forked_between_two_runs_of_a_loop_leaves_its_connections_to_the_parent(
    url: str, server: Server, end: str
) -> None:
    """And has its own: each loop has async engines of its own, and the parent's loop is over in the child."""
    number = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}[server.kind]
    source = P10_BETWEEN.format(end=ENDS_OF_A_CHILD[end])
    with program(BEGIN, source, url=url, statement=number) as process:
        output, errors = process.communicate(timeout=120)
    assert (output, errors, process.returncode) == ("0\nTrue\n", "", 0)


def test_p11_ctrl_c_in_a_task_rolls_back_and_leaves_the_pool_whole(url: str, server: Server) -> None:
    with program(BEGIN, P11, url=url, statement=SLEEP[server.kind]) as process:
        assert process.stdout.readline() == "up\n"
        wait_until(lambda: server.sql(ACTIVE[server.kind]) == [(1,)], "the statement")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=100)
        assert (output, errors, process.returncode) == ("interrupted 0 0\nas asyncio says it\n", "", 0)
    wait_until(lambda: server.sql(ACTIVE[server.kind]) == [(0,)], "the end of the statement on the server")


def test_p13_an_asynchronous_generator_that_is_closed_commits_nothing_and_gives_its_connection_back(
    db: Registry,
) -> None:
    async def dependency() -> AsyncIterator[Any]:
        async with db.async_transaction() as session:
            yield session

    async def main() -> tuple[Any, int]:
        running = dependency()
        session = await anext(running)
        await (await session.connection()).execute(text("INSERT INTO amounts VALUES (1)"))
        await running.aclose()  # type: ignore[attr-defined]
        left = await ask(db, "SELECT count(*) FROM amounts"), db.async_engine().pool.checkedout()  # type: ignore[attr-defined]
        await db.async_dispose()
        return left

    assert asyncio.run(asyncio.wait_for(main(), 60)) == (0, 0)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"], indirect=True)  # MariaDB has no SET LOCAL
def test_p14_what_a_task_set_for_its_transaction_is_gone_for_the_next(db: Registry) -> None:
    async def main() -> list[Any]:
        before = await ask(db, "SHOW application_name")
        async with db.async_session() as session:
            connection = await session.connection()
            await connection.execute(text("SET LOCAL work_mem = '5MB'"))
            await connection.execute(text("SET SESSION application_name = 'rolled back'"))
        left = [await ask(db, "SHOW work_mem"), await ask(db, "SHOW application_name") == before]
        await db.async_dispose()
        return left

    assert asyncio.run(asyncio.wait_for(main(), 60)) == ["4MB", True]


@pytest.mark.parametrize("end", list(ENDS))
def test_p17_a_process_with_an_open_asynchronous_transaction_ends_at_once_and_commits_nothing(
    url: str, server: Server, end: str
) -> None:
    before = len(server.connections())
    with program(BEGIN, P17.format(end=ENDS[end]), url=url, whole=True) as process:
        assert process.stdout.readline() == "up\n"
        if end == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    loud = [line for line in errors.splitlines() if "still in use" not in line]
    assert loud == []
    wait_until(lambda: len(server.connections()) == before, "the end of the connections")
    assert server.sql("SELECT count(*) FROM amounts") == [(0,)]
