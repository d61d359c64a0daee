"""asyncmy: its answers to what the engine half asks of a driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dbconfig.engine.dialects.mysql.driver import AsynchronousMySQLDriver


class Asyncmy(AsynchronousMySQLDriver):
    """The driver asyncmy, written in Cython."""

    package = "asyncmy"

    def connect(self, dialect: Any) -> Callable[..., Awaitable[Any]]:
        connect: Callable[..., Awaitable[Any]] = dialect.loaded_dbapi.asyncmy.connect
        return connect

    def is_open(self, connection: Any) -> bool:
        if not super().is_open(connection):
            return False
        # It keeps no status of 0, which says that without autocommit no transaction is open; the answer itself has it.
        answer = connection._result
        return answer is None or answer.description is not None or self.says_open(answer)


DRIVER = Asyncmy()
