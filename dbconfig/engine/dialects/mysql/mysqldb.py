"""mysqlclient: its implementation of the driver interface."""

from __future__ import annotations

from typing import Any

from dbconfig.engine.dialects.mysql.driver import MySQLDriver


class MySQLdb(MySQLDriver):
    """The driver mysqlclient, written in C, which does not keep the server's status."""

    package = "MySQLdb"
    tells_transactions = False

    def is_open(self, connection: Any) -> bool:
        return True

    def may_write(self, connection: Any) -> bool:
        return False

    def in_transaction(self, connection: Any) -> bool:
        return True

    def plug(self, connection: Any) -> Any:
        return connection if hasattr(connection, "fileno") else None

    def password(self, text: str) -> str:
        return text


DRIVER = MySQLdb()
