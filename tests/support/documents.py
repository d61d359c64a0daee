"""The blocks of code in a page of the documentation, and how each is run."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import CO_COROUTINE
from pathlib import Path
from types import FunctionType
from typing import Any

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.DOTALL | re.MULTILINE
)
# The comment directly before a block: why it is not run, or what tests it.
_REASON = re.compile(r"<!-- (?P<reason>(?:not run|run by|transcript|shows): ?[^>]*?) -->\s*\Z")
_SETUP = re.compile(r"<!-- setup\n(.*?)-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        reason: why it is not run as it stands, or which test runs it; "" if it is.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return the README and every page of docs/ that a person has written."""
    generated = {"errors.md", "reference.md"}
    return [ROOT / "README.md", *(each for each in sorted((ROOT / "docs").rglob("*.md")) if each.name not in generated)]


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page, in their order."""
    return [each for each in _blocks(page) if not languages or each.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        reason = _REASON.search(before)
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["text"].splitlines(keepends=True))
        yield Block(page, before.count("\n") + 2, match["language"], body, reason["reason"] if reason else "")


def setup_of(page: Path) -> str:
    """Return the Python that a page needs before its blocks, from a comment that readers do not see."""
    return "\n".join(_SETUP.findall(page.read_text(encoding="utf-8")))


def run(source: str, name: str, names: dict[str, Any]) -> None:
    """Run Python as a block of the documentation has it: with `await` and `async with` outside functions too."""
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if not code.co_flags & CO_COROUTINE:
        exec(code, names)
        return

    async def awaited() -> None:
        db = names.get("db")
        try:
            await FunctionType(code, names)()
        finally:
            if hasattr(db, "async_dispose"):
                await db.async_dispose()

    asyncio.run(awaited())


# What the blocks of a page find unless its setup says otherwise: a SQLite database with a few rows, and usual imports.
PRELUDE = """
from pathlib import Path
from sqlalchemy import func, insert
from sqlmodel import Field, MetaData, Session, SQLModel, select, text
Path("config").mkdir()
Path("config/development.yaml").write_text("url: sqlite:///data/app.db\\n")
class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = ""
class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    team_id: int | None = Field(default=None, foreign_key="team.id")
class Account(SQLModel, table=True):
    id: int = Field(primary_key=True)
    balance: int = 0
"""
ROWS = """
from dbconfig import db
db.create_tables()
with db.transaction() as session:
    session.add_all([Account(id=1, balance=100), Account(id=2, balance=100)])
"""


def follow(place: str) -> None:
    """Run the Python of a page, from its first block to its last, in the working directory."""
    from types import ModuleType

    from dbconfig import Registry
    from dbconfig.engine.pool.deadline import Deadline

    given = Registry.deadline

    def deadline(db: Registry, seconds: float) -> Deadline:
        return given(db, 100 * seconds)  # what a page allows for is a usual machine, not a busy one

    Registry.deadline = deadline  # type: ignore[method-assign]
    page = Path(place)
    module = ModuleType("page")
    sys.modules["page"] = module  # where models look for the names in their annotations
    names = vars(module)
    run(PRELUDE, "prelude", names)
    run(setup_of(page), f"{page.name}: setup", names)
    run(ROWS, "rows", names)
    for block in blocks(page, "python"):
        if not block.reason:
            run(block.text, str(block), names)
    run(names.get("CHECK", ""), f"{page.name}: check", names)
    from dbconfig import db

    db.dispose()


if __name__ == "__main__":
    warnings.simplefilter("error")
    follow(sys.argv[1])
