"""One transaction over several databases: in two phases if the servers support it, else in a fixed order."""

from __future__ import annotations

import logging
import time
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, Engine, RootTransaction, Transaction
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from dbconfig.engine.commit_guard import Mark
from dbconfig.engine.dialects.mysql import xa
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.sessions.preparable import is_preparable
from dbconfig.sessions.session import begun
from dbconfig.sessions.session_classes import commit_as_the_class_does
from dbconfig.settings.known_drivers import family

_log = logging.getLogger("dbconfig.two_phase")

# Seconds during which COMMIT PREPARED is retried after a connection was lost, once all parts are prepared. An attempt
# may wait for a connection, as long as `pool_timeout`.
PATIENCE: Final = 10.0
BY_HAND: Final = "dbconfig: left prepared; end it by hand: "  # how the notes begin that name such a transaction
_PAUSE: Final = 0.2  # seconds between two of these attempts
_UNDEFINED_OBJECT: Final = "42704"  # https://www.postgresql.org/docs/current/errcodes-appendix.html


@dataclass(slots=True)
class _Part:
    """A session's transaction in one of its databases."""

    connection: Connection
    mark: Mark
    transaction: Transaction | None  # in tests, a savepoint of one that is rolled back; None: do not commit it
    engine: Engine
    name: str = ""  # of the prepared transaction


def commit(session: Session) -> None:
    """Commit what a session has begun in each of its databases.

    Every part but one is prepared first, if its server keeps prepared transactions. Then the one that cannot be
    prepared commits, and then the prepared ones. If several cannot be prepared, they commit one after another, those
    that may still fail with a conflict first. The `Mark` of each part records its progress.
    """
    transaction: Any = session.get_transaction()
    transaction._prepare_impl()  # runs hooks and flushes, as Session.commit does
    parts = sorted((_part(transaction, *one) for one in begun(session)), key=_rank)
    plain = [part for part in parts if not _can_prepare(part)]
    prepared = [part for part in parts if part not in plain] if len(plain) <= 1 else []
    if not plain and len(prepared) == 1:
        plain, prepared = prepared, []
    try:
        for part in prepared:
            _prepare(part)
        for part in parts:
            if part not in prepared and part.transaction is not None:
                part.transaction.commit()
    except BaseException as error:
        if not any(part.mark.sent for part in parts):
            _give_up(prepared)
        elif prepared:
            for part in prepared:
                ends = f"{_statement(part, 'COMMIT')}, or ROLLBACK, by the outcome of the others"
                error.add_note(f"{BY_HAND}{ends}, in {part.mark.name}")
            _log.error(
                "left prepared, for a COMMIT whose outcome is unknown: %s",
                ", ".join(map(_shown, prepared)),
                extra=_facts(prepared),
            )
        raise
    _commit_all(prepared)
    _end(session, transaction)


def left_by_hand(error: BaseException) -> list[str]:
    """Return the notes of an error that name transactions which were left prepared."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(BY_HAND)]


def _part(transaction: Any, connection: Connection, mark: Mark) -> _Part:
    _, own, ours, _ = transaction._connections[connection]
    return _Part(connection, mark, own if ours else None, connection.engine)


def _rank(part: _Part) -> int:
    """Return the commit order: databases whose COMMIT can fail with a conflict, then other servers, then files."""
    if part.connection.dialect.name == "sqlite":
        return 2
    return 0 if part.connection.get_isolation_level() == "SERIALIZABLE" else 1


def _can_prepare(part: _Part) -> bool:
    return isinstance(part.transaction, RootTransaction) and is_preparable(part.connection)


def _prepare(part: _Part) -> None:
    found = xa.name_of(part.connection)
    part.name = found or f"dbconfig-{uuid4().hex}"  # from now on it may exist, whatever happens to the connection
    try:
        if found is not None:
            xa.prepare(part.connection, found)
            return
        part.connection.exec_driver_sql(f"PREPARE TRANSACTION '{part.name}'")
    except DBAPIError as error:
        if not error.connection_invalidated:
            part.name = ""  # rejected: the server has rolled it back
        raise
    assert part.transaction is not None
    part.transaction.rollback()  # nothing is left to roll back, but the driver does not know that


def _commit_all(parts: list[_Part]) -> None:
    """Commit the prepared transactions: one whose server is away leaves no other one prepared."""
    failure: BaseException | None = None
    waiting = list(parts)
    while waiting:
        try:
            _commit_prepared(waiting[0])
        except BaseException as error:
            failure = failure or error
            left = waiting[:1] if isinstance(error, (SQLAlchemyError, OSError)) else waiting
            _log.error("still prepared, but must be committed: %s", ", ".join(map(_shown, left)), extra=_facts(left))
            for part in left:
                failure.add_note(f"{BY_HAND}{_statement(part, 'COMMIT')} in {part.mark.name}")
            if left is waiting:
                raise  # an interrupt is not delayed
        del waiting[0]
    if failure is not None:
        raise failure


def _commit_prepared(part: _Part) -> None:
    """Commit a prepared transaction; the decision is made, so a lost connection does not stop it."""
    part.mark.sent = True
    deadline, on_its_own = time.monotonic() + PATIENCE, True
    while True:
        try:
            _finish(part, "COMMIT", on_its_own=on_its_own)
        except (SQLAlchemyError, OSError):
            if time.monotonic() > deadline:
                raise
            on_its_own = False
            _pause(part)
        else:
            part.mark.committed = True
            return


def _facts(parts: list[_Part]) -> dict[str, Any]:
    return {"databases": [part.mark.name for part in parts], "prepared": [part.name for part in parts]}


def _give_up(parts: list[_Part]) -> None:
    for part in parts:
        if part.name:
            try:
                _finish(part, "ROLLBACK", on_its_own=not part.connection.invalidated)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("it may be left prepared: %s: %s", _shown(part), error, extra=_facts([part]))


def _finish(part: _Part, verb: str, *, on_its_own: bool) -> None:
    """End a prepared transaction: on its own connection, or on another one."""
    connection = part.connection if on_its_own else part.engine.connect()
    is_xa = family(connection.dialect.name) == "mysql"
    try:
        if not (is_xa and on_its_own):
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        if is_xa:
            xa.finish(connection, verb, part.name)
        else:
            connection.exec_driver_sql(_statement(part, verb))
        connection.commit()  # of the ended transaction; notifies listeners of commits
    except DBAPIError as error:
        # It no longer exists at the second attempt: the first one has reached the server.
        if is_xa:
            done = not error.connection_invalidated and xa.is_done(connection, error.orig, part.name)
        else:
            done = (getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)) == _UNDEFINED_OBJECT
        if not done:
            raise
    finally:
        if not on_its_own:
            connection.close()


def _statement(part: _Part, verb: str) -> str:
    is_xa = family(part.engine.dialect.name) == "mysql"
    return f"XA {verb} '{part.name}'" if is_xa else f"{verb} PREPARED '{part.name}'"


def _pause(part: _Part) -> None:
    if part.connection.dialect.is_async:
        import asyncio

        from sqlalchemy.util import await_only

        await_only(asyncio.sleep(_PAUSE))
    else:
        time.sleep(_PAUSE)


def _shown(part: _Part) -> str:
    return f"'{part.name}' in {part.mark.name}"


def _end(session: Session, transaction: SessionTransaction) -> None:
    """Let the session finish its transaction, whose parts are committed: hooks, expiry, connections."""
    known: Any = transaction
    for key, (connection, begun_, _, autoclose) in list(known._connections.items()):
        known._connections[key] = (connection, begun_, False, autoclose)  # False: not to be committed
    commit_as_the_class_does(session)
