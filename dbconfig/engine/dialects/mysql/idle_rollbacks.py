"""asyncmy and aiomysql: no ROLLBACK if no transaction is open, and TLS connections that close immediately."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry


def skip_idle_rollbacks(engine: Engine) -> None:
    """Send no ROLLBACK if nothing was sent since the last COMMIT or ROLLBACK; see `pymysql.Tracking`."""

    @event.listens_for(engine, "connect")
    def track(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        driver: Any = record.driver_connection
        if hasattr(driver, "_execute_command"):  # through which everything passes, prepared statements too
            driver.__class__ = _tracked(driver.__class__)


@cache
def _tracked(kind: type) -> type:
    class TrackedConnection(kind):  # type: ignore[misc]  # the driver's class, known when it has connected
        clean = False
        under_way: Any = None  # the statement
        interrupted: Callable[[Any], None] = staticmethod(lambda statement: None)

        async def query(self, sql: Any, unbuffered: bool = False) -> Any:
            self.under_way = sql
            try:
                answer = await super().query(sql, unbuffered)
                self.under_way = None
                return answer
            except (asyncio.CancelledError, KeyboardInterrupt):
                self.interrupted(sql)
                raise

        async def _execute_command(self, command: Any, sql: Any) -> Any:
            self.clean = False
            return await super()._execute_command(command, sql)

        async def commit(self) -> None:
            await super().commit()
            self.clean = True

        async def rollback(self) -> None:
            broken = self.closed if hasattr(self, "closed") else not self.connected  # aiomysql, asyncmy
            if self.clean and not broken:
                return
            await super().rollback()
            self.clean = True

        def close(self) -> None:
            # A closed TLS connection waits for the server's close_notify, before which the loop may end.
            beneath = _transport(self)
            super().close()
            if beneath is not None:
                beneath.abort()

    return TrackedConnection


def _transport(connection: Any) -> Any:
    """Return the transport under a connection's TLS, or None."""
    writer = getattr(connection, "_writer", None)  # aiomysql
    found = getattr(writer or connection, "_transport", None)
    return getattr(getattr(found, "_ssl_protocol", None), "_transport", None)
