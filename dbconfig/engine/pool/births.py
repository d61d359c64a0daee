"""What is known of connections from their beginning: ID and age tell one from another with the same ID elsewhere."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import event

from dbconfig.engine.pool import driver
from dbconfig.engine.pool.clock import monotonic

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


class Birth(NamedTuple):
    """The server's ID of a connection; when it began to be opened, and when it was, by the pool's clock."""

    number: int | None
    begun: float
    opened: float


_known: weakref.WeakKeyDictionary[Any, Birth] = weakref.WeakKeyDictionary()


def attach(engine: Engine) -> None:
    """Note it for each connection of an engine."""
    own = driver.of(engine.dialect)

    def note(connection: Any, record: Any) -> None:
        now, under = monotonic(), record.driver_connection
        _known[under] = Birth(own.number(under), now - (time.time() - record.starttime), now)

    event.listen(engine, "connect", note)


def of(connection: Any) -> Birth | None:
    """Return what is known of a driver's connection, also if it is closed."""
    return _known.get(connection)
