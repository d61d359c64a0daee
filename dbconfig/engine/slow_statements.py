"""Slow statements: how long each took, its call site, and its plan."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.pool import _ConnectionFairy
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine import statement_text
from dbconfig.engine.pool import deadline as deadlines
from dbconfig.engine.pool import forks
from dbconfig.engine.pool.beside import connected
from dbconfig.engine.pool.diagnostics.call_sites import application_frames, describe, running
from dbconfig.engine.pool.facts import facts
from dbconfig.settings.database import DatabaseSettings

_log = logging.getLogger("dbconfig.slow")

BURST: Final = 20  # records that an engine may write in a burst; then one per `PAUSE`
PAUSE: Final = 3.0  # seconds
PLAN_PAUSE: Final = 60.0  # seconds between two plans of one statement
MOST_PLANS: Final = 500  # statements whose last plan is remembered
PLAN_LIMIT: Final = 2000  # milliseconds for an EXPLAIN, which may wait for locks
_LONGEST_PLAN: Final = 8000  # characters

_PLANNED: Final = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")
# Lines of a PostgreSQL plan that repeat values from the statement.
_CONDITION: Final = re.compile(r"^(\s*(?:[\w ]*(?:Filter|Cond|Key|Call|Output|Limit)): )(.*)$", re.MULTILINE)


@dataclass
class _Budget:
    """How many records may still be written now, and how many were suppressed."""

    left: float = BURST
    at: float = 0.0
    suppressed: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        forks.after_fork_in_child(self._unlock)

    def _unlock(self) -> None:
        self.lock = threading.Lock()

    def take(self) -> int | None:
        """Return how many records were suppressed since the last one; None if this one is, too."""
        with self.lock:
            now = monotonic()
            self.left, self.at = min(float(BURST), self.left + (now - self.at) / PAUSE), now
            if self.left < 1:
                self.suppressed += 1
                return None
            self.left -= 1
            suppressed, self.suppressed = self.suppressed, 0
            return suppressed


def attach(engine: Engine, settings: DatabaseSettings, label: str) -> None:
    """Log the statements of an engine that take longer than `slow_statement`; without it, nothing is attached."""
    limit = settings.slow_statement
    if limit is None:
        return
    report = _Report(engine, label)
    plans = _Plans(engine, label, report.facts) if settings.slow_statement_plan else None

    def finish(cursor: Any, statement: str, parameters: Any, context: Any, seconds: float, many: bool = False) -> None:
        if is_of_application(context):
            report(statement, seconds, cursor.rowcount, "")
            if plans is not None and not many:
                plans.ask(statement, parameters)

    def fail(statement: str, context: Any, seconds: float, error: BaseException) -> None:
        if seconds >= limit and is_of_application(context):
            report(statement, seconds, -1, type(error).__name__)

    _measure(engine.dialect, limit, finish, fail)


def _measure(dialect: Any, limit: float, finish: Callable[..., None], fail: Callable[..., None]) -> None:
    """Report each statement that takes the limit or longer, whether it succeeds or fails."""
    execute, plainly, many = dialect.do_execute, dialect.do_execute_no_params, dialect.do_executemany

    # Not events: with one, SQLAlchemy prepares each statement for all kinds of them, which costs ten times as much.
    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        began = perf_counter()
        try:
            execute(cursor, statement, parameters, context)
        except BaseException as error:
            fail(statement, context, perf_counter() - began, error)
            raise
        if perf_counter() - began >= limit:
            finish(cursor, statement, parameters, context, perf_counter() - began)

    def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        began = perf_counter()
        try:
            plainly(cursor, statement, context)
        except BaseException as error:
            fail(statement, context, perf_counter() - began, error)
            raise
        if perf_counter() - began >= limit:
            finish(cursor, statement, None, context, perf_counter() - began)

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        began = perf_counter()
        try:
            many(cursor, statement, parameters, context)
        except BaseException as error:
            fail(statement, context, perf_counter() - began, error)
            raise
        if perf_counter() - began >= limit:
            finish(cursor, statement, None, context, perf_counter() - began, many=True)

    dialect.do_execute, dialect.do_execute_no_params = do_execute, do_execute_no_params  # of this engine alone
    dialect.do_executemany = do_executemany


class _Report:
    """Logs the slow statements of one engine."""

    def __init__(self, engine: Engine, label: str) -> None:
        self.facts = facts(label)
        self._label = label
        self._dialect, self._awaits = engine.dialect.name, engine.dialect.is_async
        self._budget = _Budget()

    def __call__(self, statement: str, seconds: float, rows: int, error: str) -> None:
        suppressed = self._budget.take()
        if suppressed is None:
            return
        text = statement_text.shown(statement, self._dialect)
        frames = running(1) if self._awaits else application_frames(sys._getframe(1), 1)
        place = describe(frames[0]) if frames else "an unknown place"
        counted = f"{rows} rows" if rows >= 0 else error or "an unknown number of rows"
        more = f" ({suppressed} more were not logged)" if suppressed else ""
        told = {"seconds": seconds, "rows": rows if rows >= 0 else None, "place": place, "statement": text}
        _log.warning(
            "%s: slow statement: %.3f s, %s, at %s: %s%s",
            *(self._label, seconds, counted, place, text, more),
            extra={**self.facts, **told, "error": error or None, "suppressed": suppressed},
        )


def is_of_application(context: Any) -> bool:
    """Whether a statement runs on a connection from the pool: SQLAlchemy queries each new server before that."""
    return context is not None and isinstance(context.root_connection.connection, _ConnectionFairy)


class _Plans:
    """Requests the plans of slow statements, over a separate connection, in a separate thread or task."""

    def __init__(self, engine: Engine, label: str, facts: dict[str, str]) -> None:
        self._engine = weakref.ref(engine)
        self._dialect = engine.dialect.name
        self._label, self._facts = label, facts
        self._asked: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unlock()
        forks.after_fork_in_child(self._unlock)

    def _unlock(self) -> None:
        self._lock = threading.Lock()
        self._busy = False  # the thread or task that does this belongs to the parent

    def ask(self, statement: str, parameters: Any) -> None:
        if statement_text.operation(statement) not in _PLANNED:
            return
        if not statement_text.is_single(statement, self._dialect):
            return
        now, same = monotonic(), statement_text.shown(statement, self._dialect)  # a tag may differ each time
        with self._lock:
            last = self._asked.get(same)
            if self._busy or (last is not None and now - last < PLAN_PAUSE):
                return
            self._busy = True
            self._asked.pop(same, None)
            self._asked[same] = now
            if len(self._asked) > MOST_PLANS:
                del self._asked[next(iter(self._asked))]
        engine = self._engine()
        try:
            if engine is not None and engine.dialect.is_async:
                task = asyncio.get_running_loop().create_task(
                    greenlet_spawn(self._explain_aside, statement, parameters)
                )
                self._tasks.add(task)
                task.add_done_callback(self._done)
            else:
                arguments = (statement, parameters)
                threading.Thread(target=self._explain, args=arguments, name="dbconfig-explain", daemon=True).start()
        except RuntimeError as error:  # the interpreter is shutting down, and starts no threads
            self._busy = False
            _log.debug("%s: no plan: %s", self._label, error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy = False  # it may have been cancelled before it began

    def _explain_aside(self, statement: str, parameters: Any) -> None:
        deadlines.lift()  # of the caller, whose statement was slow: less than the plan needs may be left of it
        self._explain(statement, parameters)

    def _explain(self, statement: str, parameters: Any) -> None:
        engine = self._engine()
        try:
            if engine is None:
                return
            text = statement_text.shown(statement, engine.dialect.name)
            plan = _plan(engine, statement, parameters)
            extra = {**self._facts, "statement": text, "plan": plan}
            _log.warning("%s: plan of a slow statement: %s\n%s", self._label, text, plan, extra=extra)
        except Exception as error:  # the statement itself succeeded; a missing plan is not an error
            _log.info("%s: no plan of a slow statement: %s", self._label, type(error).__name__, extra=self._facts)
        finally:
            self._busy = False


def _plan(engine: Engine, statement: str, parameters: Any) -> str:
    """Return the plan of a statement without executing it, and without the values that it compares with."""
    with connected(engine.pool) as connection:
        cursor = connection.cursor()
        limits = {"postgresql": f"SET statement_timeout = {PLAN_LIMIT}", "sqlite": "PRAGMA query_only = 1"}
        cursor.execute(limits.get(engine.dialect.name, f"SET SESSION lock_wait_timeout = {PLAN_LIMIT // 1000}"))
        verb = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        # Without parameters a driver parses no placeholders, so a `%` stays one character.
        cursor.execute(f"{verb} {statement}", *([parameters] if parameters else []))
        names = [each[0] for each in cursor.description]
        rows = cursor.fetchall()
        cursor.close()
    return _written(engine.dialect.name, names, rows)[:_LONGEST_PLAN]


def _written(dialect: str, names: list[str], rows: list[Any]) -> str:
    if dialect == "postgresql":
        lines = "\n".join(str(row[0]) for row in rows)
        return _CONDITION.sub(lambda found: found[1] + statement_text.shown(found[2], dialect), lines)
    if dialect == "sqlite":
        return "\n".join(str(row[-1]) for row in rows)
    named = [zip(names, ("-" if value is None else str(value) for value in row), strict=True) for row in rows]
    return "\n".join(", ".join(f"{name}={value}" for name, value in row) for row in named)
