"""Behind a pooler (asyncpg): a transaction begins together with its limits, and a read-only session always has one.

The driver prepares each statement in one message and executes it in the next, one statement at a time. Unlike with the
other drivers, a statement of a read-only session cannot carry its guard. `execute` without arguments accepts several.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import asyncpg
from sqlalchemy import Engine

from dbconfig.errors.late_pattern import late_pattern

_BEGIN: Final = late_pattern(r"\s*(?:BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_CONTROL: Final = late_pattern(r"\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|ABORT)\b", re.IGNORECASE)
# All methods that send a statement, except `execute` and `prepare`; `cursor` works only inside a transaction.
_SENDING: Final = (
    *("executemany", "fetch", "fetchval", "fetchrow", "fetchmany"),
    *("copy_from_table", "copy_from_query", "copy_to_table", "copy_records_to_table"),
)
_PING: Final = ";"


class LimitedConnection(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """A connection that sets the limits in each transaction, in the message of its BEGIN."""

    limits = ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        if not args and not self.is_in_transaction() and self._sets_limits(query):
            query = f"{self.limits};\n{query}"
        return await super().execute(query, *args, timeout=timeout)

    def _sets_limits(self, query: str) -> bool:
        return bool(_BEGIN.match(query))


class ReadingConnection(LimitedConnection):
    """A connection whose statements are all read-only: it begins a transaction if none is open."""

    async def begin_now(self) -> None:
        if not self.is_in_transaction():
            await self.execute("BEGIN")

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        if args:
            await self.begin_now()
        return await super().execute(query, *args, timeout=timeout)

    async def prepare(self, query: str, **options: Any) -> Any:
        if _CONTROL.match(query):
            return _Executed(await self.execute(query))  # one message: there is nothing to prepare
        await self.begin_now()
        return await super().prepare(query, **options)

    def _sets_limits(self, query: str) -> bool:
        return True


def _after_begin(name: str) -> Callable[..., Any]:
    @wraps(getattr(asyncpg.Connection, name))
    async def send(self: ReadingConnection, *args: Any, **options: Any) -> Any:
        if args[:1] != (_PING,):  # an idle connection must not have a transaction
            await self.begin_now()
        return await getattr(super(ReadingConnection, self), name)(*args, **options)

    return send


for _name in _SENDING:
    if hasattr(asyncpg.Connection, _name):  # asyncpg 0.29 has no fetchmany
        setattr(ReadingConnection, _name, _after_begin(_name))


@dataclass(frozen=True, slots=True)
class _Executed:
    """An executed statement without rows that SQLAlchemy treats as a prepared one."""

    status: str

    def get_attributes(self) -> tuple[()]:
        return ()

    def get_statusmsg(self) -> str:
        return self.status

    async def fetch(self, *args: Any, **options: Any) -> list[Any]:
        return []


def attach(engine: Engine, limits: str, *, reading: bool = False) -> None:
    """Make an engine use our connections."""
    dialect: Any = engine.dialect
    connect = dialect.connect
    ours = ReadingConnection if reading else LimitedConnection
    limited = type(ours.__name__, (ours,), {"limits": limits})

    def connect_ours(*arguments: Any, **keywords: Any) -> Any:
        chosen = keywords.get("connection_class", asyncpg.Connection)
        keywords["connection_class"] = (
            limited if issubclass(limited, chosen) else type(ours.__name__, (limited, chosen), {})
        )
        try:
            return connect(*arguments, **keywords)
        finally:
            keywords.clear()  # no traceback frame may hold the password

    dialect.connect = connect_ours
