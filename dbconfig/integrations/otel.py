"""OpenTelemetry: metrics of every pool, and optional spans of statements."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation, get_meter_provider
from opentelemetry.trace import TracerProvider

from dbconfig.engine.pool import Histogram as Counted
from dbconfig.engine.pool import forks
from dbconfig.integrations.figures import FIGURES, POOL_NAME, Figure, Reader
from dbconfig.integrations.otel_statements import Durations, watch
from dbconfig.registry.registry import Registry, default

_SCOPE: Final = "dbconfig"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
# The smallest share of a bucket that does not fall into the bucket below it.
_LEAST: Final = 1e-6


class Instrumentation:
    """An instrumentation started by `instrument`, until `end`."""

    def __init__(self, registry: Registry, ends: list[Callable[[], None]]) -> None:
        self.registry = registry
        self._ends = ends

    def end(self) -> None:
        """Stop tracing and exporting measurements."""
        while self._ends:
            self._ends.pop()()
        _instrumented.pop(id(self.registry), None)


_instrumented: dict[int, Instrumentation] = {}
_lock = threading.Lock()


def instrument(
    registry: Registry | None = None,
    *,
    spans: bool = False,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Instrumentation:
    """Export the metrics of a registry's pools and statements, and optionally spans.

    A second call for the same registry is a no-op that returns the first one's result.

    Args:
        registry: the registry; None is `dbconfig.db`.
        spans: one span for each statement, and one for each `run_in_transaction`.
        meter_provider: None is the global one.
        tracer_provider: None is the global one.
    """
    chosen = default if registry is None else registry
    with _lock:
        found = _instrumented.get(id(chosen))
        if found is None:
            found = _instrumented[id(chosen)] = _begin(chosen, spans, meter_provider, tracer_provider)
        return found


def _begin(
    registry: Registry, spans: bool, meter_provider: MeterProvider | None, tracer_provider: TracerProvider | None
) -> Instrumentation:
    provider = get_meter_provider() if meter_provider is None else meter_provider
    meter = provider.get_meter(_SCOPE, schema_url=_SCHEMA)
    durations = Durations()
    metrics = _Metrics(meter, registry, durations)
    end_watching = watch(registry, durations, spans=spans, tracer_provider=tracer_provider)
    return Instrumentation(registry, [end_watching, metrics.end])


class _Metrics:
    """The instruments, which read the statistics at each collection."""

    def __init__(self, meter: Meter, registry: Registry, durations: Durations) -> None:
        self._reader = Reader(registry)
        self._durations = durations
        self._drained: dict[tuple[str, str], Counted] = {}
        self._unlock()
        forks.after_fork_in_child(self._unlock)
        self._over = False
        self._histograms: dict[str, Histogram] = {}
        bounds = list(Counted().bounds)
        for figure in FIGURES:
            if figure.kind == "histogram":
                self._histograms[figure.name] = meter.create_histogram(
                    figure.name, figure.unit, figure.text, explicit_bucket_boundaries_advisory=bounds
                )
        self._operations = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=bounds,
        )
        create: dict[str, Callable[..., object]] = {
            "gauge": meter.create_observable_gauge,
            "updown": meter.create_observable_up_down_counter,
            "counter": meter.create_observable_counter,
        }
        for number, figure in enumerate(each for each in FIGURES if each.kind != "histogram"):
            callback = self._drain_and_observe(figure) if not number else self._observe(figure)
            create[figure.kind](figure.name, [callback], figure.unit, figure.text)

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def end(self) -> None:
        self._over = True

    def _observe(self, figure: Figure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            if self._over:
                return
            for pool in self._reader.read().values():
                for attributes, value in figure.points(pool):
                    if value == value:  # it is known
                        yield Observation(value, {POOL_NAME: pool.name, **attributes})

        return observe

    def _drain_and_observe(self, figure: Figure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return a callback that first records new histogram counts: OpenTelemetry has no observable histogram."""
        observe = self._observe(figure)

        def drain(options: CallbackOptions) -> Iterable[Observation]:
            if not self._over:
                self._drain()
            return list(observe(options))

        return drain

    def _drain(self) -> None:
        pools = self._reader.read()
        with self._lock:
            for figure in FIGURES:
                if figure.kind != "histogram":
                    continue
                for pool in pools.values():
                    key = figure.name, pool.name
                    now, before = figure.read(pool), self._drained.get(key, Counted())
                    self._drained[key] = now
                    record_all(self._histograms[figure.name], since(before, now), {POOL_NAME: pool.name})
            for attributes, counted in self._durations.take():
                record_all(self._operations, counted, attributes)


def since(before: Counted, now: Counted) -> Counted:
    """Return what a histogram has counted since."""
    counts = tuple(new - old for new, old in zip(now.counts, before.counts, strict=True))
    return Counted(now.bounds, counts, now.sum - before.sum)


def record_all(histogram: Histogram, counted: Counted, attributes: dict[str, Any]) -> None:
    """Record values with the same buckets and the same sum as the counted ones."""
    for value, count in spread(counted):
        for _ in range(count):
            histogram.record(value, attributes)


def spread(counted: Counted) -> Iterable[tuple[float, int]]:
    """Yield a value for each bucket and its count, so that the sum is the counted one.

    All values are at the same relative position in their bucket. The last bucket has no upper bound, and takes the
    remainder.
    """
    lows = (0.0, *counted.bounds)
    highs = (*counted.bounds, counted.bounds[-1])
    least = sum(low * count for low, count in zip(lows, counted.counts, strict=True))
    most = sum(high * count for high, count in zip(highs, counted.counts, strict=True))
    height = min(1.0, max(_LEAST, (counted.sum - least) / (most - least))) if most > least else 1.0
    beyond = max(0.0, counted.sum - most) / counted.counts[-1] if counted.counts[-1] else 0.0
    for low, high, count in zip(lows, highs, counted.counts, strict=True):
        if count:
            yield (low + height * (high - low) if high > low else low * (1 + _LEAST) + beyond), count


class Instrumentor:
    """The entry point for `opentelemetry-instrument`: metrics and spans of `dbconfig.db`."""

    def instrument(self, **options: Any) -> None:
        """Instrument the default registry, with spans, which running the command implies."""
        meters, tracers = options.get("meter_provider"), options.get("tracer_provider")
        instrument(spans=True, meter_provider=meters, tracer_provider=tracers)

    def uninstrument(self, **options: Any) -> None:
        """End it."""
        found = _instrumented.get(id(default))
        if found is not None:
            found.end()
