"""The unit of work that a call joins: an active one, in the same thread and task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from dbconfig.engine.pool import forks

Key = tuple[int, str, bool]  # registry, database, whether asynchronous


class Unit:
    """An active unit of work: its session, and who may use it.

    Threads, tasks, executors, and tracing libraries copy contexts, and the copy outlives the unit. So the context alone
    does not prove that this session is alive, nor that no other thread or task uses it at the same time.
    """

    def __init__(self) -> None:
        self.session: Any = None  # of the current attempt
        self.alive = False
        self._owner = _here()

    def is_ours(self) -> bool:
        return self.alive and self._owner == _here()


def _here() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return threading.get_ident(), id(task)


NONE: Final[Mapping[Key, Unit]] = {}
_running: ContextVar[Mapping[Key, Unit]] = ContextVar("dbconfig.running", default=NONE)


def _leave_to_the_parent() -> None:
    """In a forked child: it cannot join a unit of work, whose connection is its parent's."""
    _running.set(NONE)


forks.after_fork_in_child(_leave_to_the_parent)


def joined(key: Key) -> Unit | None:
    """Return the unit that a call is part of; None if it starts a new one."""
    found = _running.get().get(key)
    return found if found is not None and found.is_ours() else None


def found() -> Mapping[Key, Unit]:
    """Return the current unit of this context, for `enter` and `leave`."""
    return _running.get()


def enter(key: Key, unit: Unit, before: Mapping[Key, Unit]) -> None:
    """Make a unit current for calls in this thread or task.

    The caller marks the unit as dead in the first statement of its own `finally`: an interrupt may be raised anywhere,
    and work that joined a finished unit would never be committed.
    """
    _running.set({**before, key: unit})


def leave(key: Key, unit: Unit, before: Mapping[Key, Unit]) -> None:
    """Restore the previous unit; do nothing in another context, in which a coroutine was collected."""
    if _running.get().get(key) is unit:
        _running.set(before)
