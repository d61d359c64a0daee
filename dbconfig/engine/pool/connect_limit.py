"""Time limit of a connect, also for drivers whose own limit does not cover all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool import deadline
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.driver import Driver, Parameters
from dbconfig.engine.pool.record import Record

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# Seconds that a connect gets even if its caller's deadline is nearer: less than this no driver understands.
LEAST = 1.0


def limit_connect_time(engine: Engine, connect_timeout: float, driver: Driver) -> None:
    """Bound each connect by ``connect_timeout`` and by what is left until the deadline of its caller."""
    if type(driver).limit_connect is Driver.limit_connect:
        return
    written: dict[str, Any] = {}

    def do_connect(dialect: Any, record: Any, arguments: Any, parameters: dict[str, Any]) -> None:
        seconds = connect_timeout
        if isinstance(record, Record):
            seconds = min(seconds, max(LEAST, record.deadline - monotonic()))
        elif (limit := deadline.current()) is not None:  # of the caller, who connects here in another kind of pool
            seconds = min(seconds, max(LEAST, limit.remaining()))
        driver.limit_connect(dialect, record, Parameters(parameters, written), seconds)

    event.listen(engine, "do_connect", do_connect)
    if type(driver).connected is not Driver.connected:
        event.listen(engine, "connect", driver.connected)
