"""The end of engines in order: refuse what is new, wait for what runs, cancel what is left, close everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine import pool
from dbconfig.engine.pool.retiring import CANCEL_LIMIT, GRACE, PAUSE, Drain, wait_until_idle

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_log = logging.getLogger("dbconfig.draining")

LONGEST: Final = 86_400.0  # seconds; nobody means to wait for ever for the end


def drain(engines: Iterable[Engine], timeout: float) -> None:
    """End engines; afterwards no connection of theirs is left on the server.

    Args:
        engines: of a registry.
        timeout: seconds that work in progress gets to finish. What it is then doing is cancelled, and a second later
            its connection is cut.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0, not {timeout:g}")
    drains = [pool.drain(engine) for engine in engines]
    if not wait_until_idle(drains, min(timeout, LONGEST)):
        for late in [each for each in drains if each.busy()]:
            _log.warning("%s: %d connections still in use after %g s are cancelled", late.name, late.busy(), timeout)
            late.cancel()
        wait_until_idle(drains, GRACE)
    for each in drains:
        each.cut()


class Opened(Protocol):
    """An asynchronous engine, and how it ends."""

    engine: AsyncEngine

    async def end(self) -> None: ...


async def async_drain(opened: Callable[[], Sequence[Opened]], timeout: float) -> None:
    """End engines; afterwards no connection of theirs is left on the server.

    Args:
        opened: takes the engines of the running loop away from it.
        timeout: seconds that work in progress gets to finish. What it is then doing is cancelled, and a second later
            its connection is cut.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0, not {timeout:g}")
    engines = opened()
    drains = [pool.drain(each.engine.sync_engine) for each in engines]
    if not await _idle(drains, min(timeout, LONGEST)):
        for late in [each for each in drains if each.busy()]:
            _log.warning("%s: %d connections still in use after %g s are cancelled", late.name, late.busy(), timeout)
            await _cancel(late)
        await _idle(drains, GRACE)
    for each in engines:
        await each.end()


async def _cancel(late: Drain) -> None:
    try:
        await asyncio.wait_for(greenlet_spawn(late.ask_to_cancel), CANCEL_LIMIT)
    except TimeoutError:
        _log.info("%s: the server did not take the request to cancel within %g s", late.name, CANCEL_LIMIT)


async def _idle(drains: list[Drain], seconds: float) -> bool:
    """Wait until nothing is in use any more; return whether that came true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while any(each.busy() for each in drains):
        left = deadline - loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(PAUSE, left))
    return True
