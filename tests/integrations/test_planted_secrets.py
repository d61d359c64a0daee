"""A planted secret is in no span, metric, label, tag, log record, page or picture, however it came into a statement."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from dbconfig import Profile, Registry
from dbconfig.integrations.status_page import Page
from tests.cli.conftest import Project
from tests.engine.pool.support import eventually
from tests.sessions.conftest import Units
from tests.sessions.conftest import units as units

pytest.importorskip("opentelemetry.sdk")
prometheus_client = pytest.importorskip("prometheus_client")

from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from dbconfig.integrations.otel import instrument  # noqa: E402
from dbconfig.integrations.prometheus import register  # noqa: E402

SECRET = "planted-e21a"
NUMBER = 48151623  # one that is a secret, such as that of a card


def parameter(session: Session) -> None:
    session.execute(text("INSERT INTO t (x) SELECT x FROM t WHERE :secret = ''"), {"secret": SECRET})


def literal(session: Session) -> None:
    session.execute(text(f"SELECT x FROM t WHERE x = {NUMBER} AND '{SECRET}' <> ''"))


def many(session: Session) -> None:
    session.execute(text("INSERT INTO t VALUES (:x)"), [{"x": NUMBER}, {"x": NUMBER + 1}])


def comment(session: Session) -> None:
    session.execute(text(f"SELECT 1 /* {SECRET} {NUMBER} */"))
    session.connection().exec_driver_sql(f"-- {SECRET} {NUMBER}\nSELECT 2")


def refused(session: Session) -> None:
    """Servers repeat in their errors what they refuse."""
    with pytest.raises(DBAPIError), session.begin_nested():
        session.execute(text(f"SELECT '{SECRET}' FROM nowhere WHERE x = {NUMBER}"))


STATEMENTS = (parameter, literal, many, comment, refused)


class Outside:
    """Everything that leaves a process by the ways of this library, but what it asks its server."""

    def __init__(self, db: Registry, caplog: pytest.LogCaptureFixture) -> None:
        self.db, self._caplog = db, caplog
        caplog.set_level(logging.DEBUG, "dbconfig")
        self._spans = InMemorySpanExporter()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._instrumentation = instrument(db, spans=True, tracer_provider=tracers, meter_provider=meters)
        self._scraped = prometheus_client.CollectorRegistry()
        register(db, into=self._scraped)
        self._page = Page(db)

    def seen(self) -> dict[str, str]:
        data = self._reader.get_metrics_data()
        assert data is not None
        stats = [each.as_dict() for each in self.db.all_stats()]
        return {
            "spans": "".join(each.to_json() for each in self._spans.get_finished_spans()),
            "metrics": data.to_json(),
            "labels": prometheus_client.generate_latest(self._scraped).decode(),
            "page": self._page.html(),
            "details": json.dumps(self._page.details()),
            "statistics": json.dumps(stats),
            "advice": "\n".join(self.db.advice()),
        }

    def logged(self) -> dict[str, str]:
        """Return the records with their facts, and what each logger is about."""
        found: dict[str, str] = {}
        for each in self._caplog.records:
            if each.name.startswith("dbconfig"):
                found[each.name] = found.get(each.name, "") + f"{vars(each)}\n{each.getMessage()}\n"
        return found

    def has_reported_what_is_held(self) -> bool:
        return any(each.name == "dbconfig.pool.leaks" for each in self._caplog.records)

    def end(self) -> None:
        self._instrumentation.end()


@pytest.fixture
def opened(units: Units, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    monkeypatch.setattr("dbconfig.engine.slow_statements.BURST", 1000)
    settings: dict[str, Any] = {
        "slow_statement": 1e-9,
        "slow_statement_plan": True,
        "pool_leak_warning": 0.2,
        "query_tags": ["application", "route", "traceparent"],
    }
    outside = Outside(units.open(**settings), caplog)
    yield outside
    outside.end()


def free_of_it(found: dict[str, str]) -> list[str]:
    return [f"{word} in {where}" for where, said in found.items() for word in (SECRET, str(NUMBER)) if word in said]


def test_nothing_that_is_seen_from_outside_has_it(units: Units, opened: Outside) -> None:
    seen: dict[str, str] = {}

    def work(session: Session) -> None:
        for each in STATEMENTS:
            each(session)
        assert eventually(opened.has_reported_what_is_held)
        seen.update(opened.seen())

    units.run(work, opened.db)
    logged = opened.logged()
    # There is something in which it could be.
    assert "INSERT t" in seen["spans"]
    assert "db.client.operation.duration" in seen["metrics"]
    assert 'db_client_connection_count{db_client_connection_pool_name="units' in seen["labels"]
    assert "<svg" in seen["page"]
    assert "pools" in seen["details"]
    assert "held for longer than pool_leak_warning" in seen["advice"] or "idle in transaction" in seen["advice"]
    assert "slow statement:" in logged["dbconfig.slow"]
    assert "has been held for" in logged["dbconfig.pool.leaks"]
    assert free_of_it(seen | logged) == []


def test_the_password_is_in_nothing_either_nor_the_host_or_the_user_on_a_page(
    server: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create_user("planteduser", SECRET)
    url = server.url(user="planteduser", password=SECRET)
    profile = Profile(name="shop", url=url, slow_statement=1e-9, query_tags=["application"], pool_size=6)
    with Registry.from_profile(profile) as db:
        outside = Outside(db, caplog)
        for _ in range(120):
            with db.session() as session:
                session.execute(text("SELECT 1"))
        seen = outside.seen()
        outside.end()
    assert "larger than needed" in seen["advice"]
    project = Project(tmp_path, monkeypatch)
    project.write("config/development.yaml", f"url: {url}\n")
    top = project.run("top", "--once")
    assert free_of_it({**seen, **outside.logged(), "top": top.text}) == []
    for name in ("page", "details", "advice", "labels", "statistics"):
        assert "planteduser" not in seen[name]
        assert server.host not in seen[name]
        assert "SELECT" not in seen[name]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_tag_has_what_the_application_says_and_no_value_of_a_request(
    asynchronous: bool, postgresql: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The route is the pattern and not the path, and the server gets the tags that are named alone."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from dbconfig.integrations.fastapi import install

    pytest.importorskip("asyncpg")
    url = postgresql.url("postgresql+asyncpg" if asynchronous else None)
    asked = text("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    with Registry.from_profile(Profile(name="shop", url=url, query_tags=["application", "route"])) as db:
        app = FastAPI()
        install(app, registry=db)

        def of_thread(token: str) -> str:
            with db.session() as session:
                return str(session.execute(asked).scalar_one())

        async def of_task(token: str) -> str:
            async with db.async_session() as session:
                return str(await session.scalar(asked))

        endpoint: Callable[..., Any] = of_task if asynchronous else of_thread
        app.get("/reset/{token}")(endpoint)
        with TestClient(app) as client:
            answer = client.get(f"/reset/{SECRET}?q={NUMBER}").json()
    assert answer.endswith("/*application='shop',route='%2Freset%2F%7Btoken%7D'*/")
    assert free_of_it({"query": answer}) == []
