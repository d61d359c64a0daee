"""Check that a database answers, or wait until it does."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.connection_failures import Failure, classify, server_of
from dbconfig.engine.pool import forks
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.settings.database import DatabaseSettings

_log = logging.getLogger("dbconfig.health")

_PAUSE: Final = (0.1, 2.0)  # seconds between two attempts: the first, and the longest


Call = Callable[[Callable[[Engine], None]], None]


def _select_one(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


class _Attempt:
    """One connection and one query in a separate thread: no driver limits its handshake with a silent server."""

    def __init__(self, engine: Engine, call: Call | None) -> None:
        self.seconds: float | None = None
        self.error: BaseException | None = None
        self._call = call if call is not None else lambda work: work(engine)
        forks.notice()
        self._thread = threading.Thread(target=self._run, name="dbconfig-ping", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begin = time.perf_counter()
        try:
            self._call(_select_one)
        except Exception as error:  # raised again in the thread that asked
            self.error = error
        else:
            self.seconds = time.perf_counter() - begin

    def done(self, timeout: float) -> bool:
        self._thread.join(max(timeout, 0.0))
        return not self._thread.is_alive()


def ping(engine: Engine, timeout: float, call: Call | None = None) -> float:
    """Return how long a query took, connecting included, in seconds.

    Args:
        engine: of the database.
        timeout: how long at most, in seconds.
        call: how to call a function of the engine; the engine of an asynchronous driver needs its event loop for that.

    Raises:
        TimeoutError: no answer within the time.
        sqlalchemy.exc.DBAPIError: the connection or the query failed.
    """
    attempt = _Attempt(engine, call)
    if not attempt.done(timeout):
        raise TimeoutError(f"no answer within {timeout:.3g} s")
    if attempt.error is not None:
        raise attempt.error
    assert attempt.seconds is not None
    return attempt.seconds


async def async_ping(engine: Engine, timeout: float) -> float:
    """Do the same in the running event loop, for the engine of an asynchronous driver."""
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            await greenlet_spawn(_select_one, engine)
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:.3g} s") from None
    return time.perf_counter() - begin


def wait(
    engine: Engine,
    settings: DatabaseSettings,
    timeout: float,
    report: Callable[[BaseException], None] | None = None,
    call: Call | None = None,
) -> None:
    """Return when the database answers.

    Args:
        engine: of the database.
        settings: of the database.
        timeout: how long at most, in seconds.
        report: called with the error of each attempt that failed; None logs each reason once.
        call: how to call a function of the engine, as for `ping`.

    Raises:
        TimeoutError: it did not answer within the time; the last error is the cause.
        sqlalchemy.exc.DBAPIError: a permanent error, such as a wrong password; raised immediately.
    """
    steps = _steps(engine, settings, timeout, report)
    for step in steps:
        if step.pause:
            time.sleep(step.pause)
            continue
        attempt = _Attempt(engine, call)
        # Only one attempt may hang at a time; otherwise threads would accumulate.
        step.answered = attempt.done(step.seconds)
        step.error = attempt.error


async def async_wait(engine: Engine, settings: DatabaseSettings, timeout: float) -> None:
    """Do the same in the running event loop, for the engine of an asynchronous driver."""
    for step in _steps(engine, settings, timeout, None):
        if step.pause:
            await asyncio.sleep(step.pause)
            continue
        # Not cancelled before the overall time is up, so it is the last attempt.
        attempt = asyncio.ensure_future(greenlet_spawn(_select_one, engine))
        try:
            await asyncio.wait([attempt], timeout=step.seconds)
        finally:
            step.answered = attempt.done()
            if not step.answered:
                attempt.cancel()
        step.error = attempt.exception() if step.answered else None


@dataclass(slots=True)
class _Step:
    """The next step: pause, or attempt with a time limit and record the result."""

    seconds: float = 0.0
    pause: float = 0.0
    answered: bool = False
    error: BaseException | None = None


def _steps(
    engine: Engine, settings: DatabaseSettings, timeout: float, report: Callable[[BaseException], None] | None
) -> Iterator[_Step]:
    """Yield attempts and pauses until an attempt succeeds, for threads and for an event loop alike."""
    deadline = time.monotonic() + timeout
    what = f"{engine.logging_name}: {server_of(settings)}"
    report = report or _logged(what, settings)
    pause, last = _PAUSE[0], None
    while True:
        attempt = _Step(seconds=max(0.0, deadline - time.monotonic()))
        yield attempt
        if attempt.answered and attempt.error is None:
            return
        if attempt.error is not None:
            last = attempt.error
            if classify(last, settings).permanent:
                raise last
            report(last)
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"{what} did not answer within {timeout:.3g} s") from last
        yield _Step(pause=min(pause, remaining))
        pause = min(pause * 2, _PAUSE[1])


def _logged(what: str, settings: DatabaseSettings) -> Callable[[BaseException], None]:
    """Return a function that logs each reason once: the log of a slow start has three lines, not three hundred."""
    told: set[str] = set()

    def report(error: BaseException) -> None:
        found: Failure = classify(error, settings)
        if found.slug not in told:
            told.add(found.slug)
            _log.info(
                "waiting for %s: %s: %s",
                what,
                found.slug,
                found.words,
                extra={"server": what, "slug": found.slug, "stage": found.stage},
            )

    return report
