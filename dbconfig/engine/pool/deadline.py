"""A time budget for a piece of work: what is left, what it was spent on, and the error when it is exceeded."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError

from dbconfig.engine.pool.clock import monotonic

# What time is spent on, as the error says it.
WAITING = "waiting for a connection"
STATEMENTS = "executing statements"
COMMITTING = "committing"
PAUSING = "pausing before another attempt"
ELSEWHERE = "elsewhere in the application"

# Seconds by which a wait may end early: locks and event loops use another clock than the pool.
TOLERANCE = 0.005

SLUG = "deadline-exceeded"


class DeadlineExceeded(SQLAlchemyError, TimeoutError):
    """The time limit of `db.deadline` was exceeded.

    Attributes:
        seconds: the budget.
        spent: seconds by what they were spent on.
    """

    def __init__(self, message: str, *, seconds: float = 0.0, spent: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.spent: dict[str, float] = dict(spent or {})
        self.connection_is_whole = False  # nothing is under way on it: it may go back to the pool


class Deadline:
    """A time budget: within its `with` block, everything that waits for a database ends with it.

    It follows context variables: into coroutines, tasks, and functions in thread pools that copy the context, as
    FastAPI's and `asyncio.to_thread` do.
    """

    def __init__(self, seconds: float) -> None:
        """Note the budget; it begins with the `with`.

        Raises:
            ValueError: it is not a number.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
            raise ValueError(f"a deadline must be a number of seconds from now, not {seconds!r}")
        self.seconds: float = float(seconds)
        self.at: float = math.inf
        self._began = 0.0
        self._outer: Deadline | None = None
        self._spent: dict[str, list[float]] = {}

    def __enter__(self) -> Self:
        for begin in _at_first_use:
            begin()
        self._began = monotonic()
        self._outer = outer = _current.get()
        self.at = self._began + self.seconds
        if outer is not None:
            self.at = min(self.at, outer.at)
        _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.set(self._outer)  # not by a token: a generator may end in another context than it began in

    def remaining(self) -> float:
        """Return the seconds that are left, 0 when the time is over; for time limits of something else."""
        return max(0.0, self.at - monotonic())

    def spend(self, what: str, seconds: float) -> None:
        """Record what time was spent on."""
        each: Deadline | None = self
        while each is not None:
            found = each._spent.setdefault(what, [0, 0.0])
            found[0] += 1
            found[1] += seconds
            each = each._outer

    def exceeded(self, during: str, *, whole: bool = False) -> DeadlineExceeded:
        """Return the error to raise: what was under way at the end, and what the time was spent on before.

        Args:
            during: what ends now.
            whole: nothing is under way on the connection, if there is one.
        """
        limiting = self
        while limiting._outer is not None and limiting._outer.at <= limiting.at:
            limiting = limiting._outer
        spent = {what: seconds for what, (_, seconds) in limiting._spent.items()}
        times = {what: int(count) for what, (count, _) in limiting._spent.items()}
        spent[ELSEWHERE] = max(0.0, monotonic() - limiting._began - sum(spent.values()))
        parts = [
            f"{seconds:.2f} s {what}" + (f" ({times[what]} times)" if times.get(what, 1) > 1 else "")
            for what, seconds in sorted(spent.items(), key=lambda item: -item[1])
        ]
        error = DeadlineExceeded(
            f"the deadline of {limiting.seconds:g} s was exceeded while {during}: {', '.join(parts)}",
            seconds=limiting.seconds,
            spent=spent,
        )
        error.connection_is_whole = whole
        error.add_note(f"dbconfig[{SLUG}]: see `dbconfig explain {SLUG}`")
        return error


_current: ContextVar[Deadline | None] = ContextVar("dbconfig.deadline", default=None)
current: Callable[[], Deadline | None] = _current.get

# Called when a deadline begins, in any order: no limit is attached before the first deadline.
_at_first_use: list[Callable[[], Any]] = []


def at_first_use(function: Callable[[], Any]) -> None:
    _at_first_use.append(function)


@contextlib.contextmanager
def waiting(limit: Deadline) -> Iterator[None]:
    """Record a wait for a connection, and raise the deadline's error if that ended it."""
    began = monotonic()
    try:
        yield
    except Exception as error:
        limit.spend(WAITING, monotonic() - began)
        if monotonic() < limit.at - TOLERANCE:
            raise
        late = limit.exceeded(f"{WAITING}: {str(error).partition(chr(10))[0]}")
        for note in getattr(error, "__notes__", ()):
            late.add_note(note)
        raise late from error
    limit.spend(WAITING, monotonic() - began)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit work of our own, for which nothing is attached to an engine; the deadline of a caller does not count."""
    limit = Deadline(seconds)
    limit._began = monotonic()
    limit.at = limit._began + seconds
    token = _current.set(limit)
    try:
        yield
    finally:
        _current.reset(token)


def lift() -> None:
    """Ignore the deadline of the caller that started this task or thread: its work serves all callers."""
    _current.set(None)


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Do without the deadline for a moment, as for tasks that outlive the task that starts them."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
