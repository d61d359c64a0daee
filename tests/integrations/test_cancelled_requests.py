"""Requests that are cancelled: in the middle of work, while a thread works with their session, or at their end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Session

from dbconfig import Profile, Registry
from dbconfig.integrations import fastapi_sessions
from dbconfig.integrations.fastapi import async_session as async_dependency
from dbconfig.integrations.fastapi import session as dependency
from dbconfig.integrations.threads_in_use import is_used
from tests.registries import registry
from tests.support.drivers import ASYNCHRONOUS, Driver, params
from tests.support.processes import wait_until

DRIVERS = {
    "postgresql+psycopg2": "postgresql",
    "postgresql+psycopg": "postgresql",
    "mysql+pymysql": "mariadb",
    "sqlite": None,
}
KINDS = [{}, {"transaction": True}, {"read_only": True}]
LIMIT = 60.0  # seconds; nothing takes so long


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = DRIVERS[request.param]
    if name is None:
        return f"sqlite:///{tmp_path}/app.db"
    found: str = request.getfixturevalue(name).url(request.param)
    return found


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
        "state": {},
    }


async def get(app: FastAPI) -> None:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        pass

    await app(scope(), receive, send)


def served(db: Registry, work: Callable[[Session], None], kind: dict[str, Any]) -> FastAPI:
    app, given = FastAPI(), dependency(registry=db, **kind)

    @app.get("/")
    def endpoint(session: Any = given) -> None:
        work(session)

    return app


async def cancelled(app: FastAPI, at: threading.Event, go_on: Callable[[], object]) -> None:
    """Cancel a request once its thread is in the middle of its work, which then continues."""
    task = asyncio.ensure_future(get(app))
    assert await asyncio.to_thread(at.wait, LIMIT)
    task.cancel()
    await asyncio.wait([task], timeout=0.2)  # it may not end before the thread; a wrong one has the time to
    early = task.done()
    go_on()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, LIMIT)
    assert not early


def used(db: Registry) -> int:
    return sum(each.used for each in db.all_stats())


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_in_the_middle_of_a_statement_ends_before_its_session(url: str, kind: dict[str, Any]) -> None:
    within, go_on = threading.Event(), threading.Event()
    answers: list[int] = []

    def work(session: Session) -> None:
        event.listen(session.connection(), "before_cursor_execute", wait)
        answers.extend(session.scalar(text(f"SELECT {number}")) for number in range(3))

    def wait(*of_statement: Any) -> None:
        within.set()
        go_on.wait(LIMIT)

    with registry(url) as db:
        asyncio.run(cancelled(served(db, work, kind), within, go_on.set))
        assert answers == [0, 1, 2]
        assert used(db) == 0
        with db.session() as session:
            assert session.scalar(text("SELECT 7")) == 7


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_that_waits_for_a_connection_returns_it(url: str, kind: dict[str, Any]) -> None:
    waiting = threading.Event()
    holders: list[Connection] = []
    answers: list[int] = []

    def work(session: Session) -> None:
        holders.append(db.connect(read_only=kind.get("read_only", False)))  # the only one
        waiting.set()
        answers.append(session.scalar(text("SELECT 1")))

    with registry(url, pool_size=1, max_overflow=0) as db:
        asyncio.run(cancelled(served(db, work, kind), waiting, lambda: holders[0].close()))
        assert answers == [1]
        assert used(db) == 0


ENDLESS = {
    "postgresql": "SELECT pg_sleep(3600)",
    "mysql": "SELECT SLEEP(3600)",
    "sqlite": "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_statements_of_a_thread_that_is_left_behind_are_cancelled(url: str, kind: dict[str, Any]) -> None:
    executing = threading.Event()
    endless = ENDLESS[url.partition(":")[0].partition("+")[0]]
    errors: list[Exception] = []
    taken: list[object] = []

    def work(session: Session) -> None:
        taken.append(session.connection().connection.driver_connection)
        event.listen(session.connection(), "before_cursor_execute", lambda *of_statement: executing.set())
        for _ in range(2):  # an application may hide an error
            try:
                # An interrupted SLEEP of MySQL is no error.
                assert session.scalar(text(endless)) == 0
            except Exception as error:
                errors.append(error)

    async def main() -> None:
        task = asyncio.ensure_future(get(served(db, work, kind)))
        assert await asyncio.to_thread(executing.wait, LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LIMIT)

    with registry(url, pool_size=1, max_overflow=0) as db:
        asyncio.run(main())
        assert len(errors) == 2
        assert used(db) == 0
        with db.session(read_only=kind.get("read_only", False)) as session:  # a late request would hit it
            assert session.connection().connection.driver_connection is not taken[0]
            assert session.scalar(text("SELECT 7")) == 7


def test_a_request_does_not_wait_for_ever_for_a_thread_that_does_something_else(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fastapi_sessions, "_LEFT_BEHIND", 0.1)
    within, go_on = threading.Event(), threading.Event()
    sessions: list[Session] = []

    def work(session: Session) -> None:
        session.connection()
        sessions.append(session)
        within.set()
        go_on.wait(LIMIT)

    async def main() -> None:
        task = asyncio.ensure_future(get(served(db, work, {})))
        assert await asyncio.to_thread(within.wait, LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LIMIT)
        assert "a thread is left of a cancelled request" in caplog.text
        assert used(db) == 1  # the thread may still use it
        go_on.set()

    with registry(url) as db:
        asyncio.run(main())
        wait_until(lambda: used(db) == 0, "the end of the session", timeout=LIMIT)
        with pytest.raises(InvalidRequestError, match="the session of GET / has ended"):
            sessions[0].connection()


def test_a_session_is_used_by_a_thread_that_has_it_or_its_owner_on_the_stack() -> None:
    within, go_on = threading.Event(), threading.Event()

    class Owner:
        def __init__(self, session: object) -> None:
            self.session = session

    def hold(holder: object) -> None:
        within.set()
        go_on.wait(LIMIT)

    session = object()
    assert not is_used(session)
    for holder in (session, Owner(session)):
        within.clear()
        go_on.clear()
        thread = threading.Thread(target=hold, args=(holder,))
        thread.start()
        within.wait(LIMIT)
        assert is_used(session)
        assert not is_used(object())
        go_on.set()
        thread.join()
    assert not is_used(session)


@pytest.mark.parametrize("driver", params(ASYNCHRONOUS))
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("names", [["default"], ["default", "other"]], ids=len)
def test_a_request_that_is_cancelled_at_any_time_returns_its_connections(
    driver: Driver, request: pytest.FixtureRequest, times: int, names: list[str]
) -> None:
    """By asyncio itself, which no cancel scope prevents; and again, while its session closes."""
    made = driver.url(request)
    server = request.getfixturevalue(driver.server) if driver.server else None
    closing = 0

    async def one(app: FastAPI, steps: int) -> None:
        nonlocal closing
        app.state.reached = False
        task = asyncio.ensure_future(get(app))
        while not (app.state.reached or task.done()):
            await asyncio.sleep(0)
        for _ in range(times):
            for _ in range(steps):
                await asyncio.sleep(0)
            closing += task.cancel()
        await asyncio.wait([task], timeout=LIMIT)
        assert task.done()
        if not task.cancelled():
            assert task.exception() is None

    async def main(db: Registry) -> None:
        app, given = FastAPI(), async_dependency(registry=db)

        @app.get("/")
        async def endpoint(session: Any = given) -> None:
            for engine in engines:  # with a function that may leave a state, so that the transactions go on
                await session.scalar(text("SELECT abs(1)"), bind_arguments={"bind": engine.sync_engine})
            app.state.reached = True

        engines = [db.async_engine(name) for name in names]
        async with asyncio.timeout(4 * LIMIT):
            for steps in range(40):
                await one(app, steps)
                while used(db):
                    await asyncio.sleep(0.001)
            async with db.async_session() as session:
                assert await session.scalar(text("SELECT 7")) == 7
            while server is not None and len(server.connections()) > sum(each.pool.checkedin() for each in engines):
                await asyncio.sleep(0.01)
        await db.async_dispose()

    settings = {"url": made, "pool_size": 2, "max_overflow": 0, "pool_timeout": LIMIT}
    with Registry.from_profile(Profile(name="cancelled", databases=dict.fromkeys(names, settings))) as db:
        asyncio.run(main(db))
    assert closing  # some were not over
