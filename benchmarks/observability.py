"""What it costs to be seen: a checkout with metrics, a statement with spans, beside OpenTelemetry's own package.

Everything runs on SQLite in memory, in one thread: the difference is ours, and no server's.
"""

from collections.abc import Callable
from time import process_time
from typing import Any

from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from sqlalchemy import text

from benchmarks.paired import in_process, report
from dbconfig import Profile, Registry
from dbconfig.integrations.otel import instrument

CALLS, ROUNDS = 3000, 15


def opened(**settings: Any) -> Registry:
    return Registry.from_profile(Profile(name="seen", url="sqlite://", **settings))


def checkout(db: Registry) -> Callable[[], object]:
    connect = db.engine().pool.connect
    connect().close()
    return lambda: connect().close()


def statement(db: Registry) -> Callable[[], object]:
    connection, asked = db.engine().connect(), text("SELECT 1")
    return lambda: connection.execute(asked).scalar()


def tagged(db: Registry) -> Callable[[], object]:
    db.tags(job="nightly").__enter__()  # for the whole run; other registries have no query_tags
    return statement(db)


def with_metrics(db: Registry, reader: InMemoryMetricReader) -> Registry:
    instrument(db, meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    return db


def with_spans(db: Registry, sampler: Any) -> Registry:
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    instrument(db, spans=True, tracer_provider=tracers(sampler), meter_provider=meters)
    return db


def tracers(sampler: Any) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    return provider


def theirs(db: Registry, sampler: Any) -> Registry:
    """Attach OpenTelemetry's own package, as its instrumentor does; it refuses SQLAlchemy 2.1 otherwise."""
    meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("theirs")
    usage = meter.create_up_down_counter("db.client.connections.usage")
    EngineTracer(tracers(sampler).get_tracer("theirs"), db.engine(), usage)
    return db


def collecting(work: Callable[[], object], reader: InMemoryMetricReader) -> Callable[[], object]:
    """Collect once in so many calls: at 1,000 checkouts a second, every 3 s."""
    calls = 0

    def both() -> None:
        nonlocal calls
        calls += 1
        if calls % CALLS == 0:
            reader.get_metrics_data()
        work()

    return both


def main() -> None:
    reader = InMemoryMetricReader()
    checkouts = {
        "metrics off": checkout(opened()),
        "metrics on": checkout(with_metrics(opened(), InMemoryMetricReader())),
        "metrics on, with what collecting costs": collecting(checkout(with_metrics(opened(), reader)), reader),
        "opentelemetry-instrumentation-sqlalchemy": checkout(theirs(opened(), ALWAYS_ON)),
    }
    samples = in_process(checkouts, calls=CALLS, rounds=ROUNDS, clock=process_time)
    report("a checkout", samples, base="metrics off", goal="metrics on <= 1.10")
    statements = {
        "off": statement(opened()),
        "metrics": statement(with_metrics(opened(), InMemoryMetricReader())),
        "spans, sampled out": statement(with_spans(opened(), ALWAYS_OFF)),
        "spans, 100 %": statement(with_spans(opened(), ALWAYS_ON)),
        "query_tags: [application], db.tags(job=…)": tagged(opened(query_tags=["application"])),
        "slow_statement: 500ms": statement(opened(slow_statement="500ms")),
        "theirs, sampled out": statement(theirs(opened(), ALWAYS_OFF)),
        "theirs, 100 %": statement(theirs(opened(), ALWAYS_ON)),
    }
    samples = in_process(statements, calls=CALLS, rounds=ROUNDS, clock=process_time)
    report("a statement", samples, base="off", goal="nothing where it is off")


if __name__ == "__main__":
    main()
