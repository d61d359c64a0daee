"""The monotonic clock of the package, which a test moves ahead instead of waiting."""

import importlib
import pkgutil
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

import dbconfig.engine.pool
import dbconfig.replicas
from dbconfig.engine.pool import clock as pool_clock
from dbconfig.engine.pool.maintenance import caretaker

_REAL = (time.monotonic, pool_clock.monotonic)  # the second counts the time that a machine slept, too


class Clock:
    """Seconds of the machine, and those by which the test has moved ahead."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return pool_clock.monotonic() + self._ahead

    def ahead_of(self, real: Callable[[], float]) -> Callable[[], float]:
        """Return what a module uses instead of this function, whose times it may have kept."""
        return lambda: real() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let so much time have passed; return when the caretaker of the pools has done what was due by then."""
        self._ahead += seconds
        done = threading.Event()
        caretaker.add(self, done.set)  # after all that is due earlier
        assert done.wait(30), "the caretaker is stuck"


class _Time(types.ModuleType):
    """The module `time` with another clock, for those who say `time.monotonic()`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("time")
        self.monotonic = clock.ahead_of(time.monotonic)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def install(patch: pytest.MonkeyPatch) -> Clock:
    """Put a clock into all of dbconfig's modules; what others wait for, such as a lock, still takes its time."""
    for package in (dbconfig.engine.pool, dbconfig.replicas):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    clock = Clock()
    for name, module in list(sys.modules.items()):
        if name.startswith("dbconfig."):
            real = vars(module).get("monotonic")
            if real in _REAL and module is not pool_clock:
                patch.setattr(module, "monotonic", clock.ahead_of(real))
            if vars(module).get("time") is time:
                patch.setattr(module, "time", _Time(clock))
    return clock
