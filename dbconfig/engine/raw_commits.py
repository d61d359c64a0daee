"""Within a unit of work, a driver's own `commit`, `rollback`, and cursor are refused what SQLAlchemy is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Engine

from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.engine.transaction_statements import ends_transaction

MARK: Final = "dbconfig.mark"  # in the information of a pooled connection: whose transaction it is
_INFO: Final = "dbconfig_info"  # of a driver's connection: that information
# Methods of a driver's connection that end a transaction; sqlite3's `executescript` commits before it begins.
_ENDING: Final = ("commit", "rollback", "begin", "autocommit", "executescript")

Refuse = Callable[[], None]


def attach(engine: Engine) -> None:
    """Let the connections of an engine look for a mark that refuses, before they end a transaction."""
    dialect: Any = engine.dialect
    dialect.execution_ctx_cls = _past_the_watch(dialect.execution_ctx_cls)
    guarded: dict[type, type] = {}

    def guard(connection: Any, record: Any) -> None:
        driver = record.driver_connection
        kind = type(driver)
        if not hasattr(driver, "__dict__"):
            return  # a class of C, whose methods cannot be exchanged
        if kind not in guarded:
            guarded[kind] = _guarded(kind)
        driver.__class__ = guarded[kind]
        setattr(driver, _INFO, record.info)

    on_connect(engine, guard)


def _guarded(kind: type) -> type:
    """Return a class of connections that asks first."""

    def asking(name: str) -> Callable[..., Any]:
        own = getattr(kind, name)

        def ask(self: Any, *arguments: Any, **keywords: Any) -> Any:
            _ask(self)
            return own(self, *arguments, **keywords)

        return ask

    members = {name: asking(name) for name in _ENDING if callable(getattr(kind, name, None))}
    if issubclass(kind, sqlite3.Connection):
        members["__exit__"] = asking("__exit__")  # it commits without calling `commit`
    return type(kind.__name__, (kind,), members)


def _ask(driver: Any) -> None:
    mark = getattr(driver, _INFO).get(MARK)
    if mark is not None:
        mark.refuse()


def _past_the_watch(kind: type) -> type:
    """Return SQLAlchemy's context of a statement, which takes the driver's cursor and not the watched one."""

    # Written in C, both the look-up and the call: SQLAlchemy wraps what a signal raises while a cursor is made.
    own = property(attrgetter("_dbapi_connection.dbapi_connection.cursor"))
    return type(kind.__name__, (kind,), {"create_default_cursor": own})


def watch(pooled: Any, mark: Any, system: str) -> None:
    """Refuse what a unit's connection is asked for past SQLAlchemy, for as long as the pool lends it."""
    driver, info = pooled.dbapi_connection, pooled.info
    commit, rollback, cursor = driver.commit, driver.rollback, driver.cursor

    def refuse() -> None:
        if info.get(MARK) is mark:
            mark.refuse()

    def commit_if_due() -> Any:
        refuse()
        return commit()

    def rollback_if_due() -> Any:
        refuse()
        return rollback()

    def cursor_that_asks(*arguments: Any, **keywords: Any) -> Any:
        made = cursor(*arguments, **keywords)
        return made if arguments or keywords else _Cursor(made, refuse, system)  # SQLAlchemy's, for a stream

    pooled.commit, pooled.rollback, pooled.cursor = commit_if_due, rollback_if_due, cursor_that_asks


class _Cursor:
    """A cursor that refuses statements which would end the transaction."""

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
        text = statement.decode("utf-8", "replace") if isinstance(statement, bytes) else statement
        if isinstance(text, str) and ends_transaction(text, self._system):
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
