"""Graceful shutdown of engines: reject new work, wait for running work, cancel the rest, and close everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable, Sequence
from typing import Final, Protocol

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine import pool
from dbconfig.engine.pool.cancelling import CANCEL_LIMIT
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.retiring import GRACE, PAUSE, Drain, is_closed, wait_until_idle
from dbconfig.errors.light_dataclass import dataclass

_log = logging.getLogger("dbconfig.draining")

LONGEST: Final = 86_400.0  # seconds; a longer wait is never intended


@dataclass(frozen=True, slots=True)
class _Wait:
    """A step: wait until nothing is in use; the result is False on a timeout."""

    seconds: float


@dataclass(frozen=True, slots=True)
class _Cancel:
    """A step: cancel running statements on the server."""

    late: Drain


def _steps(drains: Sequence[Drain], timeout: float) -> Generator[_Wait | _Cancel, bool, None]:
    """Yield the steps, in order, for threads and for an event loop alike; then everything can be closed."""
    if (yield _Wait(min(timeout, LONGEST))):
        return
    for late in [each for each in drains if each.busy()]:
        _log.warning(
            "%s: %d connections still in use after %g s are cancelled",
            late.name,
            late.busy(),
            timeout,
            extra=facts(late.name, seconds=timeout, used=late.busy()),
        )
        yield _Cancel(late)
    yield _Wait(GRACE)


def check(timeout: float) -> None:
    """Reject an invalid limit before anything is closed."""
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0, not {timeout:g}")


def is_over(engine: Engine) -> bool:
    """Return whether an engine has been drained, and hands out nothing."""
    return is_closed(engine)


def drain(engines: Iterable[Engine], timeout: float) -> None:
    """Shut engines down; afterward none of their connections is left on the server.

    Args:
        engines: of a registry.
        timeout: seconds that work in progress has to finish. Then its statements are cancelled, and a second later its
            connections are cut.
    """
    check(timeout)
    drains = [pool.drain(engine) for engine in engines if not is_closed(engine)]
    steps, answer = _steps(drains, timeout), None
    while True:
        try:
            step = steps.send(answer)  # type: ignore[arg-type]  # None begins a generator
        except StopIteration:
            break
        if isinstance(step, _Wait):
            answer = wait_until_idle(drains, step.seconds)
        else:
            step.late.cancel()
    for each in drains:
        each.cut()


class Opened(Protocol):
    """An engine of an event loop, and how it is shut down."""

    engine: Engine

    async def end(self) -> None: ...


async def async_drain(opened: Iterable[Opened], timeout: float) -> None:
    """Shut the engines of the running loop down; see `drain`."""
    check(timeout)
    found = [each for each in opened if not is_closed(each.engine)]
    drains = [pool.drain(each.engine) for each in found]
    steps, answer = _steps(drains, timeout), None
    while True:
        try:
            step = steps.send(answer)  # type: ignore[arg-type]  # None begins a generator
        except StopIteration:
            break
        if isinstance(step, _Wait):
            answer = await _idle(drains, step.seconds)
        else:
            await _cancel(step.late)
    for late in drains:
        late.give_up()
    for each in found:
        await each.end()


async def _cancel(late: Drain) -> None:
    try:
        async with asyncio.timeout(CANCEL_LIMIT):
            await greenlet_spawn(late.ask_to_cancel)
    except TimeoutError:
        _log.info(
            "%s: the server did not accept the cancel request within %g s",
            late.name,
            CANCEL_LIMIT,
            extra=facts(late.name, seconds=CANCEL_LIMIT),
        )


async def _idle(drains: list[Drain], seconds: float) -> bool:
    """Wait until nothing is in use; return False on a timeout."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while any(each.busy() for each in drains):
        left = deadline - loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(PAUSE, left))
    return True
