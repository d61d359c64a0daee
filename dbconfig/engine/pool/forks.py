"""What a forked child must forget: locks that nobody unlocks, threads that do not exist, its parent's connections."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import base

_resets: list[weakref.WeakMethod[Callable[[], None]]] = []
# Connections of the parent that this process inherited in use. They are never let go: closing one, or rolling it back,
# would speak on the parent's socket and end its transaction.
_pinned: list[Any] = []


def after_fork_in_child(reset: Callable[[], None]) -> None:
    """Call a bound method in every child that is forked from now on, as long as its object lives."""
    _resets[:] = [known for known in _resets if known() is not None]
    _resets.append(weakref.WeakMethod(reset))


def _reset_all() -> None:
    for known in list(_resets):
        reset = known()
        if reset is not None:
            reset()


def pin(records: list[Any]) -> None:
    """Keep inherited connections open and out of use.

    Whoever holds one in the child, a session that was open at the fork for instance, finds it invalidated: its next
    statement takes a new connection or raises, but never reaches the parent's socket.
    """
    for record in records:
        fairy = record.fairy_ref() if record.fairy_ref is not None else None
        _pinned.append((record, record.dbapi_connection))
        if fairy is None:
            continue
        _pinned.append(fairy)
        finalizer = getattr(fairy, "_finalizer", None)  # SQLAlchemy 2.1
        if finalizer is not None:
            finalizer.detach()
        # SQLAlchemy 2.0 hangs the clean-up on the weak reference, which would be called at the end of the process.
        getattr(base, "_strong_ref_connection_records", {}).pop(record.fairy_ref, None)
        record.fairy_ref = None
        fairy.dbapi_connection = None
        fairy._connection_record = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
