"""Statements in OpenTelemetry: the duration of each kind, and an optional span for each."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider, get_tracer
from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultExecutionContext

from dbconfig.engine import statement_text
from dbconfig.engine.pool import Histogram, forks
from dbconfig.engine.pool.record import Record
from dbconfig.engine.pool.tally import Tally
from dbconfig.engine.slow_statements import is_of_application
from dbconfig.registry.registry import Registry
from dbconfig.settings.known_drivers import DRIVERS

_STEPS: Final = ("do_execute", "do_execute_no_params", "do_executemany")  # by which a dialect executes a statement
Key = tuple[tuple[str, Any], ...]
_NUMBERED: Final = frozenset(driver.module for driver in DRIVERS["mysql"])  # modules whose errors begin with a number
LONG_WAIT: Final = 0.001  # seconds; a checkout that waited for longer is an event of its statement's span


class Durations:
    """Durations of statements, by their attributes, since the last collection."""

    def __init__(self) -> None:
        self._begin()
        forks.after_fork_in_child(self._begin)  # the parent exports its own counts

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[Key, Tally] = {}

    def observe(self, attributes: Key, seconds: float) -> None:
        with self._lock:
            tally = self._tallies.get(attributes)
            if tally is None:
                tally = self._tallies[attributes] = Tally()
            tally.observe(seconds)

    def take(self) -> Iterator[tuple[dict[str, Any], Histogram]]:
        with self._lock:
            taken, self._tallies = self._tallies, {}
        for attributes, tally in taken.items():
            yield dict(attributes), Histogram(counts=tuple(tally.counts), sum=tally.sum)


def watch(
    registry: Registry, durations: Durations, *, spans: bool, tracer_provider: TracerProvider | None
) -> Callable[[], None]:
    """Watch the statements of every engine of a registry; return a function that ends that."""
    tracer = get_tracer("dbconfig", tracer_provider=tracer_provider) if spans else None
    # Weakly: the engine refers to its listeners, and may be collected.
    watched: weakref.WeakSet[_Statements] = weakref.WeakSet()

    def look(engine: Engine) -> None:
        watched.add(_Statements(engine, durations, tracer))

    ends = [registry.parts.watch(look)]
    if tracer is not None:
        registry.parts.plan.around = _around(tracer)

    def end() -> None:
        for stop in (*ends, *(each.end for each in watched)):
            stop()
        registry.parts.plan.around = None

    return end


class _Statements:
    """Measures the statements of one engine, until `end`."""

    def __init__(self, engine: Engine, durations: Durations, tracer: Tracer | None) -> None:
        self._durations = durations
        self._tracer = tracer
        self._place = _attributes(engine)
        self._engine = weakref.ref(engine)
        self._keys: dict[tuple[str, str], Key] = {}
        self._over = False
        dialect: Any = engine.dialect
        self._earlier: dict[str, Any] = {name: getattr(dialect, name) for name in _STEPS}
        self._ours: dict[str, Any] = {
            name: self._measured(execute, many=name == "do_executemany") for name, execute in self._earlier.items()
        }
        for name, execute in self._ours.items():
            setattr(dialect, name, execute)  # of this engine alone

    def end(self) -> None:
        self._over = True  # another library may have wrapped our function
        engine = self._engine()
        dialect: Any = None if engine is None else engine.dialect
        for name in _STEPS:
            if getattr(dialect, name, None) is self._ours[name]:
                setattr(dialect, name, self._earlier[name])

    def _measured(self, execute: Callable[..., None], *, many: bool) -> Callable[..., None]:
        # Not events: with one, SQLAlchemy prepares each statement for all kinds of them, which costs ten times as much.
        def measured(cursor: Any, statement: str, *rest: Any, **named: Any) -> None:
            context = named.get("context", rest[-1] if rest else None)
            if self._over or not isinstance(context, DefaultExecutionContext) or not is_of_application(context):
                execute(cursor, statement, *rest, **named)
                return
            span = None if self._tracer is None else self._begin(statement, context, len(rest[0]) if many else 0)
            began = perf_counter()
            try:
                execute(cursor, statement, *rest, **named)
            except BaseException as error:
                key = self._key(statement, context.dialect, _error_type(error), _code(error))
                self._durations.observe(key, perf_counter() - began)
                if span is not None:
                    _mark_failed(span, error)
                    span.end()
                raise
            self._durations.observe(self._key(statement, context.dialect, ""), perf_counter() - began)
            if span is not None:
                span.end()

        return measured

    def _begin(self, statement: str, context: Any, batch: int) -> Span:
        assert self._tracer is not None
        found = statement_text.summary(statement, context.dialect.name)
        span = self._tracer.start_span(found, kind=SpanKind.CLIENT)
        if span.is_recording():
            self._describe(span, context, statement, found, batch)
        return span

    def _describe(self, span: Span, context: Any, statement: str, found: str, batch: int) -> None:
        span.set_attributes({**self._place, "db.system.name": _system(context.dialect)})
        span.set_attribute("db.query.summary", found)
        span.set_attribute("db.operation.name", statement_text.operation(statement))
        span.set_attribute("db.query.text", statement_text.shown(statement, context.dialect.name))
        if batch > 1:
            span.set_attribute("db.operation.batch.size", batch)
        record = getattr(context.root_connection.connection, "_connection_record", None)
        if isinstance(record, Record) and record.waited is not None:
            (lent_at, seconds), record.waited = record.waited, None
            if lent_at == record.lent_at and seconds > LONG_WAIT:
                span.add_event("dbconfig.checkout.waited", {"dbconfig.seconds": seconds})

    def _key(self, statement: str, dialect: Any, error: str, code: str | None = None) -> Key:
        """Return the attributes of a duration, always the same object for the same ones."""
        operation = statement_text.operation(statement)
        found = self._keys.get((operation, error))
        if found is None:
            named = {**self._place, "db.system.name": _system(dialect), "db.operation.name": operation}
            failed = {"error.type": error} if error else {}
            answered = {"db.response.status_code": code} if code else {}
            found = self._keys[operation, error] = tuple((named | failed | answered).items())
        return found


def _around(tracer: Tracer) -> Callable[[Any], Any]:
    @contextmanager
    def unit(attempts: Any) -> Iterator[None]:
        with tracer.start_as_current_span(
            "run_in_transaction", record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute(POOL, attempts.label)
            attempts.told.append(
                lambda reason: span.add_event("dbconfig.retry", {"dbconfig.reason": reason, ATTEMPT: attempts.number})
            )
            try:
                yield
            except BaseException as error:
                _mark_failed(span, error)
                raise
            finally:
                span.set_attribute("dbconfig.attempts", attempts.number)

    return unit


POOL: Final = "dbconfig.database"
ATTEMPT: Final = "dbconfig.attempt"


def _attributes(engine: Engine) -> dict[str, Any]:
    url = engine.url
    found: dict[str, Any] = {}
    if url.database is not None and engine.dialect.name != "sqlite":
        found["db.namespace"] = url.database
    if url.host is not None:
        found["server.address"] = url.host
    if url.port is not None:
        found["server.port"] = url.port
    return found


def _system(dialect: Any) -> str:
    return "mariadb" if getattr(dialect, "is_mariadb", False) else str(dialect.name)


def _mark_failed(span: Span, error: BaseException) -> None:
    # Not the error's text: servers repeat values in it.
    span.set_attribute("error.type", _error_type(error))
    code = _code(error)
    if code is not None:
        span.set_attribute("db.response.status_code", code)
    span.set_status(Status(StatusCode.ERROR))


def _error_type(error: BaseException) -> str:
    return _code(error) or f"{type(error).__module__}.{type(error).__qualname__}"


def _code(error: BaseException) -> str | None:
    """Return the error code of a server's answer; None for any other error."""
    error = getattr(error, "orig", None) or error  # SQLAlchemy's own error wraps the driver's
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(code, str):
        return code
    first = error.args[0] if error.args else None
    if isinstance(first, int) and type(error).__module__.partition(".")[0] in _NUMBERED:
        return str(first)
    return None
