"""COMMIT works only for the owner of a transaction, and never reports success for lost work.

A statement's error that the application catches may have ended the whole transaction: PostgreSQL then answers COMMIT
with ROLLBACK; MySQL and SQLite have rolled back and continue in a new transaction. All three report success.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from dbconfig.engine import raw_commits
from dbconfig.engine.dialects import driver_protocol, errors
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.set_up import info_of
from dbconfig.engine.each_statement import look_at_each
from dbconfig.engine.transaction_statements import HARMLESS, commits_implicitly, ends_transaction
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import family

_BROKEN: Final = raw_commits.BROKEN
_MARK: Final = raw_commits.MARK


# Keyed weakly: no value may hold the dialect, or neither would ever be collected.
_drivers: weakref.WeakKeyDictionary[Dialect, driver_protocol.Driver] = weakref.WeakKeyDictionary()
_checks: weakref.WeakKeyDictionary[Dialect, Callable[[Any], None]] = weakref.WeakKeyDictionary()


class Mark:
    """The owner of a connection's transaction, and the progress of its COMMIT."""

    __slots__ = ("alive", "allowed", "begun", "caught", "committed", "ended", "name", "partly", "sent", "undo")

    def __init__(self, name: str, *, allowed: bool) -> None:
        self.name: str = name  # of the database
        self.allowed: bool = allowed  # whether its COMMIT is due; in a unit of work only once the function has returned
        self.alive: bool = True
        self.begun: bool = False  # as far as the driver reports
        self.ended: bool = False  # by something other than its owner
        self.undo: Callable[[], None] | None = None  # undoes the changes to the driver's connection at the end
        self.sent: bool = False
        self.committed: bool = False
        self.partly: bool = False  # a statement has committed what came before it
        self.caught: Fate = Fate.FINAL  # of the last error of a statement, which the application may have caught

    def refuse(self) -> None:
        if self.alive and not self.allowed:
            raise InvalidRequestError(REFUSAL)

    def release(self) -> None:
        """Record that the owner has ended it, and restore the driver's connection."""
        self.begun = False
        undo, self.undo = self.undo, None
        if undo is not None:
            undo()


REFUSAL: Final = "run_in_transaction commits when its function returns; a commit inside it would prevent a retry"


def mark(connection: Connection, found: Mark) -> None:
    """Register the owner of the transaction that a connection has begun, until it ends."""
    pooled: Any = connection.connection
    pooled.info[_MARK] = found
    if not found.allowed:
        raw_commits.watch(connection, found, _driver(connection.dialect), family(connection.dialect.name))


def is_gone(connection: Connection, found: Mark) -> bool:
    """Return whether the transaction of a unit was ended behind its session's back, with an unknown outcome."""
    if found.allowed or broken_by(connection) is not None:
        return False
    if connection.closed or connection.invalidated:
        return found.ended
    return raw_commits.is_gone(connection, found, _driver(connection.dialect))


def refuse_broken(connection: Connection, statement: str = "COMMIT") -> None:
    """Raise the error that has ended the transaction of a connection, before a statement fails."""
    dialect = connection.dialect
    check = _checks.get(dialect)
    if check is None or connection.closed or connection.invalidated:
        return
    try:
        check(connection.connection)
    except dialect.loaded_dbapi.Error as error:
        raise DBAPIError.instance(statement, None, error, dialect.loaded_dbapi.Error, dialect=dialect) from error


def broken_by(connection: Connection) -> BaseException | None:
    """Return the error that has ended the transaction of a connection, even if it was caught."""
    if connection.closed or connection.invalidated:
        return None
    found: BaseException | None = info_of(connection.connection).get(_BROKEN)
    return found


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    """Make COMMIT report the truth on a writable engine; in the dialect, since a listener costs time per statement."""
    dialect: Any = engine.dialect
    backend = settings.backend
    driver = driver_protocol.of(engine.dialect)
    judges: dict[str, Callable[[Any, dict[str, Any]], bool]] = {
        "postgresql": partial(_is_in_error, driver),
        "sqlite": _is_noted,
    }
    is_broken = judges.get(backend, _is_rolled_back)

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        error, connection = context.original_exception, context.connection
        if connection is None or connection.closed or connection.invalidated:
            return
        if not isinstance(error, dialect.loaded_dbapi.Error):
            return
        info = info_of(connection.connection)
        found: Mark | None = info.get(_MARK)
        if found is not None:
            row = errors.of_statement(error, backend)
            found.caught = row.fate if row is not None else Fate.LOST if context.is_disconnect else Fate.FINAL
        if context.is_disconnect or context.statement is None or _is_autocommit(connection, settings):
            return  # without a statement it was a COMMIT, which has been rolled back
        if _may_break(backend, error, connection):
            info.setdefault(_BROKEN, errors.like(error, backend))

    dbapi = dialect.loaded_dbapi

    def refuse(connection: Any) -> None:  # which holds no dialect: it is a value of `_checks`
        info = info_of(connection)
        if is_broken(connection, info):
            error = info.get(_BROKEN)
            raise errors.like(error, backend) if error is not None else dbapi.InternalError(_ABORTED)

    _checks[engine.dialect] = refuse
    _drivers[engine.dialect] = driver
    _watch_ends(dialect, refuse)
    _watch_savepoints(dialect, forgets=backend == "postgresql")
    _watch_statements(dialect, family(backend))
    driver.let_class_change(engine)
    raw_commits.attach(engine)


_ABORTED: Final = "a statement of this transaction has failed, so COMMIT would roll it back"


def _driver(dialect: Dialect) -> driver_protocol.Driver:
    return _drivers.get(dialect) or driver_protocol.of(dialect)


def _watch_ends(dialect: Any, refuse_broken: Callable[[Any], None]) -> None:
    commit, rollback = dialect.do_commit, dialect.do_rollback

    def do_commit(connection: Any) -> None:
        info = info_of(connection)
        found: Mark | None = info.get(_MARK)
        try:
            if found is not None:
                found.refuse()
            refuse_broken(connection)
            if found is not None:
                found.sent = True
            commit(connection)
        except Exception as error:
            roll_back_after(error, connection)
            raise
        if found is not None:
            found.committed = True
            del info[_MARK]
            found.release()
        info.pop(_BROKEN, None)

    def roll_back_after(failure: Exception, connection: Any) -> None:
        """Roll back after a failed COMMIT, which SQLAlchemy treats as the end of the transaction."""
        of_driver = isinstance(failure, dialect.loaded_dbapi.Error)
        if of_driver and dialect.is_disconnect(failure, connection, None):
            return
        try:
            do_rollback(connection)
        except dialect.loaded_dbapi.Error as error:
            failure.add_note(f"dbconfig: the ROLLBACK after it failed, too: {error}")

    def do_rollback(connection: Any) -> None:
        info = info_of(connection)
        found: Mark | None = info.pop(_MARK, None)
        info.pop(_BROKEN, None)
        if found is not None:
            found.release()
        rollback(connection)

    # On the dialect object of this engine alone.
    dialect.do_commit, dialect.do_rollback = do_commit, do_rollback
    _watch_prepares(dialect, refuse_broken)


def _watch_prepares(dialect: Any, refuse_broken: Callable[[Any], None]) -> None:
    prepare = dialect.do_prepare_twophase

    def do_prepare_twophase(connection: Any, xid: Any) -> None:
        refuse_broken(connection.connection)
        prepare(connection, xid)

    dialect.do_prepare_twophase = do_prepare_twophase


def _watch_savepoints(dialect: Any, *, forgets: bool) -> None:
    roll_back_to, release = dialect.do_rollback_to_savepoint, dialect.do_release_savepoint

    def do_rollback_to_savepoint(connection: Connection, name: str) -> None:
        info = info_of(connection.connection)
        if forgets:
            roll_back_to(connection, name)
            info.pop(_BROKEN, None)  # PostgreSQL's transaction is usable again
        elif _BROKEN not in info or not _is_gone(info[_BROKEN]):
            roll_back_to(connection, name)  # else the savepoint went with the transaction

    def do_release_savepoint(connection: Connection, name: str) -> None:
        refuse_broken(connection, "RELEASE SAVEPOINT")
        release(connection, name)

    dialect.do_rollback_to_savepoint, dialect.do_release_savepoint = do_rollback_to_savepoint, do_release_savepoint


def _watch_statements(dialect: Any, system: str) -> None:
    def look(statement: str, context: Any) -> None:
        if (statement.startswith(HARMLESS) and ";" not in statement) or context is None:  # the usual case
            return
        found: Mark | None = info_of(context.root_connection.connection).get(_MARK)
        if found is None or found.allowed or not found.alive:
            return
        if ends_transaction(statement, system):
            raise dialect.loaded_dbapi.ProgrammingError(REFUSAL)
        if commits_implicitly(statement, system):
            found.partly = True

    look_at_each(dialect, look)


def _is_autocommit(connection: Connection, settings: DatabaseSettings) -> bool:
    level = connection.get_execution_options().get("isolation_level", settings.isolation_level)
    return str(level).upper() == "AUTOCOMMIT"


def _may_break(backend: str, error: BaseException, connection: Connection) -> bool:
    if backend == "postgresql":
        return True  # the transaction status shows whether it has
    if backend == "sqlite":
        driver: Any = driver_protocol.own_of(connection)
        ours = getattr(driver, "_conn", driver)  # aiosqlite's own wraps it
        # In memory, a transaction begins with the first statement that writes: until then there is nothing to lose.
        return not ours.in_transaction and not getattr(ours, "late", False)
    return errors.may_roll_back(error, backend)


# Whether the transaction of a connection is lost


def _is_noted(connection: Any, info: dict[str, Any]) -> bool:
    return _BROKEN in info


def _is_in_error(driver: driver_protocol.Driver, connection: Any, info: dict[str, Any]) -> bool:
    """PostgreSQL: the server's last answer contains the state, but a driver may not expose it."""
    own = getattr(connection, "driver_connection", None)
    failed = None if own is None else driver.in_failed_transaction(own)
    return failed if failed is not None else _BROKEN in info and _refuses(driver, connection)


def _refuses(driver: driver_protocol.Driver, connection: Any) -> bool:
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT 1")
    except Exception as error:
        if driver.was_in_failed_transaction(error):
            return True
        raise
    finally:
        cursor.close()
    return False


def _is_gone(error: BaseException) -> bool:
    return error.args[:1] != (errors.LOCK_WAIT,)


def _is_rolled_back(connection: Any, info: dict[str, Any]) -> bool:
    """MySQL and MariaDB: a deadlock ends the transaction, a lock timeout only under innodb_rollback_on_timeout."""
    error = info.get(_BROKEN)
    if error is None or _is_gone(error):
        return error is not None
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT @@innodb_rollback_on_timeout")
        return bool(cursor.fetchone()[0])
    finally:
        cursor.close()
