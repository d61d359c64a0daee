"""Prometheus: a collector that reads the pools of a registry at each scrape."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from dbconfig.engine.pool import Histogram, PoolStats
from dbconfig.integrations.figures import FIGURES, POOL_NAME, Figure, Reader
from dbconfig.registry.registry import Registry, default


def name_of(figure: Figure) -> str:
    """Return the Prometheus name of a metric, as OpenTelemetry's own exporters write it, without a suffix."""
    name = figure.name.replace(".", "_")
    return f"{name}_seconds" if figure.unit == "s" else name


def label_of(attribute: str) -> str:
    return attribute.replace(".", "_")


_POOL: Final = label_of(POOL_NAME)


class Collector:
    """Reads the statistics at each scrape; between scrapes it costs nothing, and holds no data."""

    def __init__(self, registry: Registry | None = None) -> None:
        """Configure whose pools are read; None is `dbconfig.db`."""
        self._reader = Reader(default if registry is None else registry)

    def describe(self) -> list[Metric]:
        """Return nothing: the metrics are read at the first scrape, not when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        pools = self._reader.read()
        for figure in FIGURES:
            yield _family(figure, pools.values())


def _family(figure: Figure, pools: Iterable[PoolStats]) -> Metric:
    name, labels = name_of(figure), [_POOL]
    if figure.kind == "histogram":
        timed = HistogramMetricFamily(name, figure.text, labels=labels)
        for pool in pools:
            counted: Histogram = figure.read(pool)
            timed.add_metric([pool.name], _buckets(counted), counted.sum)
        return timed
    if figure.attribute:
        labels.append(label_of(figure.attribute))
    kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = kind(name, figure.text, labels=labels)
    for pool in pools:
        for attributes, value in figure.points(pool):
            family.add_metric([pool.name, *attributes.values()], value)
    return family


def _buckets(counted: Histogram) -> list[tuple[str, float]]:
    so_far, found = 0, []
    for bound, count in zip((*counted.bounds, math.inf), counted.counts, strict=True):
        so_far += count
        found.append(("+Inf" if bound == math.inf else str(bound), float(so_far)))
    return found


def register(registry: Registry | None = None, *, into: CollectorRegistry = REGISTRY) -> Collector:
    """Register a collector of a registry's pools with Prometheus' client library.

    A second call with the same arguments returns the first collector: a scrape with duplicate series is rejected.

    Args:
        registry: the registry; None is `dbconfig.db`.
        into: Prometheus' registry.
    """
    chosen = default if registry is None else registry
    with _lock:
        collectors = _collectors.setdefault(into, weakref.WeakValueDictionary())
        collector = collectors.get(id(chosen))
        if collector is None:
            collector = collectors[id(chosen)] = Collector(chosen)
        known: Any = collector  # it implements the collector protocol without the base class
        with suppress(KeyError):  # it is not registered, or no longer
            into.unregister(known)
        into.register(known)
    return collector


# By the identity of the registry, which a collector keeps alive.
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, weakref.WeakValueDictionary[int, Collector]]
_collectors = weakref.WeakKeyDictionary()
_lock = threading.Lock()
