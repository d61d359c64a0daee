"""Within a unit of work, a driver's own connections and cursors reject what SQLAlchemy's reject.

An end of the transaction that bypasses them (libpq itself, a MySQL procedure) is detected before the unit's COMMIT.
"""

from __future__ import annotations

import inspect
import sqlite3
import weakref
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine

from dbconfig.engine.dialects import driver_protocol, errors
from dbconfig.engine.dialects.driver_protocol import Driver
from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.engine.transaction_statements import HARMLESS, begins_with_an_end, commits_implicitly, ends_transaction
from dbconfig.engine.watched_class import CURSOR_METHODS, subclass, watched
from dbconfig.engine.watched_cursor import WatchedCursor, text_of
from dbconfig.settings.known_drivers import family

MARK: Final = "dbconfig.mark"  # in the info of a pooled connection: the owner of its transaction
BROKEN: Final = "dbconfig.broken"  # there, too: the error that ended its transaction
_INFO: Final = "dbconfig_info"  # of a driver's connection: that information
# Methods of a driver's connection that end a transaction; sqlite3's `executescript` commits before it begins.
_ENDING: Final = ("commit", "rollback", "begin", "autocommit", "executescript")

_TRANSACTION: Final = "_transaction"  # of SQLAlchemy's adapter of asyncpg: the transaction that it has begun
_COMMIT: Final = "COMMIT;"  # in the terms of asyncpg's transactions

Info = dict[str, Any]


class Mark(Protocol):
    """The owner of a transaction; see `commit_guard`."""

    allowed: bool
    begun: bool
    ended: bool
    partly: bool
    undo: Callable[[], None] | None

    def refuse(self) -> None: ...


# For connections whose class allows no further attributes, such as asyncpg's.
_infos: weakref.WeakKeyDictionary[Any, Info] = weakref.WeakKeyDictionary()


def _info_of(driver: Any) -> Info:
    found: Info | None = getattr(driver, _INFO, None)
    return found if found is not None else _infos.get(driver, {})


def attach(engine: Engine) -> None:
    """Make the connections of an engine check for an owner before they end a transaction."""
    dialect: Any = engine.dialect
    dialect.execution_ctx_cls = _past_the_watch(dialect.execution_ctx_cls)
    known, system = driver_protocol.of(dialect), family(dialect.name)
    guarded: dict[type, type] = {}

    def guard(connection: Any, record: Any) -> None:
        driver = record.driver_connection
        kind = type(driver)
        if hasattr(driver, "__dict__"):
            setattr(driver, _INFO, record.info)
        elif hasattr(driver, "__weakref__") and known.statement_methods:
            _infos[driver] = record.info
        else:
            return  # a C class, whose methods cannot be replaced
        if kind not in guarded:
            guarded[kind] = _guarded(kind, known, system)
        driver.__class__ = guarded[kind]
        known.ask_before_ends(driver, partial(_look, record.info, system=system))
        adapter = record.dbapi_connection
        if adapter is not driver and hasattr(type(adapter), _TRANSACTION):
            if type(adapter) not in guarded:
                guarded[type(adapter)] = _guarded_adapter(type(adapter))
            adapter.__class__ = guarded[type(adapter)]

    on_connect(engine, guard)


def is_gone(connection: Connection, mark: Mark, driver: Driver) -> bool:
    """Return whether something other than its owner has ended a transaction that has begun."""
    if mark.ended:
        return True
    own, adapted = driver_protocol.own_of(connection), connection.connection.dbapi_connection
    return (mark.begun or driver.has_begun(own, adapted)) and not driver.is_open(own)


def _asking(kind: type, name: str) -> Callable[..., Any]:
    own = getattr(kind, name)
    # At each COMMIT and ROLLBACK: without a call of Python's where the connection itself has the information.
    info_of = attrgetter(_INFO) if kind.__dictoffset__ else _info_of

    def ask(self: Any, *arguments: Any, **keywords: Any) -> Any:
        mark: Mark | None = info_of(self).get(MARK)
        if mark is not None:
            mark.refuse()
        return own(self, *arguments, **keywords)

    return ask


def _beginning(own: Callable[..., Any]) -> Callable[..., Any]:
    def begin(self: Any) -> Any:
        mark: Mark | None = _info_of(self).get(MARK)
        if mark is not None and not mark.allowed:
            mark.ended, mark.begun = mark.begun, True  # the first one was not ended through us
        return own(self)

    return begin


def _guarded(kind: type, driver: Driver, system: str) -> type:
    """Return a connection class that checks first."""

    def looking(name: str) -> Callable[..., Any]:
        own = getattr(kind, name)

        def look(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if driver.tells_tags and arguments[:1] == (_COMMIT,):
                return _tagged(own(self, *arguments, **keywords), driver)
            info = _info_of(self)
            mark: Mark | None = info.get(MARK)
            if mark is None or mark.allowed:
                return own(self, *arguments, **keywords)
            statement = text_of(arguments[0] if arguments else next(iter(keywords.values()), ""))
            if system == "mysql":
                # The values are already in the statement: only its first words are checked.
                if begins_with_an_end(statement, system):
                    mark.refuse()
                mark.ended = mark.ended or (mark.begun and not driver.is_open(self) and BROKEN not in info)
                return _noted(partial(own, self, *arguments, **keywords), info, mark, driver, self, statement)
            if driver.is_open(self):  # else it is the BEGIN itself
                _look(info, statement, system=system)
            return own(self, *arguments, **keywords)

        return look

    members: dict[str, Any] = {name: _asking(kind, name) for name in _ENDING if callable(getattr(kind, name, None))}
    members |= {name: looking(name) for name in driver.statement_methods if hasattr(kind, name)}
    if hasattr(kind, driver.begins_by or " "):
        members[driver.begins_by] = _beginning(getattr(kind, driver.begins_by))
    if issubclass(kind, sqlite3.Connection):
        members["__exit__"] = _asking(kind, "__exit__")  # it commits without calling `commit`
    return subclass(kind, members)


def _guarded_adapter(kind: type) -> type:
    """Return a subclass of SQLAlchemy's adapter of asyncpg that checks first: the original loses its transaction."""
    begun = attrgetter(_TRANSACTION)

    def asking(name: str) -> Callable[[Any], Any]:
        own = getattr(kind, name)

        def ask(self: Any) -> Any:
            if begun(self) is not None:  # else there is nothing to end, the usual case at a return to the pool
                _ask(self._connection)
            return own(self)

        return ask

    members: dict[str, Any] = {name: asking(name) for name in ("commit", "rollback") if hasattr(kind, name)}
    return subclass(kind, members)


async def _tagged(found: Awaitable[Any], driver: Driver) -> Any:
    """Return the tag of a COMMIT, unless it says that the server has rolled back: a statement had failed before."""
    tag = await found
    if tag == "ROLLBACK":
        raise driver.failed_transaction()
    return tag


def _noted(call: Callable[[], Any], info: Info, mark: Mark, driver: Driver, connection: Any, statement: str) -> Any:
    """Record what a statement has done to the transaction; awaitable if the driver's own call is."""
    try:
        found = call()
        if inspect.isawaitable(found):
            return _noted_later(found, info, mark, driver, connection, statement)
    except Exception as error:
        _note_error(info, error)
        raise
    _note(info, mark, driver, connection, statement)
    return found


async def _noted_later(
    found: Awaitable[Any], info: Info, mark: Mark, driver: Driver, connection: Any, statement: str
) -> Any:
    try:
        result = await found
    except Exception as error:
        _note_error(info, error)
        raise
    _note(info, mark, driver, connection, statement)
    return result


def _note_error(info: Info, error: Exception) -> None:
    if errors.may_roll_back(error, "mysql"):
        info.setdefault(BROKEN, errors.like(error, "mysql"))


def _note(info: Info, mark: Mark, driver: Driver, connection: Any, statement: str) -> None:
    """Record the transaction status from the server's last answer."""
    if driver.is_open(connection):
        mark.begun = True
    elif mark.begun and BROKEN not in info:
        if commits_implicitly(statement, "mysql"):
            mark.partly, mark.begun = True, False
        else:
            mark.ended = True


def _ask(driver: Any) -> None:
    mark: Mark | None = _info_of(driver).get(MARK)
    if mark is not None:
        mark.refuse()


def _look(info: Info, statement: str, *, system: str) -> None:
    """Reject a statement that would end the transaction."""
    mark: Mark | None = info.get(MARK)
    if mark is None or mark.allowed or (statement.startswith(HARMLESS) and ";" not in statement):
        return
    if ends_transaction(statement, system):
        mark.refuse()


def _past_the_watch(kind: type) -> type:
    """Return SQLAlchemy's context of a statement, which uses the driver's cursor, not the watched one."""

    # Both the look-up and the call are written in C: SQLAlchemy wraps what a signal raises while a cursor is created.
    own = property(attrgetter("_dbapi_connection.dbapi_connection.cursor"))
    return type(kind.__name__, (kind,), {"create_default_cursor": own})


def watch(connection: Connection, mark: Mark, known: Driver, system: str) -> None:
    """Reject calls that bypass SQLAlchemy on a unit's connection, for as long as it is checked out."""
    pooled: Any = connection.connection
    driver, info = pooled.dbapi_connection, pooled.info
    own = driver_protocol.own_of(connection)
    mark.begun = known.is_open(own)
    kind = known.cursor_class(own) if hasattr(own, _INFO) else None
    if kind is not None:
        before, own.cursor_factory = own.cursor_factory, _asking_cursor(kind)
        mark.undo = partial(setattr, own, "cursor_factory", before)
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
        return made if arguments or keywords else WatchedCursor(made, refuse, system)  # SQLAlchemy's, for a stream

    pooled.commit, pooled.rollback, pooled.cursor = commit_if_due, rollback_if_due, cursor_that_asks


@lru_cache
def _asking_cursor(kind: type) -> type:
    return watched(kind, CURSOR_METHODS, _look_by)


def _look_by(cursor: Any, statement: str) -> None:
    _look(_info_of(cursor.connection), statement, system="postgresql")
