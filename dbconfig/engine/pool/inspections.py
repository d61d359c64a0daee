"""Inspections: functions that see each connection before it is handed out, and may have it replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import DisconnectionError, InvalidRequestError

if TYPE_CHECKING:
    from dbconfig.engine.pool.record import Record

Inspection = Callable[[Any, Any], None]  # of a connection and its record


class Inspected(Protocol):
    """A pool whose connections are inspected."""

    inspections: tuple[Inspection, ...]

    @property
    def generation(self) -> int: ...

    @property
    def logger(self) -> Any: ...

    def invalidate_all(self) -> None: ...


def inspected(pool: Inspected, record: Record, connection: Any) -> Any:
    """Return a connection that passes: this one, or else a new one in the same record. It has no proxy yet."""
    for last in (False, True):
        try:
            for inspect in pool.inspections:
                inspect(connection, record)
            return connection
        except DisconnectionError as error:
            pool.logger.info("Disconnection detected on checkout (reason: %r)", error)
            if error.invalidate_pool and record.generation == pool.generation:
                pool.invalidate_all()
            record.invalidate(error)
        except BaseException as error:
            record._checkin_failed(error, _fairy_was_created=False)
            raise
        if not last:
            connection = connected_again(record)
    record.checkin(_fairy_was_created=False)
    raise InvalidRequestError("This connection is closed")  # as SQLAlchemy says it


def connected_again(record: Record) -> Any:
    """Reconnect in a record whose connection was refused, or has expired since it was returned."""
    try:
        return record.get_connection()
    except BaseException as error:
        record._checkin_failed(error, _fairy_was_created=False)
        raise
