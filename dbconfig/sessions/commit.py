"""Commit a session's transaction, and report what is known if that fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from dbconfig.engine.commit_guard import Mark, is_gone, refuse_broken
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import COMMITTED, fate_of, is_answer
from dbconfig.engine.pool import ledger_if_any
from dbconfig.engine.pool.sockets import Look, Verdict
from dbconfig.sessions.session import COMMITTING, UnitOfWork, begun
from dbconfig.sessions.session_classes import commit_as_the_class_does


class CommitUncertain(OperationalError):
    """The outcome of a COMMIT is unknown, or it took effect in some of several databases only.

    It is never retried automatically, because that could apply the work twice. Check whether the work is there (a
    unique key of the work makes that easy) before you run it again.

    Attributes:
        committed: names of the databases that have committed.
        unknown: names of the databases that may or may not have committed.
    """

    def __init__(
        self, cause: BaseException | str, *, committed: Sequence[str] = (), unknown: Sequence[str] = ()
    ) -> None:
        statement = cause.statement if isinstance(cause, DBAPIError) else None
        inner: BaseException = RuntimeError(cause) if isinstance(cause, str) else getattr(cause, "orig", None) or cause
        super().__init__(statement or "COMMIT", None, inner, connection_invalidated=True)
        self.committed: tuple[str, ...] = tuple(committed)
        self.unknown: tuple[str, ...] = tuple(unknown)
        self.add_note(
            "dbconfig: the outcome of this COMMIT is unknown. Check whether its work is there before you repeat it."
            if not self.committed
            else f"dbconfig: {self._outcome()}. Complete or undo the work before you repeat it."
        )

    def _outcome(self) -> str:
        found = f"committed in {', '.join(self.committed)}"
        return f"{found}; unknown in {', '.join(self.unknown)}" if self.unknown else f"{found}, and not elsewhere"

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n({self._outcome()})" if self.committed else text

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (type(self), self.statement, self.orig, self.committed, self.unknown)
        return _uncertain, arguments, {"__notes__": list(self.__notes__)}


setattr(CommitUncertain, COMMITTED, True)  # it is never repeated, not even by an enclosing unit of work


def _uncertain(
    kind: type[CommitUncertain], statement: str | None, inner: BaseException, committed: Any, unknown: Any
) -> CommitUncertain:
    return kind(OperationalError(statement, None, inner), committed=committed, unknown=unknown)


_GONE: Final = "the transaction ended outside its session, before its COMMIT: its work may or may not be committed"


def commit(session: Session) -> None:
    """Commit the transaction of a session in each of its databases.

    Raises:
        CommitUncertain: the outcome is unknown, or only some of several databases have committed.
        BaseException: any other error; a note says so if it came after the COMMIT.
    """
    if isinstance(session, UnitOfWork):
        session.refuse_closed()
    session.flush()  # an error of the flush does not concern the COMMIT
    if not session.in_transaction():
        return
    for connection, mark in begun(session):
        refuse_broken(connection)
        refuse_dead(connection)
        if is_gone(connection, mark):
            raise CommitUncertain(_GONE, unknown=[mark.name])
    known = begun(session)  # it grows when a hook uses one more database
    for _, mark in known:
        mark.allowed = True
    session.info[COMMITTING] = True
    try:
        if len(known) > 1:
            from dbconfig.sessions import several_databases

            several_databases.commit(session)
        else:
            commit_as_the_class_does(session)
    except BaseException as error:
        uncertain = uncertain_after(error, [mark for _, mark in known])
        if uncertain is None:
            raise
        if len(known) > 1:
            from dbconfig.sessions import several_databases

            for note in several_databases.left_by_hand(error):
                uncertain.add_note(note)
        for connection, mark in known:
            books = ledger_if_any(connection.engine)
            if books is not None and not mark.committed:
                books.count_uncertain_commit()
        raise uncertain from error
    finally:
        del session.info[COMMITTING]


def refuse_dead(connection: Connection) -> None:
    """Raise if the connection is known to be dead, while it is still certain that nothing was committed.

    The check costs no round trip, and turns most uncertain COMMITs after a restart into a plain retry.
    """
    if connection.closed or connection.invalidated:
        return
    look = Look.at(connection.dialect, driver_protocol.own_of(connection))
    if look is not None and look.verdict() is Verdict.DEAD:
        cause = ConnectionError("the connection was closed by the other side before COMMIT was sent")
        connection.invalidate(cause)
        raise OperationalError("COMMIT", None, cause, connection_invalidated=True)


def tell_committed(error: BaseException) -> None:
    """Add a note to an error that came after COMMIT was acknowledged, so that the work is not repeated."""
    setattr(error, COMMITTED, True)
    error.add_note("dbconfig: this error came after COMMIT: the transaction is committed. Do not repeat its work.")


def tell_if_committed(error: BaseException, session: Any) -> None:
    """Add a note to an interrupt after the COMMIT of a session; `commit` annotates errors of the COMMIT itself."""
    marks = [] if session is None else [mark for _, mark in begun(getattr(session, "sync_session", session))]
    if marks and all(mark.committed for mark in marks) and not getattr(error, COMMITTED, False):
        tell_committed(error)


def uncertain_after(error: BaseException, marks: Sequence[Mark]) -> CommitUncertain | None:
    """Return what to raise instead of an error of the COMMIT; None for the error itself."""
    committed = [mark.name for mark in marks if mark.committed]
    unknown = [mark.name for mark in marks if mark.sent and not mark.committed]
    if isinstance(error, CommitUncertain) or (not committed and not unknown):
        return None
    if len(committed) == len(marks):
        tell_committed(error)
        return None
    if not isinstance(error, Exception):  # an interrupt keeps its class, or it would not have its effect
        setattr(error, COMMITTED, True)
        known = f" It is committed in {', '.join(committed)}." if committed else ""
        error.add_note(f"dbconfig: it interrupted a COMMIT whose outcome is unknown.{known}")
        return None
    if unknown and _is_certain(error):
        unknown = []
    return CommitUncertain(error, committed=committed, unknown=unknown) if committed or unknown else None


def _is_certain(error: Exception) -> bool:
    """Whether an error of a COMMIT means that it took no effect."""
    if not isinstance(error, DBAPIError):
        return False
    fate = fate_of(error)
    if fate is Fate.FINAL:
        return not error.connection_invalidated and is_answer(error.orig)
    return fate in (Fate.CONFLICT, Fate.READ_ONLY)
