"""Execution options of one session, and its tenant's schema: set on its connections, and reset at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from dbconfig.engine.dialects.schema_names import checked
from dbconfig.errors.printable import quoted
from dbconfig.sessions.model_databases import Bound

S = TypeVar("S")  # Session or AsyncSession

_LEVEL: Final = "isolation_level"
# These belong to a statement, or to the whole engine: on a connection they would have no effect, or outlive the
# session.
_REFUSED: Final = ("autocommit", "compiled_cache", "pool_reset_on_return")


def options(schema: str | None, given: Mapping[str, Any] | None, *, read_only: bool = False) -> dict[str, Any]:
    """Return the execution options of a session; {} if none are requested.

    Args:
        schema: the schema of tables that do not name one.
        given: execution options, under SQLAlchemy's names.
        read_only: whether the session is read-only, which has its own isolation level.

    Raises:
        ValueError: the schema is not a valid name, an option is not allowed, or both set the schema.
    """
    found = dict(given or {})
    for name in found:
        if name in _REFUSED:
            raise ValueError(f"{quoted(name)} is not an option of a session: set it on the statement or the engine")
    if read_only and _LEVEL in found:
        raise ValueError("a read-only session has its own isolation level: use snapshot=True for one state")
    if schema is not None:
        if "schema_translate_map" in found:
            raise ValueError("`schema` sets schema_translate_map: use only one of the two")
        found["schema_translate_map"] = {None: checked(schema)}
    return found


def with_options(session: S, found: Mapping[str, Any]) -> S:
    """Apply these options to the connections of a new session until it returns them; return the session."""
    own: Any = getattr(session, "sync_session", session)
    level = found.get(_LEVEL)
    if level is not None:
        _at_level(own, level)
    rest = {name: value for name, value in found.items() if name != _LEVEL}
    if rest:
        _apply(own, rest)
    return session


def _at_level(session: Session, level: str) -> None:
    """Use another isolation level for a session; the pool resets it when the connection is returned."""
    if isinstance(session, Bound):
        open_ = session._open
        session._open = lambda name: open_(name).execution_options(isolation_level=level)
    elif session.bind is not None and not isinstance(session.bind, Connection):
        # In a test that is rolled back it is a connection, which is already in a transaction.
        session.bind = session.bind.execution_options(isolation_level=level)


def _apply(session: Session, options: Mapping[str, Any]) -> None:
    """Set options on each connection that a session begins to use, and reset them at its end."""
    before: dict[Connection, dict[str, Any]] = {}

    def begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if connection not in before:
            known = connection.get_execution_options()
            before[connection] = {name: known.get(name) for name in options}
            connection.execution_options(**options)

    def end(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            # The connection of a rolled-back test is still used by other sessions; any other one is closed by now.
            for connection, known in before.items():
                if not connection.closed:
                    connection.execution_options(**known)
            before.clear()

    event.listen(session, "after_begin", begin)
    event.listen(session, "after_transaction_end", end)


def making(make: Callable[[], S], found: Mapping[str, Any]) -> Callable[[], S]:
    """Return a factory of sessions with options; without options, the same function."""
    return (lambda: with_options(make(), found)) if found else make
