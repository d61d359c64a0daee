"""Whole trees of spans under those of FastAPI, Flask and Celery: names, kinds, attributes, events, outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session

from dbconfig import Profile, Registry

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes

from dbconfig.integrations.otel import instrument
from tests.support.postgresql import PostgreSQLServer

SECRET = "planted-5b0d"
FAIL = f"DO $$BEGIN RAISE EXCEPTION '{SECRET}' USING ERRCODE = '40001'; END$$"

# What stands under the span of the framework. Each statement has what PLACE says, too.
GOLDEN = """
  INTERNAL run_in_transaction
    dbconfig.attempts: 2
    dbconfig.database: shop/default
    event dbconfig.retry: dbconfig.attempt=2, dbconfig.reason=conflict
    CLIENT SELECT pg_class
      db.operation.name: SELECT
      db.query.summary: SELECT pg_class
      db.query.text: SELECT count(*) FROM pg_class WHERE relname = {placeholder} OR relname = ?
    CLIENT DO
      db.operation.name: DO
      db.query.summary: DO
      db.query.text: DO ?
      db.response.status_code: 40001
      error.type: 40001
      ERROR
    CLIENT SELECT pg_class
      db.operation.name: SELECT
      db.query.summary: SELECT pg_class
      db.query.text: SELECT count(*) FROM pg_class WHERE relname = {placeholder} OR relname = ?
  CLIENT INSERT notes
    db.operation.batch.size: 2
    db.operation.name: INSERT
    db.query.summary: INSERT notes
    db.query.text: INSERT INTO notes VALUES ({placeholder})
"""
PLACE = {
    db_attributes.DB_SYSTEM_NAME: "postgresql",
    db_attributes.DB_NAMESPACE: "{database}",
    server_attributes.SERVER_ADDRESS: "{host}",
    server_attributes.SERVER_PORT: "{port}",
}
PLACEHOLDERS = {"psycopg2": "%(x)s", "psycopg": "%(x)s", "asyncpg": "$1"}


class Shop:
    """An application's database, and what each framework calls: a unit of work that is retried, and a transaction."""

    def __init__(self, server: PostgreSQLServer, driver: str, sampler: Any = None) -> None:
        pytest.importorskip(driver)
        self._server, self._driver = server, driver
        server.sql("CREATE TABLE IF NOT EXISTS notes (note text)")
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(**({"sampler": sampler} if sampler is not None else {}), shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.db = Registry.from_profile(Profile(name="shop", url=server.url(f"postgresql+{driver}")))
        meters = MeterProvider(shutdown_on_exit=False)
        self.instrumentation = instrument(self.db, spans=True, tracer_provider=self.tracers, meter_provider=meters)
        self.attempts = 0

    def unit(self, session: Session) -> None:
        asked = text(f"SELECT count(*) FROM pg_class WHERE relname = :x OR relname = '{SECRET}'")
        session.execute(asked, {"x": SECRET})
        self.attempts += 1
        if self.attempts == 1:
            session.execute(text(FAIL))

    @staticmethod
    def write(session: Session) -> None:
        session.execute(text("INSERT INTO notes VALUES (:x)"), [{"x": SECRET}, {"x": "b"}])

    def request(self) -> int:
        self.db.run_in_transaction(self.unit)
        with self.db.transaction() as session:
            self.write(session)
        return 1

    async def request_in_task(self) -> int:
        async def unit(session: Any) -> None:
            await session.run_sync(self.unit)

        await self.db.async_run_in_transaction(unit)
        async with self.db.async_transaction() as session:
            await session.run_sync(self.write)
        return 1

    def golden(self, head: str) -> str:
        return head + GOLDEN.format(placeholder=PLACEHOLDERS[self._driver])

    def tree(self) -> str:
        """Return all spans, those of others by their kind and name alone."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda each: each.start_time or 0)
        self.place = {
            db_attributes.DB_SYSTEM_NAME: "postgresql",
            db_attributes.DB_NAMESPACE: self._server.database,
            server_attributes.SERVER_ADDRESS: self._server.host,
            server_attributes.SERVER_PORT: self._server.port,
        }

        def under(parent: int | None, depth: int) -> Iterator[str]:
            for each in spans:
                if (each.parent.span_id if each.parent else None) == parent:
                    yield from (("  " * depth) + line for line in self._described(each))
                    yield from under(each.context.span_id, depth + 1)

        return "\n".join(under(None, 0)) + "\n"

    def _described(self, span: ReadableSpan) -> Iterator[str]:
        yield f"{span.kind.name} {span.name}"
        assert span.instrumentation_scope is not None
        if span.instrumentation_scope.name != "dbconfig":
            return
        attributes = {**(span.attributes or {})}
        if span.kind.name == "CLIENT":
            assert {name: attributes.pop(name) for name in self.place} == self.place
        yield from (f"  {name}: {value}" for name, value in sorted(attributes.items()))
        for event in span.events:
            if event.name != "dbconfig.checkout.waited":  # a busy machine decides which statement has it
                said = ", ".join(f"{name}={value}" for name, value in sorted((event.attributes or {}).items()))
                yield f"  event {event.name}: {said}"
        if not span.status.is_unset:
            assert span.status.description is None
            yield f"  {span.status.status_code.name}"

    def everything(self) -> str:
        return "".join(each.to_json() for each in self.exporter.get_finished_spans())


@pytest.fixture
def open_shop(postgresql: PostgreSQLServer) -> Iterator[Callable[..., Shop]]:
    made: list[Shop] = []

    def make(driver: str, sampler: Any = None) -> Shop:
        made.append(Shop(postgresql, driver, sampler))
        return made[-1]

    yield make
    for each in made:
        each.instrumentation.end()
        each.db.dispose()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg", "psycopg async"])
def test_a_request_of_fastapi(open_shop: Callable[..., Shop], driver: str) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    shop = open_shop(driver.removesuffix(" async"))
    app = FastAPI()

    def of_thread(number: int) -> int:
        return shop.request()

    async def of_task(number: int) -> int:
        return await shop.request_in_task()

    app.get("/heroes/{number}")(of_task if driver in ("asyncpg", "psycopg async") else of_thread)
    instrumentation().instrument_app(app, tracer_provider=shop.tracers, exclude_spans=["receive", "send"])
    try:
        with TestClient(app) as client:
            assert client.get("/heroes/7").json() == 1
    finally:
        instrumentation().uninstrument_app(app)
    assert shop.tree() == shop.golden("SERVER GET /heroes/{number}")
    assert SECRET not in shop.everything()


def test_a_request_of_flask(open_shop: Callable[..., Shop]) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.flask").FlaskInstrumentor
    from flask import Flask

    shop = open_shop("psycopg")
    app = Flask("shop")
    app.add_url_rule("/heroes/<int:number>", view_func=lambda number: str(shop.request()), endpoint="hero")
    instrumentation().instrument_app(app, tracer_provider=shop.tracers)
    try:
        assert app.test_client().get("/heroes/7").text == "1"
    finally:
        instrumentation().uninstrument_app(app)
    assert shop.tree() == shop.golden("SERVER GET /heroes/<int:number>")
    assert SECRET not in shop.everything()


def test_a_task_of_celery(open_shop: Callable[..., Shop]) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.celery").CeleryInstrumentor()
    from celery import Celery

    shop = open_shop("psycopg2")
    app = Celery("jobs", broker="memory://", backend="cache+memory://")

    @app.task(name="count")
    def count() -> int:
        return shop.request()

    instrumentation.instrument(tracer_provider=shop.tracers)
    try:
        assert count.apply().get() == 1
    finally:
        instrumentation.uninstrument()
    assert shop.tree() == shop.golden("CONSUMER run/count")
    assert SECRET not in shop.everything()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_without_a_framework_and_with_a_unit_that_fails(open_shop: Callable[..., Shop], asynchronous: bool) -> None:
    shop = open_shop("psycopg")

    def fail(session: Session) -> None:
        session.execute(text(f"SELECT '{SECRET}'::int"))

    async def fail_in_task(session: Any) -> None:
        await session.run_sync(fail)

    async def main() -> None:
        try:
            await shop.db.async_run_in_transaction(fail_in_task)
        finally:
            await shop.db.async_dispose()

    with pytest.raises(Exception, match="invalid input syntax"):
        asyncio.run(main()) if asynchronous else shop.db.run_in_transaction(fail)
    assert shop.tree() == (
        "INTERNAL run_in_transaction\n  db.response.status_code: 22P02\n  dbconfig.attempts: 1\n"
        "  dbconfig.database: shop/default\n  error.type: 22P02\n  ERROR\n"
        "  CLIENT SELECT\n    db.operation.name: SELECT\n    db.query.summary: SELECT\n"
        "    db.query.text: SELECT ?::int\n    db.response.status_code: 22P02\n    error.type: 22P02\n    ERROR\n"
    )
    assert SECRET not in shop.everything()


def test_every_attribute_that_is_not_ours_is_one_of_the_conventions(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop("psycopg")
    shop.request()
    known = {
        value
        for module in (db_attributes, error_attributes, server_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    spans = shop.exporter.get_finished_spans()
    found = {name for each in spans for name in each.attributes or {}}
    events = {name for each in spans for event in each.events for name in event.attributes or {}}
    assert len(found) > 10
    assert {name for name in found | events if not name.startswith("dbconfig.")} - known == set()


def test_a_trace_that_is_sampled_out_has_no_span_of_ours(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop("psycopg", ALWAYS_OFF)
    shop.request()
    assert shop.attempts == 2
    assert shop.exporter.get_finished_spans() == ()
