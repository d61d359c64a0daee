"""Collects garbage for those who would wait in vain: connections that were forgotten come back that way."""

from __future__ import annotations

import gc

from dbconfig.engine.pool.clock import monotonic

# A collection stops every thread, for tenths of a second in a large process: so at most a twentieth of the time goes
# into them however many callers wait, and only who has so many seconds left is worth one.
SHARE = 20.0
WORTH_IT = 0.5
PAUSE = 5.0


class Garbage:
    """Collects, with a pause in between."""

    def __init__(self) -> None:
        self._next = 0.0

    def collect(self, left: float) -> None:
        """Collect garbage for a caller who has so many seconds left, unless that was done a moment ago."""
        began = monotonic()
        if left < WORTH_IT or began < self._next:
            return
        self._next = began + PAUSE
        gc.collect()
        self._next = max(self._next, began + SHARE * (monotonic() - began))


garbage: Garbage = Garbage()
