"""Counting a test's statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Engine, event

_OF_ISOLATION: Final = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")


@dataclass
class Queries:
    """The statements that ran."""

    statements: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.statements)

    def __str__(self) -> str:
        lines = (f"  {number}. {' '.join(each.split())}" for number, each in enumerate(self.statements, 1))
        return "\n".join(lines) or "  none"


@contextmanager
def counted(exactly: int | None = None, *, at_most: int | None = None) -> Iterator[Queries]:
    """Count the statements of every engine; savepoints, with which tests are isolated, do not count.

    Raises:
        AssertionError: the number differs; it lists the statements.
    """
    queries = Queries()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(_OF_ISOLATION):
            queries.statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield queries
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    wrong = (exactly is not None and len(queries) != exactly) or (at_most is not None and len(queries) > at_most)
    if wrong:
        wanted = str(exactly) if exactly is not None else f"at most {at_most}"
        raise AssertionError(f"{len(queries)} statements ran, not {wanted}:\n{queries}")
