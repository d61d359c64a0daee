"""OpenTelemetry: names that are the conventions', figures that are the pool's, spans under those of frameworks."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import Profile, Registry
from dbconfig.engine.pool import Histogram
from dbconfig.engine.pool.tally import Tally
from dbconfig.sessions.session import Session

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.semconv")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import db_attributes as incubating
from opentelemetry.semconv._incubating.metrics import db_metrics
from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes
from opentelemetry.semconv.metrics.db_metrics import DB_CLIENT_OPERATION_DURATION
from opentelemetry.semconv.schemas import Schemas

from dbconfig.integrations.figures import FIGURES, POOL_NAME, STATE
from dbconfig.integrations.otel import Instrumentation, Instrumentor, instrument, spread
from tests.engine.pool.support import callers, eventually

SECRET = "planted-7d1e"


class Seen:
    """A registry that is instrumented, and what is exported of it."""

    def __init__(self, registry: Registry, **options: Any) -> None:
        self.registry = registry
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(**options)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def instrument(self, **how: Any) -> Instrumentation:
        return instrument(self.registry, meter_provider=self.meters, tracer_provider=self.tracers, **how)

    def points(self) -> dict[tuple[str, str], Any]:
        """Return what is exported now, by the metric's name and the values of the attributes but the pool's name."""
        found: dict[tuple[str, str], Any] = {}
        data = self.reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data is not None else ():
            for point in metric.data.data_points:
                attributes = {**point.attributes}
                pool = attributes.pop(POOL_NAME, "")
                found[metric.name, ",".join(filter(None, [str(pool), *map(str, attributes.values())]))] = point
        return found

    def tree(self) -> list[Any]:
        """Return the spans as names under names, in the order in which they began."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda each: (each.start_time or 0, each.name))

        def under(parent: int | None) -> list[Any]:
            own = [each for each in spans if (each.parent.span_id if each.parent else None) == parent]
            return [[each.name, *under(each.context.span_id)] for each in own]

        return under(None)

    def span(self, name: str) -> ReadableSpan:
        return next(each for each in self.exporter.get_finished_spans() if each.name == name)


@pytest.fixture
def url(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def open_seen(url: str) -> Iterator[Callable[..., Seen]]:
    made: list[Registry] = []

    def make(address: str = url, sampler: Any = None, **settings: Any) -> Seen:
        made.append(Registry.from_profile(Profile(name="shop", url=address, **settings)))
        return Seen(made[-1], **({"sampler": sampler} if sampler else {}))

    yield make
    for each in made:
        instrument(each).end()
        each.dispose()


# Names


class _Meter:
    """Takes down what the conventions' own functions create."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str, str]] = {}

    def __getattr__(self, kind: str) -> Any:
        def create(name: str, unit: str, description: str) -> None:
            self.made[name] = (kind, unit, description)

        return create


def test_the_metrics_have_the_names_units_and_kinds_of_the_conventions() -> None:
    meter = _Meter()
    for name in dir(db_metrics):
        if name.startswith("create_db_client_connection_") or name == "create_db_client_operation_duration":
            getattr(db_metrics, name)(meter)
    kinds = {"updown": "create_up_down_counter", "counter": "create_counter", "histogram": "create_histogram"}
    ours = {each.name: (kinds.get(each.kind), each.unit, each.text) for each in FIGURES if each.name.startswith("db.")}
    theirs = {name: made for name, made in meter.made.items() if name != DB_CLIENT_OPERATION_DURATION}
    assert ours == theirs
    assert all(each.name.startswith("dbconfig.") for each in FIGURES if each.name not in theirs)
    assert DB_CLIENT_OPERATION_DURATION in meter.made


def test_the_attributes_have_the_names_of_the_conventions() -> None:
    assert POOL_NAME == incubating.DB_CLIENT_CONNECTION_POOL_NAME
    assert STATE == incubating.DB_CLIENT_CONNECTION_STATE
    count = next(each for each in FIGURES if each.name == db_metrics.DB_CLIENT_CONNECTION_COUNT)
    assert set(count.values) == {each.value for each in incubating.DbClientConnectionStateValues}


def test_the_schema_is_one_that_exists(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen()
    seen.instrument()
    data = seen.reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "dbconfig"
    assert scope.schema_url in {each.value for each in Schemas}


# Metrics


def test_a_database_that_nobody_has_used_yet_has_its_series(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen(pool_size=3, max_overflow=4)
    seen.instrument()
    found = {key: point.value for key, point in seen.points().items()}
    assert found["db.client.connection.max", "shop"] == 7
    assert found["db.client.connection.count", "shop,idle"] == 0
    assert found["dbconfig.transaction.retries", "shop,conflict"] == 0
    assert seen.registry.all_stats() == []  # to look makes no engine


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_the_figures_are_those_of_the_pool(open_seen: Callable[..., Seen], asynchronous: bool) -> None:
    if asynchronous:
        pytest.importorskip("aiosqlite")
    seen = open_seen()
    seen.instrument()
    pool = "shop (asyncio)" if asynchronous else "shop"

    def check() -> None:
        points = seen.points()
        (stats,) = seen.registry.all_stats()
        assert points["db.client.connection.count", f"{pool},used"].value == 1
        for name, counted in (("wait", stats.wait), ("create", stats.create), ("use", stats.use)):
            point = points.get((f"db.client.connection.{name}_time", pool))
            assert (point.count if point else 0) == counted.count
            if point is not None:
                assert point.bucket_counts == counted.counts
                assert point.sum == pytest.approx(counted.sum, rel=1e-3, abs=1e-6)

    if asynchronous:

        async def within() -> None:
            for _ in range(3):
                async with seen.registry.async_session() as session:
                    await session.scalar(text("SELECT 1"))
            async with seen.registry.async_session() as session:
                await session.scalar(text("SELECT 1"))
                check()

        asyncio.run(within())
    else:
        for _ in range(3):
            with seen.registry.session() as session:
                session.execute(text("SELECT 1"))
        with seen.registry.session() as session:
            session.execute(text("SELECT 1"))
            check()
    found = seen.points()["db.client.operation.duration", "sqlite,SELECT"]
    assert found.count == 4
    assert set(found.attributes) == {db_attributes.DB_SYSTEM_NAME, db_attributes.DB_OPERATION_NAME}


def test_counters_stay_when_an_event_loop_takes_its_engine_along(open_seen: Callable[..., Seen]) -> None:
    pytest.importorskip("aiosqlite")
    seen = open_seen()
    seen.instrument()

    async def work() -> None:
        async with seen.registry.async_session() as session:
            await session.scalar(text("SELECT 1"))
        seen.points()

    for number in range(1, 4):
        asyncio.run(work())
        gc.collect()
        points = seen.points()
        assert points["db.client.connection.wait_time", "shop (asyncio)"].count == number
        assert points["db.client.connection.count", "shop (asyncio),idle"].value == 0


def test_an_engine_that_is_watched_may_end(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen()
    seen.instrument(spans=True)
    engine = weakref.ref(seen.registry.engine())
    with seen.registry.session() as session:
        session.execute(text("SELECT 1"))
    del session
    seen.registry.dispose()
    assert eventually(lambda: bool(gc.collect()) or engine() is None)
    gc.collect()
    assert engine() is None


def test_engines_that_are_there_already_are_watched_and_no_more_after_the_end(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen()
    with seen.registry.session() as session:
        session.execute(text("SELECT 1"))
    instrumentation = seen.instrument(spans=True)
    assert seen.instrument() is instrumentation
    with seen.registry.session() as session:
        session.execute(text("SELECT 2"))
    assert seen.tree() == [["SELECT"]]
    instrumentation.end()
    with seen.registry.session() as session:
        session.execute(text("SELECT 3"))
    assert seen.tree() == [["SELECT"]]


@pytest.mark.parametrize("spans", [False, True])
def test_no_listener_of_sqlalchemys_events_is_attached(open_seen: Callable[..., Seen], spans: bool) -> None:
    """One alone makes each statement a third slower, whatever it does."""
    seen = open_seen()
    engine: Any = seen.registry.engine()
    before = {name: getattr(engine.dialect, name) for name in ("do_execute", "do_execute_no_params", "do_executemany")}
    instrumentation = seen.instrument(spans=spans)
    assert not engine.dispatch.before_cursor_execute
    assert not engine.dispatch.after_cursor_execute
    instrumentation.end()
    assert {name: getattr(engine.dialect, name) for name in before} == before


def test_after_the_end_nothing_is_measured_though_somebody_stands_around_it(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen()
    instrumentation = seen.instrument(spans=True)
    dialect: Any = seen.registry.engine().dialect
    ours = dialect.do_execute
    theirs: list[str] = []

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        theirs.append(statement)
        ours(cursor, statement, parameters, context=context)

    dialect.do_execute = do_execute
    with seen.registry.session() as session:
        session.execute(text("SELECT 1"))
    instrumentation.end()
    with seen.registry.session() as session:
        session.execute(text("SELECT 2"))
    assert seen.tree() == [["SELECT"]]
    assert theirs == ["SELECT 1", "SELECT 2"]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_statement_that_is_cancelled_has_a_span_that_has_ended(
    open_seen: Callable[..., Seen], postgresql: Any, driver: str
) -> None:
    seen = open_seen(postgresql.url(f"postgresql+{driver}"))
    seen.instrument(spans=True)

    async def sleep() -> None:
        async with seen.registry.async_session() as session:
            await session.scalar(text("SELECT pg_sleep(60)"))

    async def main() -> None:
        task = asyncio.create_task(sleep())
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        while await asyncio.to_thread(postgresql.sql, asked) == [(0,)]:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await seen.registry.async_dispose()

    asyncio.run(asyncio.wait_for(main(), 60))
    span = seen.span("SELECT")
    assert span.attributes is not None
    assert span.attributes[error_attributes.ERROR_TYPE] == "asyncio.exceptions.CancelledError"
    assert any(
        "CancelledError" in attributes for name, attributes in seen.points() if name == DB_CLIENT_OPERATION_DURATION
    )


def test_an_error_has_its_code(open_seen: Callable[..., Seen], postgresql: Any) -> None:
    seen = open_seen(postgresql.url())
    seen.instrument(spans=True)
    with seen.registry.session() as session, pytest.raises(DBAPIError):
        session.execute(text(f"SELECT '{SECRET}'::int"))
    span = seen.span("SELECT")
    assert span.attributes is not None
    assert span.attributes[error_attributes.ERROR_TYPE] == "22P02"
    assert span.attributes[db_attributes.DB_RESPONSE_STATUS_CODE] == "22P02"
    assert not span.status.is_ok
    found = [key for key in seen.points() if key[0] == DB_CLIENT_OPERATION_DURATION and "22P02" in key[1]]
    assert len(found) == 1
    assert seen.points()[found[0]].attributes[db_attributes.DB_RESPONSE_STATUS_CODE] == "22P02"


@given(st.lists(st.floats(min_value=0, max_value=1e4), max_size=40))
def test_what_is_recorded_has_the_buckets_and_the_sum_that_were_counted(seconds: list[float]) -> None:
    tally = Tally()
    for each in seconds:
        tally.observe(each)
    again = Tally()
    for value, count in spread(Histogram(counts=tuple(tally.counts), sum=tally.sum)):
        for _ in range(count):
            again.observe(value)
    assert again.counts == tally.counts
    assert again.sum == pytest.approx(tally.sum, rel=1e-4, abs=1e-4)


# Spans


def test_a_span_has_the_attributes_of_the_conventions(open_seen: Callable[..., Seen], server: Any) -> None:
    seen = open_seen(server.url())
    seen.instrument(spans=True)
    with seen.registry.transaction() as session:
        session.execute(text("CREATE TABLE notes (id INT, note VARCHAR(40))"))
        session.execute(text("INSERT INTO notes VALUES (1, :note)"), [{"note": SECRET}, {"note": "b"}])
        session.execute(text(f"SELECT id FROM notes WHERE note = '{SECRET}'"))
    select, insert = seen.span("SELECT notes"), seen.span("INSERT notes")
    assert select.kind.name == "CLIENT"
    assert select.attributes is not None
    assert insert.attributes is not None
    placeholder = str(insert.attributes[db_attributes.DB_QUERY_TEXT])[len("INSERT INTO notes VALUES (?, ") : -1]
    assert placeholder in ("%(note)s", "%s")
    assert insert.attributes[db_attributes.DB_OPERATION_BATCH_SIZE] == 2
    assert {**select.attributes} == {
        db_attributes.DB_SYSTEM_NAME: "postgresql" if server.driver.startswith("postgres") else "mariadb",
        db_attributes.DB_NAMESPACE: server.database,
        server_attributes.SERVER_ADDRESS: server.host,
        server_attributes.SERVER_PORT: server.port,
        db_attributes.DB_QUERY_SUMMARY: "SELECT notes",
        db_attributes.DB_OPERATION_NAME: "SELECT",
        db_attributes.DB_QUERY_TEXT: "SELECT id FROM notes WHERE note = ?",
    }
    everything = str([each.to_json() for each in seen.exporter.get_finished_spans()]) + str(seen.points())
    assert SECRET not in everything


def test_a_checkout_that_waited_is_an_event_of_its_first_statement(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen(pool_size=1, max_overflow=0, pool_pre_ping=False)  # nothing else takes a busy machine time
    seen.instrument(spans=True)
    registry = seen.registry

    def ask() -> None:
        with registry.session() as session:
            session.execute(text("SELECT 1"))
            session.execute(text("SELECT 2 FROM sqlite_master"))

    ask()
    seen.exporter.clear()
    held = registry.engine().connect()
    with callers() as call:
        waiting = call(ask)
        assert eventually(lambda: registry.stats().waiting == 1)
        time.sleep(0.01)  # no wait for an event: it is to have waited for longer than is worth an event
        held.close()
        waiting.result(30)
    ask()
    spans = seen.exporter.get_finished_spans()
    assert [[each.name for each in span.events] for span in spans] == [["dbconfig.checkout.waited"], [], [], []]
    (waited,) = spans[0].events
    assert waited.attributes is not None
    assert float(str(waited.attributes["dbconfig.seconds"])) > 0.001


def test_a_unit_of_work_is_a_span_over_its_attempts(open_seen: Callable[..., Seen], postgresql: Any) -> None:
    seen = open_seen(postgresql.url())
    seen.instrument(spans=True)
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(text("SELECT 1"))
        if len(calls) == 1:
            session.execute(text("DO $$BEGIN RAISE EXCEPTION SQLSTATE '40001'; END$$"))

    seen.registry.run_in_transaction(work)
    assert seen.tree() == [["run_in_transaction", ["SELECT"], ["DO"], ["SELECT"]]]
    span = seen.span("run_in_transaction")
    assert [(each.name, {**(each.attributes or {})}) for each in span.events] == [
        ("dbconfig.retry", {"dbconfig.reason": "conflict", "dbconfig.attempt": 2})
    ]
    assert span.attributes is not None
    assert span.attributes["dbconfig.attempts"] == 2


def test_an_asynchronous_unit_of_work_is_one_as_well(open_seen: Callable[..., Seen]) -> None:
    pytest.importorskip("aiosqlite")
    seen = open_seen()
    seen.instrument(spans=True)

    async def work(session: Any) -> None:
        await session.scalar(text("SELECT 1"))

    async def main() -> None:
        await asyncio.gather(*(seen.registry.async_run_in_transaction(work) for _ in range(2)))

    asyncio.run(main())
    assert seen.tree() == [["run_in_transaction", ["BEGIN"], ["SELECT"]]] * 2


def test_a_unit_that_fails_says_so_and_not_how(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen()
    seen.instrument(spans=True)

    def work(session: Session) -> None:
        raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET):
        seen.registry.run_in_transaction(work)
    assert seen.span("run_in_transaction").attributes["error.type"] == "builtins.ValueError"  # type: ignore[index]
    assert SECRET not in seen.span("run_in_transaction").to_json()


def test_what_is_sampled_out_is_no_span(open_seen: Callable[..., Seen]) -> None:
    seen = open_seen(sampler=ALWAYS_OFF)
    seen.instrument(spans=True)
    with seen.registry.session() as session:
        session.execute(text("SELECT 1"))
    assert seen.tree() == []
    assert seen.points()[DB_CLIENT_OPERATION_DURATION, "sqlite,SELECT"].count == 1


# Under the spans of frameworks


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_statements_are_under_the_span_of_a_request_of_fastapi(
    open_seen: Callable[..., Seen], asynchronous: bool
) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
    pytest.importorskip("aiosqlite")
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    seen = open_seen()
    seen.instrument(spans=True)
    app = FastAPI()

    def of_thread() -> int:
        with seen.registry.session() as session:
            return int(session.execute(text("SELECT 1")).scalar_one())

    async def of_task() -> int:
        async with seen.registry.async_session() as session:
            return int(await session.scalar(text("SELECT 1")) or 0)

    app.get("/heroes")(of_task if asynchronous else of_thread)
    instrumentation().instrument_app(app, tracer_provider=seen.tracers, exclude_spans=["receive", "send"])
    try:
        with TestClient(app) as client:
            assert client.get("/heroes").json() == 1
    finally:
        instrumentation().uninstrument_app(app)
    assert seen.tree() == [["GET /heroes", ["SELECT"]]]


def test_statements_are_under_the_span_of_a_request_of_flask(open_seen: Callable[..., Seen]) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.flask").FlaskInstrumentor
    from flask import Flask

    seen = open_seen()
    seen.instrument(spans=True)
    app = Flask("shop")

    @app.get("/heroes")
    def heroes() -> str:
        with seen.registry.session() as session:
            return str(session.execute(text("SELECT 1")).scalar_one())

    instrumentation().instrument_app(app, tracer_provider=seen.tracers)
    try:
        assert app.test_client().get("/heroes").text == "1"
    finally:
        instrumentation().uninstrument_app(app)
    assert seen.tree() == [["GET /heroes", ["SELECT"]]]


def test_statements_are_under_the_span_of_a_task_of_celery(open_seen: Callable[..., Seen]) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.celery").CeleryInstrumentor()
    from celery import Celery

    seen = open_seen()
    seen.instrument(spans=True)
    app = Celery("jobs", broker="memory://", backend="cache+memory://")

    @app.task(name="count")
    def count() -> int:
        with seen.registry.session() as session:
            return int(session.execute(text("SELECT 1")).scalar_one())

    instrumentation.instrument(tracer_provider=seen.tracers)
    try:
        assert count.apply().get() == 1
    finally:
        instrumentation.uninstrument()
    assert seen.tree() == [["run/count", ["SELECT"]]]


def test_the_command_of_opentelemetry_finds_the_instrumentor() -> None:
    (point,) = entry_points(group="opentelemetry_instrumentor", name="dbconfig")
    assert point.load() is Instrumentor
