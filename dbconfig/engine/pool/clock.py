"""The pool's clock: a steady one that also counts the time for which the machine was suspended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial


def _choose() -> Callable[[], float]:
    # Python's monotonic clock stops while a laptop or a function is suspended (Linux, macOS), so a connection that the
    # server closed an hour ago would seem to have been idle for a moment. The wall clock may be set back.
    name = "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME"
    number: int | None = getattr(time, name, None)
    if number is None:
        return time.monotonic
    try:
        time.clock_gettime(number)
    except OSError:  # a kernel or a sandbox without it
        return time.monotonic
    return partial(time.clock_gettime, number)


monotonic: Callable[[], float] = _choose()
