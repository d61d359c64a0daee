"""Engines have an owner for as long as they live, and a registry is whole or not there."""

import asyncio
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

import dbconfig
from dbconfig import Profile, Registry
from dbconfig.engine import create
from tests.registries import ask, registry
from tests.support.interpreter import run_python
from tests.support.server import Server

ASYNC = [
    pytest.param("postgresql+asyncpg", marks=pytest.mark.server),
    pytest.param("postgresql+psycopg", marks=pytest.mark.server),
    pytest.param("mysql+asyncmy", marks=pytest.mark.server),
    pytest.param("mysql+aiomysql", marks=pytest.mark.server),
    "sqlite+aiosqlite",
]


def url(drivername: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    system = drivername.partition("+")[0]
    if system == "sqlite":
        return f"{drivername}:///{tmp_path}/app.db"
    pytest.importorskip(drivername.partition("+")[2])
    server: Server = request.getfixturevalue({"mysql": "mariadb"}.get(system, system))
    return str(server.url(drivername))


# Engines that somebody keeps


def test_an_engine_that_was_kept_over_a_dispose_stays_the_one_of_its_database(tmp_path: Path) -> None:
    with registry(f"sqlite:///{tmp_path}/app.db") as db:
        engine = db.engine()
        ask(db, "SELECT 1")
        db.dispose()
        assert db.stats().idle == 0
        with engine.connect():
            assert db.engine() is engine
            assert db.stats().used == 1  # one pool: it is not beside the statistics
        db.dispose(timeout=5)
        assert db.engine() is not engine  # that one lends nothing any more


def test_a_changed_configuration_makes_a_new_engine_and_dispose_still_knows_the_old_one(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "development.yaml").write_text("url: sqlite:///app.db\npool_size: 2")
    with Registry(config, environ={}) as db:
        old = db.engine()
        db.dispose()
        (config / "development.yaml").write_text("url: sqlite:///app.db\npool_size: 3")
        assert db.engine() is not old
        old.connect().close()
        assert len(db.all_stats()) == 2  # the old one has a connection
        db.dispose()
        assert sum(each.idle for each in db.all_stats()) == 0


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_connections_of_its_own_in_an_engine_without_a_registry(server: Server) -> None:
    def me(connection: Any) -> int:
        question = "SELECT pg_backend_pid()" if server.kind == "postgresql" else "SELECT connection_id()"
        return int(connection.scalar(text(question)))

    engine = registry(server.url()).engine()  # nobody keeps the registry
    gc.collect()
    with engine.connect() as connection:
        ours = me(connection)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # the end of one that hangs
        with engine.connect() as connection:
            os.write(writing, str(me(connection)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        theirs = int(answer.read())
    assert os.waitpid(child, 0)[1] == 0
    with engine.connect() as connection:
        assert me(connection) == ours != theirs
    engine.dispose()


@pytest.mark.parametrize("drivername", ASYNC)
def test_an_asynchronous_engine_outlives_its_registry(
    drivername: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = url(drivername, request, tmp_path)

    async def main() -> None:
        engine = registry(address, pool_size=3).async_engine()

        async def one(number: int) -> int:
            async with engine.connect() as connection:
                return int(await connection.scalar(text(f"SELECT {number}")))

        for number in range(3):
            assert await asyncio.gather(*(one(number) for _ in range(3))) == [number] * 3
            gc.collect()

    asyncio.run(main())  # and ends with the loop: whatever stays open warns, and fails the test
    gc.collect()


@pytest.mark.parametrize("drivername", ASYNC)
def test_engines_close_when_neither_they_nor_their_registry_are_kept(
    drivername: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = url(drivername, request, tmp_path)

    async def main() -> None:
        opened = registry(address)
        async with opened.async_session() as session, opened.async_session(read_only=True) as reading:
            for each in (session, reading):
                await (await each.connection()).execute(text("SELECT 1"))
        pools = [opened.async_engine().pool, *(engine.pool for engine in opened.parts.loops.here()._reading)]
        del opened, session, reading, each
        gc.collect()
        async with asyncio.timeout(30):
            while any(pool.checkedin() for pool in pools):  # type: ignore[attr-defined]  # SQLAlchemy's Pool lacks it
                await asyncio.sleep(0.01)

    asyncio.run(main())


@pytest.mark.parametrize("looped", ["asyncio", "uvloop"])
@pytest.mark.parametrize("drivername", ASYNC)
def test_a_loop_that_is_closed_without_a_runner_leaves_no_connection(
    drivername: str, looped: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    loops = pytest.importorskip(looped)
    with registry(url(drivername, request, tmp_path)) as db:

        async def main() -> Any:
            async with db.async_session() as session:
                await (await session.connection()).execute(text("SELECT 1"))
            assert db.async_engine().pool.checkedin() == 1  # type: ignore[attr-defined]  # SQLAlchemy's Pool lacks it
            return db.async_engine().pool

        for _ in range(2):
            loop = loops.new_event_loop()
            pool = loop.run_until_complete(main())
            loop.close()
            assert pool.checkedin() == 0
            assert db.all_stats() == []
        gc.collect()  # whatever was left open warns now, and fails the test


WITHIN = """
import asyncio, gc, sys
from sqlalchemy import text
from dbconfig import Profile, Registry
db = Registry.from_profile(Profile(name="t", url=sys.argv[1]))
async def use():
    async with db.async_session() as session:
        await (await session.connection()).execute(text("SELECT 1"))
async def main():
    loop = asyncio.new_event_loop()
    await asyncio.to_thread(loop.run_until_complete, use())
    loop.close()
    await use()
    del loop
    gc.collect()
    print(len(db.all_stats()))
asyncio.run(main())
"""


@pytest.mark.parametrize("drivername", ASYNC)
def test_a_loop_that_is_closed_while_another_one_runs_is_let_go_of_in_silence(
    drivername: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Nothing can be awaited in it any more: the loop that begins next shuts its sockets."""
    create.check_version()
    command = ["-c", WITHIN, url(drivername, request, tmp_path)]
    done = run_python(command, folder=tmp_path, environ=os.environ, whole=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


UNCLOSED = """
import asyncio, sys, warnings
from sqlalchemy import text
from dbconfig import Profile, Registry
db = Registry.from_profile(Profile(name="t", url=sys.argv[1]))
async def main():
    async with db.async_session() as session:
        await (await session.connection()).execute(text("SELECT 1"))
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
warnings.filterwarnings("ignore", "unclosed event loop")  # that is the program's own affair
"""


@pytest.mark.parametrize("drivername", ASYNC)
def test_a_program_that_never_closes_its_loop_ends_in_silence(
    drivername: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    create.check_version()
    # Not in Python's development mode: there 3.13 complains of any loop that is left to the end, with no driver at all.
    command = ["-W", "always", "-c", UNCLOSED, url(drivername, request, tmp_path)]
    done = run_python(command, folder=tmp_path, environ=os.environ, whole=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bind_changes_the_sessions_of_a_loop_in_the_loops_own_thread(tmp_path: Path) -> None:
    profile = Profile(name="t", url=f"sqlite:///{tmp_path}/a.db", databases={"other": {"url": "sqlite://"}})
    db = Registry.from_profile(profile)
    changed: list[int] = []

    async def main() -> None:
        engines = db.parts.loops.here()
        engines.factory("default")
        forget = engines.forget_sessions

        def noting() -> None:
            changed.append(threading.get_ident())
            forget()

        engines.forget_sessions = noting  # type: ignore[method-assign]  # to see who calls it
        from sqlmodel import MetaData

        await asyncio.to_thread(db.bind, other=MetaData())
        await asyncio.sleep(0)
        assert changed == [threading.get_ident()]

    asyncio.run(main())
    db.dispose()


# Whole, or not at all


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_registry_is_not_copied(copied: Callable[[Any], Any]) -> None:
    with registry("sqlite://") as db, pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(db)


def test_the_default_registry_is_itself_wherever_it_is_sent() -> None:
    assert (
        copy.copy(dbconfig.db) is copy.deepcopy(dbconfig.db) is pickle.loads(pickle.dumps(dbconfig.db)) is dbconfig.db
    )


def test_an_interrupt_while_it_waits_leaves_a_registry_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with registry(f"sqlite:///{tmp_path}/app.db") as db:
        held = db.session()
        held.execute(text("SELECT 1"))
        with monkeypatch.context() as patched:
            patched.setattr("dbconfig.engine.draining.wait_until_idle", interrupted)
            with pytest.raises(KeyboardInterrupt):
                db.dispose(timeout=10)
        held.close()
        assert ask(db, "SELECT 2") == 2
        assert [each.used + each.idle for each in db.all_stats()] == [1]  # what was held has closed


LOCKED = """
import sqlite3, sys, threading
from sqlalchemy import event, text
from dbconfig import Profile, Registry
path = sys.argv[1]
db = Registry.from_profile(Profile(name="t", url=f"sqlite:///{path}", variables={"busy_timeout": 20000}))
with db.transaction() as session:
    session.execute(text("CREATE TABLE t (x INT)"))
other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
other.execute("BEGIN IMMEDIATE")
begun = threading.Event()
@event.listens_for(db.engine(), "before_cursor_execute")
def before(*_):
    begun.set()
def write():
    try:
        with db.session() as session:
            session.execute(text("INSERT INTO t VALUES (1)"))
            session.commit()
    except Exception as error:
        print(type(error).__name__)
thread = threading.Thread(target=write)
thread.start()
begun.wait(60)
db.dispose(timeout=0.2)
other.execute("ROLLBACK")
thread.join(60)
print("survived", thread.is_alive())
"""


def test_a_sqlite_connection_is_not_closed_under_a_statement_that_cannot_be_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOCKED, str(tmp_path / "app.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["survived False"]), done.stderr


def test_a_sqlite_connection_that_rests_in_its_transaction_is_closed_in_time(tmp_path: Path) -> None:
    with registry(f"sqlite:///{tmp_path}/app.db") as db:
        held = db.session()
        held.execute(text("CREATE TABLE t (x INT)"))
        db.dispose(timeout=0.1)
        with registry(f"sqlite:///{tmp_path}/app.db", variables={"busy_timeout": 0}) as other:
            other.run_in_transaction(lambda session: session.execute(text("CREATE TABLE t (x INT)")))  # no lock is left
        with pytest.raises(ProgrammingError, match="closed database"):
            held.close()
