"""A request's session: when it holds and may return a connection, and that it rejects work after its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from weakref import WeakSet, ref

from sqlalchemy import Connection, Dialect, Engine, ExecutionContext, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction

from dbconfig.engine import pool
from dbconfig.engine.each_statement import look_at_each
from dbconfig.engine.pool import driver
from dbconfig.integrations.builtin_functions import is_harmless
from dbconfig.registry.registry import Registry
from dbconfig.sessions.session_classes import combined
from dbconfig.settings.known_drivers import family

_SELECT: Final = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_WRITES: Final = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE)
_LOCKS: Final = re.compile(r"\b(FOR|LOCK|INTO)\b", re.IGNORECASE)
# A word before a parenthesis that is not known to leave no state in the transaction may do so: set_config() for row
# security, pg_advisory_xact_lock(), or a function of the application.
_CALL: Final = re.compile(r"\b([a-z_][\w.]*)\s*\(", re.IGNORECASE)

_REMEMBERED: Final = 4096  # characters of a statement whose verdict is kept


def only_reads(statement: str, system: str) -> bool:
    """Whether a statement leaves nothing in its transaction: no change, no lock, no setting."""
    return (
        _SELECT.match(statement) is not None
        and _LOCKS.search(statement) is None
        and all(is_harmless(name, system) for name in _CALL.findall(statement))
    )


@lru_cache(maxsize=512)
def _read_and_wrote(statement: str, system: str) -> tuple[bool, bool]:
    return only_reads(statement, system), _WRITES.match(statement) is not None


def _judged(statement: str, system: str) -> tuple[bool, bool]:
    """Return whether a statement only reads, and whether it writes; an application repeats its statements."""
    return (_read_and_wrote if len(statement) <= _REMEMBERED else _read_and_wrote.__wrapped__)(statement, system)


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

    __slots__ = (
        "_connections",
        "_given_back",
        "_only_read",
        "_reading",
        "_session",
        "_statements",
        "_taken",
        "_wrote",
        "why_not",
    )

    def __init__(
        self,
        session: Session,
        taken: Callable[[], object] = _nothing,
        given_back: Callable[[], object] = _nothing,
        *,
        statements: bool = True,
    ) -> None:
        # Weakly: the session has this object as an attribute, and a cycle for each request would be left to the garbage
        # collector.
        self._session = ref(session)
        self._taken, self._given_back = taken, given_back
        self._statements = statements
        self._connections: list[Connection] = []
        self._reading: WeakSet[ExecutionContext] | None = None
        self._only_read, self._wrote = True, False
        # Returns why the session must reject all further work; "" while it may work. A closed session would silently
        # begin again and never be closed: its connection would not be returned, and objects added to it would be lost.
        self.why_not: Callable[[], str] | None = None
        _watch(session, self)

    def interrupt(self) -> None:
        """End what another thread executes with the session."""
        for connection in list(self._connections):
            pool.interrupt(connection)

    def refuse(self, transaction: SessionTransaction) -> None:
        if transaction.parent is None and self.why_not is not None and (reason := self.why_not()):
            transaction.close()  # or the session would believe that it is within this transaction
            raise InvalidRequestError(reason)

    def began(self, connection: Connection) -> None:
        if not self._connections:
            self._taken()
        if connection not in self._connections:
            self._connections.append(connection)
            if self._statements:
                _follow(connection, self)

    def note(self, connection: Connection, statement: str, context: ExecutionContext) -> None:
        if getattr(context, "_is_server_side", False) or not driver.of(connection.dialect).buffers_rows:
            if self._reading is None:
                self._reading = WeakSet()  # a result keeps its statement's, and drops it with itself
            self._reading.add(context)
        reads, writes = _judged(statement, family(connection.dialect.name))
        self._only_read = self._only_read and reads
        self._wrote = self._wrote or writes

    def ended(self, transaction: SessionTransaction) -> None:
        if transaction.parent is not None or not self._connections:
            return
        if self._statements:
            for connection in self._connections:  # a test's session stays in use
                _leave(connection, self)
        self._connections.clear()
        self._reading = None
        self._only_read, self._wrote = True, False
        self._given_back()

    @property
    def connections(self) -> int:
        """How many connections the session holds, one for each of its databases that it has used."""
        return len(self._connections)

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
        session = self._session()
        return session is not None and bool(session.new or session.dirty or session.deleted)

    def unneeded(self) -> SessionTransaction | None:
        """Return the transaction, if closing it returns the connection and loses nothing.

        Uncommitted changes, a lock, a transaction-level setting, or rows still to be fetched keep the connection. The
        session's objects are unchanged: `close()`, unlike `rollback()`, expires nothing, which an asynchronous session
        could not load again.
        """
        session = self._session()
        transaction = None if session is None else session.get_transaction()
        return transaction if self._only_read and not self._pending and not self.reads else None


# Listeners. SQLAlchemy needs 20 µs to add one to a session, so the class of the sessions has them.

_WATCHER: Final = "_dbconfig_watcher"  # attribute of a session
_WATCHERS: Final = "_dbconfig_watchers"  # attribute of a connection


class SessionOfRequest(Session):
    """A session of a request."""


def _refuse(session: Session, transaction: SessionTransaction) -> None:
    if (found := getattr(session, _WATCHER, None)) is not None:
        found.refuse(transaction)


def _began(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if (found := getattr(session, _WATCHER, None)) is not None:
        found.began(connection)


def _ended(session: Session, transaction: SessionTransaction) -> None:
    if (found := getattr(session, _WATCHER, None)) is not None:
        found.ended(transaction)


_LISTENERS: Final[dict[str, Callable[..., None]]] = {
    "after_transaction_create": _refuse,
    "after_begin": _began,
    "after_transaction_end": _ended,
}
for _name, _listener in _LISTENERS.items():
    event.listen(SessionOfRequest, _name, _listener, propagate=True)


def _watch(session: Session, watcher: RequestSession) -> None:
    setattr(session, _WATCHER, watcher)
    if "dispatch" not in vars(session):
        session.__class__ = combined(SessionOfRequest, type(session))
        return
    for name, listener in _LISTENERS.items():  # it has listeners, which SQLAlchemy has found by its class
        event.listen(session, name, listener)


_followed: WeakSet[Dialect] = WeakSet()  # whose engines share it, as those of `execution_options` do


def follow_statements(registry: Registry) -> None:
    """Let sessions of requests see the statements of every existing and future engine of a registry."""
    if registry not in _registries:
        _registries.add(registry)
        registry.parts.watch(_look)


_registries: WeakSet[Registry] = WeakSet()


def _look(engine: Engine) -> None:
    if engine.dialect not in _followed:
        _followed.add(engine.dialect)
        look_at_each(engine.dialect, _tell)


def _tell(statement: str, context: ExecutionContext | None) -> None:
    if context is not None:
        connection = context.root_connection
        for each in getattr(connection, _WATCHERS, ()):
            each.note(connection, statement, context)


def _note(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: ExecutionContext, many: bool
) -> None:
    _tell(statement, context)


def _follow(connection: Connection, watcher: RequestSession) -> None:
    watchers = getattr(connection, _WATCHERS, None)
    if watchers is None:
        watchers = []
        setattr(connection, _WATCHERS, watchers)
        if connection.dialect not in _followed:  # of an engine that is not the registry's
            event.listen(connection, "before_cursor_execute", _note)
    watchers.append(watcher)


def _leave(connection: Connection, watcher: RequestSession) -> None:
    getattr(connection, _WATCHERS).remove(watcher)
