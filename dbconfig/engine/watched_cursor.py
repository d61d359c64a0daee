"""A cursor of a unit's connection that rejects statements that would end the transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbconfig.engine.transaction_statements import ends_transaction

Refuse = Callable[[], None]


def text_of(statement: Any, context: Any = None) -> str:
    if type(statement) is str:
        return statement
    if isinstance(statement, (bytes, bytearray)):
        return statement.decode("utf-8", "replace")
    as_string = getattr(statement, "as_string", None)  # psycopg's composed statements
    return str(as_string(context)) if callable(as_string) else str(statement)


class WatchedCursor:
    """A cursor that rejects statements that would end the transaction."""

    __slots__ = ("_cursor", "_refuse", "_system")

    def __init__(self, cursor: Any, refuse: Refuse, system: str) -> None:
        for name, value in zip(self.__slots__, (cursor, refuse, system), strict=True):
            object.__setattr__(self, name, value)

    def execute(self, statement: Any, *arguments: Any, **keywords: Any) -> Any:
        self._look(statement)
        return self._cursor.execute(statement, *arguments, **keywords)

    def executemany(self, statement: Any, *arguments: Any, **keywords: Any) -> Any:
        self._look(statement)
        return self._cursor.executemany(statement, *arguments, **keywords)

    def executescript(self, script: str) -> Any:
        self._refuse()
        return self._cursor.executescript(script)

    def _look(self, statement: Any) -> None:
        if ends_transaction(text_of(statement, self._cursor), self._system):
            self._refuse()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cursor, name, value)

    def __iter__(self) -> Any:
        return iter(self._cursor)

    def __next__(self) -> Any:
        return next(self._cursor)

    def __enter__(self) -> Any:
        self._cursor.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._cursor.__exit__(*error)
