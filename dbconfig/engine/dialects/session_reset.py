"""`pool_reset: discard`: no session state reaches the next user of the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from dbconfig.engine import dialects
from dbconfig.engine.dialects.set_up import set_up_session

if TYPE_CHECKING:
    from sqlalchemy.pool import PoolResetState

    from dbconfig.settings.database import DatabaseSettings


def is_wanted(settings: DatabaseSettings) -> bool:
    """Return whether sessions are reset when their connection is returned."""
    return "discard" in (settings.pool_reset, settings.pool_reset_on_return)


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    """Reset the session of each connection that is returned. One that cannot be reset is closed by the pool."""
    if not is_wanted(settings):
        return
    reset: Callable[[Any, Any], None] | None = dialects.of(settings.backend).session_reset(engine, settings)
    if reset is None:
        event.listen(engine, "checkin", _close)
        return

    @event.listens_for(engine, "reset")
    def discard(connection: Any, record: Any, state: PoolResetState) -> None:
        if state.terminate_only or not state.asyncio_safe:
            return  # it is closed now
        connection.rollback()
        reset(connection, record)
        set_up_session(engine, connection, record)


def _close(connection: Any, record: Any) -> None:
    if connection is not None:
        record.invalidate()
