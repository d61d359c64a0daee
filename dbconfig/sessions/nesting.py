"""Which unit of work a call joins: one that is alive, in the same thread and task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from dbconfig.engine.pool import forks

Key = tuple[int, str, bool]  # registry, database, whether asynchronous


class Unit:
    """A unit of work that runs: its session, and who may use it.

    A context is copied by threads, tasks, executors and tracing libraries, and outlives the unit in the copy. So the
    context alone does not say that this session is alive, nor that nobody else uses it at the same time.
    """

    def __init__(self) -> None:
        self.session: Any = None  # of the present attempt
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
    """Return the unit that a call is part of; None if it is one of its own."""
    found = _running.get().get(key)
    return found if found is not None and found.is_ours() else None


def found() -> Mapping[Key, Unit]:
    """Return what calls in this context find, for `enter` and `leave`."""
    return _running.get()


def enter(key: Key, unit: Unit, before: Mapping[Key, Unit]) -> None:
    """Let calls in this thread or task find a unit.

    Whoever enters says in a `finally` of his own that the unit is dead, and as its first word: an interrupt may strike
    anywhere, and what joined a unit that is over would never be committed.
    """
    _running.set({**before, key: unit})


def leave(key: Key, unit: Unit, before: Mapping[Key, Unit]) -> None:
    """Let calls find what they found before; in another context, where a coroutine was collected, do nothing."""
    if _running.get().get(key) is unit:
        _running.set(before)
