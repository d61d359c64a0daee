"""What a fork, and the end of the process, mean for registries."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbconfig.registry.registry import Registry

_registries: weakref.WeakSet[Registry] = weakref.WeakSet()
_forking = threading.RLock()  # one fork at a time, so that two of them do not wait for each other's registries
_held: list[Registry] = []  # those whose lock was taken before the fork; others may appear meanwhile

inherited: list[object] = []  # asynchronous engines of the parent process


def enroll(registry: Registry) -> None:
    """Look after a registry, as long as somebody else keeps it."""
    _registries.add(registry)


def _before_fork() -> None:
    # A lock that another thread holds at the fork would stay locked in the child, and what it guards half done.
    _forking.acquire()
    for registry in list(_registries):
        registry._lock.acquire()
        _held.append(registry)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    _held.clear()
    _forking.release()
    for registry in list(_registries):
        registry._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _say_goodbye() -> None:
    # Otherwise servers log connections that were lost, and Python 3.13 warns of databases that were not closed.
    for registry in list(_registries):
        registry.dispose()
