"""Which unit of work a call joins: one that is alive, in the same thread and task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from dbconfig.engine.pool import forks

Key = tuple[int, str, bool]  # registry, database, whether asynchronous


class Unit:
    """A unit of work that runs: its session, and who may use it.

    A context is copied by threads, tasks, executors and tracing libraries, and outlives the unit in the copy. So the
    context alone does not say that this session is alive, nor that nobody else uses it at the same time.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.alive = True
        self._owner = _here()

    def is_ours(self) -> bool:
        return self.alive and self._owner == _here()


def _here() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return threading.get_ident(), id(task)


_NONE: Final[Mapping[Key, Unit]] = {}
_running: ContextVar[Mapping[Key, Unit]] = ContextVar("dbconfig.running", default=_NONE)


def _leave_to_the_parent() -> None:
    """In a forked child: it cannot join a unit of work, whose connection is its parent's."""
    _running.set(_NONE)


forks.after_fork_in_child(_leave_to_the_parent)


def joined(key: Key) -> Unit | None:
    """Return the unit that a call is part of; None if it is one of its own."""
    found = _running.get().get(key)
    return found if found is not None and found.is_ours() else None


@contextmanager
def running(key: Key, session: Any) -> Iterator[Unit]:
    """Let calls in this thread or task join a unit, until it ends."""
    unit = Unit(session)
    token = _running.set({**_running.get(), key: unit})
    try:
        yield unit
    finally:
        unit.alive = False
        _running.reset(token)
