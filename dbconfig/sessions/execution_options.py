"""Execution options of one session, and the schema of its tenant: on its connections, and taken back at its end."""

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
# They belong to a statement, or to the whole engine: on a connection they would have no effect, or outlive the session.
_REFUSED: Final = ("autocommit", "compiled_cache", "pool_reset_on_return")


def options(schema: str | None, given: Mapping[str, Any] | None, *, read_only: bool = False) -> dict[str, Any]:
    """Return the execution options of a session; {} where nothing is asked for.

    Args:
        schema: the schema of tables that name none.
        given: execution options, under SQLAlchemy's names.
        read_only: the session reads, at a level of its own.

    Raises:
        ValueError: the schema cannot be a name, an option is refused, or both set the schema.
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
    """Return a session that was just made; its connections have these options until it gives them back."""
    own: Any = getattr(session, "sync_session", session)
    level = found.get(_LEVEL)
    if level is not None:
        _at_level(own, level)
    rest = {name: value for name, value in found.items() if name != _LEVEL}
    if rest:
        _apply(own, rest)
    return session


def _at_level(session: Session, level: str) -> None:
    """Let a session work at another isolation level, which the pool takes back when the connection returns."""
    if isinstance(session, Bound):
        open_ = session._open
        session._open = lambda name: open_(name).execution_options(isolation_level=level)
    elif session.bind is not None and not isinstance(session.bind, Connection):
        # In a test that is rolled back it is a connection, which is within a transaction already.
        session.bind = session.bind.execution_options(isolation_level=level)


def _apply(session: Session, options: Mapping[str, Any]) -> None:
    """Set options on each connection that a session begins to use, and take them back at its end."""
    before: dict[Connection, dict[str, Any]] = {}

    def begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if connection not in before:
            known = connection.get_execution_options()
            before[connection] = {name: known.get(name) for name in options}
            connection.execution_options(**options)

    def end(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            # The connection of a rolled-back test goes on to serve other sessions; any other one is closed by now.
            for connection, known in before.items():
                if not connection.closed:
                    connection.execution_options(**known)
            before.clear()

    event.listen(session, "after_begin", begin)
    event.listen(session, "after_transaction_end", end)


def making(make: Callable[[], S], found: Mapping[str, Any]) -> Callable[[], S]:
    """Return what makes sessions with options; without any the same function."""
    return (lambda: with_options(make(), found)) if found else make
