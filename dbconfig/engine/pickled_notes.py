"""Keeps the notes of SQLAlchemy's errors when they are pickled: its own `__reduce__` drops them.

This package's notes say why a connection failed and what to do, which a parent process needs as well.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc


def keep() -> None:
    """Register how each class is reduced, for pickle, copy, and multiprocessing."""
    kinds: list[type[Exception]] = [exc.StatementError, *_below(exc.StatementError)]
    for kind in kinds:
        copyreg.pickle(kind, _reduce)


def _below(kind: type[Exception]) -> Iterator[type[Exception]]:
    for one in kind.__subclasses__():
        if one.__module__ == exc.__name__:  # classes derived by applications have their own methods
            yield one
            yield from _below(one)


def _reduce(error: Exception) -> str | tuple[Any, ...]:
    taken = error.__reduce__()
    notes = getattr(error, "__notes__", None)
    if not notes or isinstance(taken, str):
        return taken
    made, arguments, *rest = taken
    state = rest[0] if rest and isinstance(rest[0], dict) else {}
    return made, arguments, {**state, "__notes__": list(notes)}
