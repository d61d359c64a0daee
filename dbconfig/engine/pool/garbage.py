"""Collects garbage before a caller times out: that returns connections that were never closed."""

from __future__ import annotations

import gc

from dbconfig.engine.pool.clock import monotonic

# A collection stops every thread, for tenths of a second in a large process: so they take at most a twentieth of the
# time however many callers wait, and only callers with this many seconds left trigger one.
SHARE = 20.0
WORTH_IT = 0.5
PAUSE = 5.0


class Garbage:
    """Collects garbage, with a pause between collections."""

    def __init__(self) -> None:
        self._next = 0.0

    def collect(self, left: float) -> None:
        """Collect garbage for a caller that has so many seconds left, unless that was done a moment ago."""
        began = monotonic()
        if left < WORTH_IT or began < self._next:
            return
        self._next = began + PAUSE
        gc.collect()
        self._next = max(self._next, began + SHARE * (monotonic() - began))


garbage: Garbage = Garbage()
