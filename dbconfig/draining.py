"""The end of engines in order: refuse what is new, wait for what runs, cancel what is left, close everything."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Engine

from dbconfig import pool
from dbconfig.pool.ending import GRACE, wait_until_idle

_log = logging.getLogger(__name__)

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
