"""A request's session: when it holds and may return a connection, and that it rejects work after its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Connection, ExecutionContext, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import SessionTransaction
from sqlmodel import Session

from dbconfig.engine.pool import driver

_SELECT: Final = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_WRITES: Final = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE)
_LOCKS: Final = re.compile(r"\b(FOR|LOCK|INTO)\b", re.IGNORECASE)
_CALL: Final = re.compile(r"\b([a-z_][\w.]*)\s*\(", re.IGNORECASE)
# Words before a parenthesis that leave no state in the transaction. Any other function may: set_config() for row
# security, pg_advisory_xact_lock(), or one of the application.
_HARMLESS: Final = re.compile(
    r"all|and|any|as|avg|between|by|case|cast|coalesce|concat|count|distinct|else|except|exists|extract|filter|from"
    r"|having|in|intersect|join|length|like|limit|lower|max|min|not|nullif|offset|on|or|over|round|select|some"
    r"|substr|substring|sum|then|trim|union|upper|values|when|where",
    re.IGNORECASE,
)


def only_reads(statement: str) -> bool:
    """Whether a statement leaves nothing in its transaction: no change, no lock, no setting."""
    return (
        _SELECT.match(statement) is not None
        and _LOCKS.search(statement) is None
        and all(_HARMLESS.fullmatch(name) for name in _CALL.findall(statement))
    )


def refuse_after_end(session: Session, why: Callable[[], str]) -> None:
    """Make a session reject all further work once there is a reason.

    A closed session would silently begin again and never be closed: its connection would not be returned, and objects
    added to it would be lost.

    Args:
        session: of a request.
        why: returns the message of the error; "" while the session may work.
    """

    def refuse(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and (reason := why()):
            transaction.close()  # or the session would believe that it is within this transaction
            raise InvalidRequestError(reason)

    event.listen(session, "after_transaction_create", refuse)


def _nothing() -> None:
    return None


class RequestSession:
    """Watches the session of a request.

    Args:
        session: made for the request, not used yet.
        taken: called when the session takes a connection.
        given_back: called when its transaction has ended.
        statements: inspect each statement, for `rest` and `would_lose`.
    """

    def __init__(
        self,
        session: Session,
        taken: Callable[[], object] = _nothing,
        given_back: Callable[[], object] = _nothing,
        *,
        statements: bool = True,
    ) -> None:
        self._session, self._taken, self._given_back = session, taken, given_back
        self._statements = statements
        self._connections: list[Connection] = []
        self._reading: WeakSet[ExecutionContext] = WeakSet()  # a result keeps its statement's, and drops it with itself
        self._only_read, self._wrote = True, False
        event.listen(session, "after_begin", self._began)
        event.listen(session, "after_transaction_end", self._ended)

    def _began(self, session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if not self._connections:
            self._taken()
        if connection not in self._connections:
            self._connections.append(connection)
            if self._statements:
                event.listen(connection, "before_cursor_execute", self._note)

    def _note(
        self,
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: ExecutionContext,
        many: bool,
    ) -> None:
        if getattr(context, "_is_server_side", False) or not driver.of(connection.dialect).buffers_rows:
            self._reading.add(context)
        self._only_read = self._only_read and only_reads(statement)
        self._wrote = self._wrote or _WRITES.match(statement) is not None

    def _ended(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is not None or not self._connections:
            return
        if self._statements:
            for connection in self._connections:  # a test's session stays in use
                event.remove(connection, "before_cursor_execute", self._note)
        self._connections.clear()
        self._reading.clear()
        self._only_read, self._wrote = True, False
        self._given_back()

    @property
    def reads(self) -> bool:
        """Whether a result has rows that it may still fetch by the session's connection."""
        return bool(self._reading)

    @property
    def would_lose(self) -> bool:
        """Whether closing the session now would roll back written or pending changes."""
        return self._wrote or self._pending

    @property
    def _pending(self) -> bool:
        return bool(self._session.new or self._session.dirty or self._session.deleted)

    def rest(self) -> None:
        """Return the connection if nothing would be lost; the session's objects are unchanged.

        Uncommitted changes, a lock, a transaction-level setting, or rows still to be fetched keep the connection.
        """
        transaction = self._session.get_transaction()
        if transaction is not None and self._only_read and not self._pending and not self.reads:
            transaction.close()  # not rollback(), which would expire what an asynchronous session cannot load again
