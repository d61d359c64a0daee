"""When connections were opened: with its ID on the server, that tells one from another with the same ID."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool.clock import monotonic

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_known: weakref.WeakKeyDictionary[Any, tuple[float, float]] = weakref.WeakKeyDictionary()


def attach(engine: Engine) -> None:
    """Note it for each connection of an engine."""
    event.listen(engine, "connect", _note)


def _note(connection: Any, record: Any) -> None:
    now = monotonic()
    _known[record.driver_connection] = (now - (time.time() - record.starttime), now)


def of(connection: Any) -> tuple[float, float] | None:
    """Return when a driver's connection began to be opened, and when it was, by the pool's clock; None if unknown."""
    return _known.get(connection)
