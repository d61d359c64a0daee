"""A request's deadline: the application's own, what a client asks for, and what comes of it when it is over."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from sqlalchemy import text
from sqlmodel import Session

from dbconfig import DeadlineExceeded, Profile, Registry
from dbconfig.engine.pool.deadline import current
from dbconfig.integrations.request_deadlines import HEADER, BadDeadline, RequestDeadline

FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
LONG = 60.0


class TestWhatARequestHas:
    def test_the_application_says_how_much(self) -> None:
        assert RequestDeadline(2.0).seconds(None) == 2.0
        assert RequestDeadline("800ms").seconds(None) == 0.8

    def test_a_client_may_ask_for_less_and_never_for_more(self) -> None:
        limit = RequestDeadline(2, header=True)
        assert [limit.seconds(asked) for asked in ("0.5", " 500ms ", "0", "2", "30s", "1h")] == [0.5, 0.5, 0, 2, 2, 2]

    def test_without_the_option_the_header_is_not_read(self) -> None:
        assert RequestDeadline(2).seconds("rubbish") == 2

    @pytest.mark.parametrize("asked", ["", "-1", "soon", "nan", "inf", "1e3", "2026-11-29T10:00:00Z", "1.5.2", "٢"])
    def test_what_is_no_duration_is_refused(self, asked: str) -> None:
        with pytest.raises(BadDeadline, match="must be the seconds that are left"):
            RequestDeadline(2, header=True).seconds(asked)

    @pytest.mark.parametrize("limit", [0, -1, "never", float("nan"), True])
    def test_an_application_without_sense_is_refused(self, limit: Any) -> None:
        with pytest.raises(ValueError, match="more than 0"):
            RequestDeadline(limit)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    profile = Profile(name="tests", url=f"sqlite:///{tmp_path}/app.db", pool_size=1, max_overflow=0, pool_timeout=LONG)
    with Registry.from_profile(profile) as made:
        yield made


@pytest.fixture
def fastapi_client(registry: Registry) -> Iterator[Callable[..., Any]]:
    pytest.importorskip("fastapi")
    from fastapi import BackgroundTasks, FastAPI
    from fastapi.testclient import TestClient

    from dbconfig.integrations import fastapi as ours

    clients = []

    def make(handler: Any = None, **options: Any) -> Any:
        app = FastAPI()
        if handler is not None:
            app.add_exception_handler(DeadlineExceeded, handler)
        ours.install(app, registry=registry, **options)
        app.state.after = []

        @app.get("/slow")
        def slow(session: Annotated[Session, ours.session(registry=registry)]) -> int:
            return int(session.execute(text(FOREVER)).scalar_one())

        @app.get("/slow-too")
        async def slow_too(session: Annotated[Any, ours.async_session(registry=registry)]) -> int:
            return int((await (await session.connection()).execute(text(FOREVER))).scalar_one())

        @app.get("/left")
        def left(tasks: BackgroundTasks) -> float | None:
            tasks.add_task(lambda: app.state.after.append(current()))
            limit = current()
            return None if limit is None else limit.remaining()

        @app.get("/wait")
        def wait(session: Annotated[Session, ours.session(registry=registry)]) -> int:
            return int(session.execute(text("SELECT 1")).scalar_one())

        client = TestClient(app)
        clients.append(client.__enter__())
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


class TestFastAPI:
    @pytest.mark.parametrize("path", ["/slow", "/slow-too"])
    def test_a_request_that_takes_too_long_is_a_504(self, fastapi_client: Callable[..., Any], path: str) -> None:
        if path == "/slow-too":
            pytest.importorskip("aiosqlite")
        began = time.monotonic()
        answer = fastapi_client(deadline=0.3).get(path)
        assert (answer.status_code, answer.json()) == (
            504,
            {"detail": "the request was not answered within its deadline"},
        )
        assert time.monotonic() - began < LONG / 2

    def test_who_waits_for_the_pool_in_vain_gets_it_too(
        self, fastapi_client: Callable[..., Any], registry: Registry
    ) -> None:
        client = fastapi_client(deadline="300ms")
        with registry.session() as session:
            session.execute(text("SELECT 1"))
            assert client.get("/wait").status_code == 504
        assert client.get("/wait").status_code == 200

    def test_the_applications_own_handler_is_kept(self, fastapi_client: Callable[..., Any]) -> None:
        from fastapi.responses import PlainTextResponse

        seen: list[Exception] = []

        async def handler(request: Any, error: Exception) -> Any:
            seen.append(error)
            return PlainTextResponse("later", status_code=503)

        answer = fastapi_client(handler, deadline=0.3).get("/slow")
        assert (answer.status_code, answer.text) == (503, "later")
        assert isinstance(seen[0], DeadlineExceeded)

    def test_a_client_may_ask_for_less(self, fastapi_client: Callable[..., Any]) -> None:
        client = fastapi_client(deadline=LONG, deadline_header=True)
        assert LONG / 2 < client.get("/left").json() <= LONG
        assert LONG / 2 < client.get("/left", headers={HEADER: "1h"}).json() <= LONG
        assert client.get("/left", headers={HEADER: "2s"}).json() <= 2
        assert client.get("/slow", headers={HEADER: "300ms"}).status_code == 504
        refused = client.get("/left", headers={HEADER: "soon"})
        assert (refused.status_code, refused.json()["detail"]) == (
            400,
            "X-Request-Deadline must be the seconds that are left, or a duration such as 800ms",
        )

    def test_without_a_setting_a_header_means_nothing(self, fastapi_client: Callable[..., Any]) -> None:
        assert fastapi_client().get("/left", headers={HEADER: "1ms"}).json() is None
        with pytest.raises(ValueError, match="needs a deadline"):
            fastapi_client(deadline_header=True)

    def test_a_background_task_has_no_deadline(self, fastapi_client: Callable[..., Any]) -> None:
        client = fastapi_client(deadline=LONG)
        assert client.get("/left").json() > 0
        assert client.app.state.after == [None]

    def test_a_deadline_of_the_applications_own_is_a_504_without_the_setting(
        self, fastapi_client: Callable[..., Any], registry: Registry
    ) -> None:
        client = fastapi_client()

        @client.app.get("/own")
        def own() -> None:
            with registry.deadline(0), registry.session() as session:
                session.execute(text("SELECT 1"))

        assert client.get("/own").status_code == 504


class TestSheddingInFrontOfThePool:
    def test_requests_that_wait_too_long_are_dropped_and_the_last_one_is_served(self, tmp_path: Path) -> None:
        pytest.importorskip("fastapi")
        import anyio

        from dbconfig.integrations.admission import Admission, Shed

        in_use = 1
        admission = Admission(1, lambda: in_use, target=0.01)
        outcomes: dict[int, str] = {}

        async def request(number: int) -> None:
            try:
                place = await admission.place(LONG)
            except Shed:
                outcomes[number] = "dropped"
            else:
                outcomes[number] = "served"
                place.leave()

        async def main() -> None:
            nonlocal in_use
            first = admission.place_at_once()
            assert first is not None
            first.use()
            assert admission.place_at_once() is None
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(request, number)
                with anyio.fail_after(LONG):
                    while len(outcomes) < 2:
                        await anyio.sleep(0.01)
                assert outcomes == {0: "dropped", 1: "dropped"}
                in_use = 0
                first.leave()
            assert outcomes[2] == "served"

        anyio.run(main)


class TestFlask:
    @pytest.fixture
    def client(self, registry: Registry) -> Callable[..., Any]:
        pytest.importorskip("flask")
        from flask import Flask

        from dbconfig.integrations.flask import DBConfig

        def make(**config: Any) -> Any:
            app = Flask("late")
            app.config.update(config)
            db = DBConfig()
            db.init_app(app, registry)

            @app.get("/slow")
            def slow() -> str:
                return str(db.session.execute(text(FOREVER)).scalar_one())

            @app.get("/left")
            def left() -> str:
                limit = current()
                return "" if limit is None else str(limit.remaining())

            return app.test_client()

        return make

    def test_a_request_that_takes_too_long_is_a_504(self, client: Callable[..., Any]) -> None:
        answer = client(DBCONFIG_DEADLINE="300ms").get("/slow")
        assert (answer.status_code, answer.json) == (
            504,
            {"detail": "the request was not answered within its deadline"},
        )
        assert current() is None, "the thread's next request has no deadline of this one"

    def test_a_client_may_ask_for_less(self, client: Callable[..., Any]) -> None:
        asking = client(DBCONFIG_DEADLINE=LONG, DBCONFIG_DEADLINE_HEADER=True)
        assert float(asking.get("/left", headers={HEADER: "2s"}).text) <= 2
        assert LONG / 2 < float(asking.get("/left", headers={HEADER: "1h"}).text) <= LONG
        assert asking.get("/left", headers={HEADER: "soon"}).status_code == 400
        assert client().get("/left", headers={HEADER: "2s"}).text == ""
        assert current() is None
