"""COM_RESET_CONNECTION, for which no Python driver has a function: a fresh session without a new login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.util import await_only

from dbconfig.engine.dialects.set_up import on_connect

# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_reset_connection.html; MariaDB since 10.2.4
_RESET: Final = 0x1F
_NAMES: Final = "dbconfig.names"  # in record.info: the statement that sets character set and collation
DRIVERS: Final = ("pymysql", "aiomysql", "asyncmy")


def of_driver(engine: Engine, isolation_level: str | None) -> Callable[[Any, Any], None]:
    """Return what resets the session of a connection, and sets what the driver and SQLAlchemy have set at login."""
    dialect: Any = engine.dialect

    def note(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT @@character_set_client, @@collation_connection")
            record.info[_NAMES] = "SET NAMES {} COLLATE {}".format(*cursor.fetchone())
        finally:
            cursor.close()

    def reset(connection: Any, record: Any) -> None:
        driver = dialect.get_driver_connection(connection)
        own = getattr(driver, "__wrapped__", driver)  # of a tracer's proxy
        script = f"{record.info[_NAMES]}, autocommit = {int(own.get_autocommit())}"
        if dialect.is_async:
            await_only(_reset_async(own, script))
        else:
            own._execute_command(_RESET, b"")
            own._read_ok_packet()
            own.query(script)
        if isolation_level is not None and isolation_level != "AUTOCOMMIT":
            dialect.set_isolation_level(connection, isolation_level)

    on_connect(engine, note)
    return reset


async def _reset_async(driver: Any, script: str) -> None:
    await driver._execute_command(_RESET, "")
    await driver._read_ok_packet()
    await driver.query(script)
