"""Units of work: a function in a transaction, rerun from the start after a transient error."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session

from dbconfig.engine.commit_guard import broken_by, is_gone
from dbconfig.engine.dialects.error_table import JUDGED, Fate, Meaning
from dbconfig.engine.dialects.errors import COMMITTED, fate_of
from dbconfig.engine.pool import deadline
from dbconfig.engine.pool.chance import chance
from dbconfig.engine.pool.facts import facts
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.sessions import nesting, work_of
from dbconfig.sessions.commit import commit, tell_committed, tell_if_committed
from dbconfig.sessions.nesting import Key, Unit, joined
from dbconfig.sessions.session import begun

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

_log = logging.getLogger("dbconfig.retry")

T = TypeVar("T")

FIRST_PAUSE: Final = 0.02  # seconds; a deadlock's other side has usually finished by then
LONGEST_PAUSE: Final = 1.0  # seconds; a restarting server is reached soon after it is up


def pauses(first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> Iterator[float]:
    """Yield the pause before each further attempt, in seconds: it doubles, with a random factor from 0.5 to 1.

    Two transactions that conflicted once would conflict again after equal pauses.
    """
    pause = first
    while True:
        yield pause * chance.uniform(0.5, 1.0)
        pause = min(pause * 2, longest)


class Attempts:
    """Counts the attempts of one unit of work, and decides after each failure whether to retry."""

    def __init__(self, limit: int | None, timeout: float, label: str) -> None:
        """Start counting.

        Args:
            limit: maximum number of attempts; None: as many as begin before the deadline.
            timeout: seconds from now; no attempt begins after it.
            label: names the database in log records.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"attempts must be at least 1, not {limit}")
        self.number: int = 1
        self._limit = limit
        self._timeout = timeout
        self.label = label
        self.told: list[Callable[[str], None]] = []  # called with the reason of each further attempt
        # A context manager around each unit of work: a span, for tracing.
        self.around: Callable[[Attempts], AbstractContextManager[object]] = nullcontext
        self._deadline = time.monotonic() + timeout
        self._pauses = pauses()

    def pause_after(self, error: Exception, fate: Fate) -> float | None:
        """Return the pause before the next attempt; None if there is none."""
        if fate in (Fate.FINAL, Fate.UNCERTAIN):
            return None
        pause = next(self._pauses)
        # Work that never reached the server does not count as an attempt: it is retried until the time is up.
        spent = fate is not Fate.ABSENT and self._limit is not None and self.number >= self._limit
        if spent or pause > self._deadline - time.monotonic():
            of = f" of {self._limit}" if self._limit is not None else f", {self._timeout:.3g} s after the first"
            error.add_note(f"dbconfig: gave up after attempt {self.number}{of}: {fate.value}")
            return None
        _log.info(
            "%s: attempt %d: %s; retrying in %.3f s",
            self.label,
            self.number,
            fate.value,
            pause,
            extra=facts(self.label, attempt=self.number, reason=fate.name.lower(), seconds=pause),
        )
        self.number += fate is not Fate.ABSENT
        for tell in self.told:
            tell(fate.name.lower())
        return pause


# The steps of a unit of work, the same for threads and tasks.


@dataclass(frozen=True, slots=True)
class _Work:
    """Call the function of the unit."""

    session: Any


@dataclass(frozen=True, slots=True)
class _Call:
    """Call a function that uses the database."""

    function: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Close:
    session: Any


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class _Done:
    result: Any


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException
    fate: Fate


_Outcome = _Done | _Failed
_Step = _Work | _Call | _Close | _Pause
_Steps = Generator[_Step, Any, _Outcome]


def _unit(open_session: Callable[[], Any], attempts: Attempts, unit: Unit) -> _Steps:
    # Outcomes are returned, not raised: a StopIteration of the work would end the generator.
    while True:
        session = open_session()
        session.info["attempt"] = attempts.number
        unit.session = session
        unit.alive = True
        outcome = yield from _attempt(session)
        unit.alive = False
        if isinstance(outcome, _Done) or not isinstance(outcome.error, Exception):
            return outcome
        pause = attempts.pause_after(outcome.error, outcome.fate)
        if pause is None:
            return outcome
        limit = deadline.current()
        if limit is not None:
            if pause >= limit.remaining():
                late = limit.exceeded(f"a unit of work was about to be retried after {outcome.fate.value}")
                late.__cause__ = outcome.error
                return _Failed(late, Fate.FINAL)
            limit.spend(deadline.PAUSING, pause)
        del outcome  # its traceback refers to the frames, and so to the session, of this attempt
        yield _Pause(pause)


def _attempt(session: Any) -> _Steps:
    """Run the work once; return its result, or an error after which it may run again."""
    of_threads: Session = getattr(session, "sync_session", session)
    try:
        result = yield _Work(session)
        yield _Call(partial(commit, of_threads))
    except GeneratorExit:  # an interrupt between two steps, which propagates to the caller that runs them
        _end(of_threads)
        raise
    except BaseException as error:
        tell_if_committed(error, session)
        fate = _fate(error, of_threads)
        _end(of_threads)
        try:
            yield _Close(session)
        except Exception as other:  # the pool handles the connection; the caller needs the first error
            error.add_note(f"dbconfig: closing the session failed too: {other}")
        return _Failed(error, fate)
    _end(of_threads)
    try:
        yield _Close(session)
    except BaseException as error:
        tell_committed(error)
        return _Failed(error, Fate.FINAL)
    return _Done(result)


_TRANSIENT: Final = (Fate.CONFLICT, Fate.LOST, Fate.ABSENT)


def _end(session: Session) -> None:
    for _, mark in begun(session):
        mark.alive = False  # of a connection shared with other sessions, in tests
        mark.release()


def _fate(error: BaseException, session: Session) -> Fate:
    """Return the fate of the work: by its error, or by an earlier one that it has caught."""
    if not isinstance(error, Exception) or getattr(error, COMMITTED, False):
        return Fate.FINAL
    if any(mark.partly for _, mark in begun(session)):
        error.add_note("dbconfig: a statement of this unit committed the work before it, so the unit is not retried")
        return Fate.FINAL
    if any(is_gone(connection, mark) for connection, mark in begun(session)):
        error.add_note("dbconfig: the transaction ended outside its session, so the unit is not retried")
        return Fate.FINAL
    fate = fate_of(error)
    if isinstance(error, PendingRollbackError):  # an earlier error: the session requires a rollback
        caught = [mark.caught for _, mark in begun(session) if mark.caught in _TRANSIENT and not mark.sent]
        return caught[0] if caught else Fate.FINAL
    if fate is not Fate.FINAL or not hasattr(error, "orig"):
        return fate
    # A failed transaction rejects the next statement too, with an error that does not mention the first.
    for connection, _ in begun(session):
        row: Meaning | None = getattr(broken_by(connection), JUDGED, None)
        if row is not None and row.fate is Fate.CONFLICT:
            return row.fate
    return Fate.FINAL


def _result(outcome: _Outcome) -> Any:
    if isinstance(outcome, _Done):
        return outcome.result
    try:
        raise outcome.error
    finally:
        del outcome  # or the error would refer to itself through this frame


def _taken(steps: _Steps, take: Callable[[_Step], Any]) -> _Outcome:
    try:
        step = next(steps)
        while True:
            try:
                found = take(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as end:
        outcome: _Outcome = end.value
        return outcome


async def _async_taken(steps: _Steps, take: Callable[[_Step], Awaitable[Any]]) -> _Outcome:
    try:
        step = next(steps)
        while True:
            try:
                found = await take(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as end:
        outcome: _Outcome = end.value
        return outcome


def run(
    open_session: Callable[[], Session], work: Callable[[Session], T], attempts: Attempts, key: Key, unit: Unit
) -> T:
    """Run `work` in a transaction of a fresh session, and rerun it after a transient error; a nested call joins it.

    Args:
        open_session: creates one for each attempt.
        work: what to do.
        attempts: counts them.
        key: identifies the unit for nested calls.
        unit: a new one; the caller removes its session once the outcome is known.
    """
    work_of.check(work, asynchronous=False)
    outer = joined(key)
    if outer is not None:
        return work_of.called(work, outer.session)  # part of the outer unit, which is rerun from the start

    def take(step: _Step) -> Any:
        match step:
            case _Work(session):
                return work_of.called(work, session)
            case _Call(function):
                return function()
            case _Close(session):
                return session.close()
            case _Pause(seconds):
                return time.sleep(seconds)

    before = nesting.found()
    try:
        nesting.enter(key, unit, before)
        steps = _unit(open_session, attempts, unit)
        with attempts.around(attempts):
            result: T = _result(_taken(steps, take))
    finally:
        interrupted, unit.alive = unit.alive, False  # the first word: see `enter`
        nesting.leave(key, unit, before)
        if interrupted:
            with suppress(Exception):  # the interrupt keeps its class, or it would not have its effect
                unit.session.close()
    return result


async def async_run(
    open_session: Callable[[], AsyncSession],
    work: Callable[[AsyncSession], Awaitable[T]],
    attempts: Attempts,
    key: Key,
    unit: Unit,
) -> T:
    """Run `work` in a transaction of a fresh session, and rerun it after a transient error; see `run`."""
    work_of.check(work, asynchronous=True)
    outer = joined(key)
    if outer is not None:
        return await work_of.awaited(work, outer.session)

    async def take(step: _Step) -> Any:
        match step:
            case _Work(session):
                return await work_of.awaited(work, session)
            case _Call(function):
                return await greenlet_spawn(function)
            case _Close(session):
                return await session.__aexit__(None, None, None)  # shielded from a cancellation
            case _Pause(seconds):
                return await asyncio.sleep(seconds)

    before = nesting.found()
    try:
        nesting.enter(key, unit, before)
        steps = _unit(open_session, attempts, unit)
        with attempts.around(attempts):
            result: T = _result(await _async_taken(steps, take))
    finally:
        unit.alive = False  # the first word: see `enter`
        nesting.leave(key, unit, before)
    return result
