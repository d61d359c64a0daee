"""The end of a registry: nothing new, what runs may finish, the rest is cancelled, nothing is left on the server."""

import gc
import logging
import os
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

from dbconfig import Profile, Registry
from tests.support.interpreter import started_python
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.servers import Server

SLEEP = {"postgresql": "SELECT pg_sleep(20)", "mariadb": "SELECT SLEEP(20)"}


@pytest.fixture(params=["FairPool", "QueuePool", "NullPool"])
def db(request: pytest.FixtureRequest, server: Server) -> Iterator[Registry]:
    given = {} if request.param == "FairPool" else {"poolclass": request.param}
    with Registry.from_profile(Profile(name="ending", url=server.url(), **given)) as opened:
        yield opened


def connected(server: Server) -> list[int]:
    return server.connections(user=server.user)


class Worker(threading.Thread):
    """Runs one statement in a session, then stays for a while."""

    def __init__(self, db: Registry, statement: str, stay: float = 0.0) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.busy = threading.Event()
        self._given = db, statement, stay
        self.start()
        assert self.busy.wait(60)

    def run(self) -> None:
        db, statement, stay = self._given
        try:
            with db.session() as session:
                session.execute(text("SELECT 1"))
                self.busy.set()
                session.execute(text(statement))
                time.sleep(stay)
                session.execute(text("SELECT 2"))
        except Exception as error:
            self.error = error


def test_work_in_progress_finishes_new_work_is_refused_and_no_connection_is_left(db: Registry, server: Server) -> None:
    worker = Worker(db, "SELECT 1", stay=0.5)
    old = db.engine()
    refused, told = threading.Event(), list[str]()

    def ask() -> None:
        while not refused.is_set():
            try:
                with db.session() as session:
                    session.execute(text("SELECT 1"))
            except InvalidRequestError as error:
                told.append(str(error))
                refused.set()

    asking = threading.Thread(target=ask)
    asking.start()
    gc.disable()
    try:
        db.dispose(timeout=10)
        assert refused.is_set() or asking.is_alive()
        assert worker.error is None
        refused.set()
        asking.join()
        with pytest.raises(InvalidRequestError):
            old.connect()
        db.dispose(timeout=10)  # also of what the asking thread may have begun anew
        wait_until(lambda: connected(server) == [], "the end of the connections")
    finally:
        gc.enable()
    worker.join()
    assert all("ending: dispose() has closed this engine" in text for text in told)
    with db.session() as session:  # the next use begins anew
        assert session.execute(text("SELECT 3")).scalar_one() == 3


@pytest.mark.parametrize("kind", ["in a statement", "idle in its transaction"])
def test_what_does_not_finish_in_time_is_cancelled_and_cut(
    db: Registry, server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "in a statement":
        workers = [Worker(db, SLEEP[server.kind]) for _ in range(3)]
    else:
        workers = [Worker(db, "SELECT 1", stay=2.0) for _ in range(3)]
    gc.disable()
    try:
        start = time.monotonic()
        with caplog.at_level(logging.WARNING, "dbconfig"):
            db.dispose(timeout=0.3)
        took = time.monotonic() - start
        wait_until(lambda: connected(server) == [], "the end of the connections")
    finally:
        gc.enable()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
        assert worker.error is not None
    assert "ending: 3 connections still in use after 0.3 s are cancelled" in caplog.text
    print(f"dispose(timeout=0.3) {kind}: {took:.2f} s")


def test_a_server_that_is_silent_does_not_hold_it_up(server: Server, proxy: object) -> None:
    way: Proxy = proxy(server)  # type: ignore[operator]
    url = server.url(host=way.host, port=way.port)
    with Registry.from_profile(Profile(name="ending", url=url, connect_timeout=1)) as db:
        worker = Worker(db, "SELECT 1", stay=0.3)
        way.swallow()
        start = time.monotonic()
        db.dispose(timeout=1.0)
        took = time.monotonic() - start
        worker.join(60)
        assert not worker.is_alive()
        assert took < 60


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_sqlite_statement_is_interrupted(where: str, tmp_path: Path) -> None:
    url = "sqlite://" if where == "memory" else f"sqlite:///{tmp_path}/ending.db"
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with Registry.from_profile(Profile(name="ending", url=url)) as db:
        worker = Worker(db, endless)
        db.dispose(timeout=0.2)
        worker.join(60)
        assert worker.error is not None


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused_before_anything_is_closed(timeout: float) -> None:
    with Registry.from_profile(Profile(name="ending", url="sqlite://")) as db:
        engine = db.engine()
        with pytest.raises(ValueError, match="timeout must be at least 0"):
            db.dispose(timeout=timeout)
        engine.connect().close()


PROGRAM = """
    import atexit, os, signal, sys, threading, time
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="ending", url=sys.argv[1], pool_min_idle=2, pool_leak_warning=0.1))
    session = db.session()
    session.execute(text("INSERT INTO ending VALUES (1)"))

    holding = threading.Event()

    def hold():
        with db.session() as own:
            own.execute(text("SELECT 1"))
            holding.set()
            time.sleep(600)

    threading.Thread(target=hold, daemon=True).start()
    holding.wait(60)
    {end}
"""
ENDS = {
    "return": "print('up', flush=True)",
    "exit code": "print('up', flush=True); sys.exit(3)",
    "exception": "print('up', flush=True); raise SystemExit",
    "dispose at exit": "atexit.register(lambda: db.dispose(timeout=0.1)); print('up', flush=True)",
    "use at exit": "atexit.register(lambda: db.engine().connect().close()); print('up', flush=True)",
    "SIGTERM": "print('up', flush=True); time.sleep(60)",
    "SIGTERM as an exception": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(60)"
    ),
    "SIGTERM with dispose": (
        "signal.signal(signal.SIGTERM, lambda *_: (db.dispose(timeout=0.1), sys.exit(0)));"
        "print('up', flush=True); time.sleep(60)"
    ),
    "SIGKILL": "print('up', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_a_process_ends_at_once_silently_and_commits_nothing(server: Server, end: str) -> None:
    server.sql("CREATE TABLE ending (id int)")
    program = textwrap.dedent(PROGRAM).format(end=ENDS[end])
    command = ["-W", "error", "-c", program, server.url()]
    with started_python(command, folder=Path.cwd(), environ=os.environ, whole=True) as process:
        assert process.stdout.readline() == "up\n"
        if end.startswith("SIGTERM"):
            process.send_signal(SIGTERM)
        _, errors = process.communicate(timeout=60)  # in which nobody who holds a connection comes to an end
    silent = [line for line in errors.splitlines() if "still in use" not in line and "been held for" not in line]
    assert silent == [] or end == "use at exit"
    wait_until(lambda: connected(server) == [], "the end of the connections")
    assert server.sql("SELECT count(*) FROM ending") == [(0,)]
