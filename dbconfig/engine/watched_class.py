"""Subclasses of a driver's connections and cursors that check each statement.

Subclasses rather than proxies, since drivers check the type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from dbconfig.engine.watched_cursor import text_of

# Methods of cursors of PostgreSQL's drivers whose first argument is a statement.
CURSOR_METHODS: Final = ("execute", "executemany", "stream", "copy", "copy_expert")
_STATEMENT: Final = ("query", "statement", "sql")  # that argument, by its names

Check = Callable[[Any, str], None]


def watched(kind: type, methods: Iterable[str], check: Check) -> type:
    """Return a subclass whose methods check their statement first.

    Args:
        kind: the driver's class.
        methods: those that the class may have, with a statement as the first argument.
        check: called with the object and the statement; raises to reject it.
    """

    def checking(name: str) -> Callable[..., Any]:
        own = getattr(kind, name)

        def checked(self: Any, *arguments: Any, **keywords: Any) -> Any:
            given = arguments[0] if arguments else next((keywords[each] for each in _STATEMENT if each in keywords), "")
            check(self, text_of(given, self))
            return own(self, *arguments, **keywords)

        return checked

    return subclass(kind, {name: checking(name) for name in methods if hasattr(kind, name)})


def subclass(kind: type, members: dict[str, Any]) -> type:
    """Return a subclass with the layout of its parent, so that `__class__` of an object can change."""
    return type(kind.__name__, (kind,), members if "__dict__" in dir(kind) else {**members, "__slots__": ()})
