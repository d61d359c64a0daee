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


DRIVER = Asyncmy()
