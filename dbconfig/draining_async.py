"""The end of an event loop's engines in order: see `draining`."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.util import greenlet_spawn

from dbconfig import pool
from dbconfig.draining import LONGEST
from dbconfig.loops import LoopEngines
from dbconfig.pool.ending import CANCEL_LIMIT, GRACE, PAUSE, Drain

_log = logging.getLogger(__name__)


async def drain(engines: LoopEngines, timeout: float) -> None:
    """End engines; afterwards no connection of theirs is left on the server.

    Args:
        engines: of the running loop.
        timeout: seconds that work in progress gets to finish. What it is then doing is cancelled, and a second later
            its connection is cut.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0, not {timeout:g}")
    opened = engines.take()
    drains = [pool.drain(each.engine.sync_engine) for each in opened]
    if not await _idle(drains, min(timeout, LONGEST)):
        for late in [each for each in drains if each.busy()]:
            _log.warning("%s: %d connections still in use after %g s are cancelled", late.name, late.busy(), timeout)
            await _cancel(late)
        await _idle(drains, GRACE)
    for each in opened:
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
