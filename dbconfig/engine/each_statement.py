"""A look at each statement of an engine, before it is executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Look = Callable[[str, Any], None]


def look_at_each(dialect: Any, look: Look) -> None:
    """Call a function with each statement of a dialect, and with SQLAlchemy's execution context, or None.

    Not an event: with one listener for statements, SQLAlchemy prepares each statement for all kinds of events, which
    costs ten times as much.
    """
    execute, plainly, many = dialect.do_execute, dialect.do_execute_no_params, dialect.do_executemany

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        look(statement, context)
        execute(cursor, statement, parameters, context)

    def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        look(statement, context)
        plainly(cursor, statement, context)

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        look(statement, context)
        many(cursor, statement, parameters, context)

    dialect.do_execute, dialect.do_execute_no_params = do_execute, do_execute_no_params  # of this engine alone
    dialect.do_executemany = do_executemany
