"""asyncmy: its implementation of the driver interface."""

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
        # It does not keep a status of 0, which without autocommit means that no transaction is open; read the answer
        # itself.
        answer = connection._result
        return answer is None or answer.description is not None or self.says_open(answer)


DRIVER = Asyncmy()
