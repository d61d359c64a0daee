"""The revision of a database and the heads of the project's migrations, if Alembic is in use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

_TABLE: Final = "alembic_version"


@dataclass(frozen=True, slots=True)
class Migrations:
    """Revisions.

    Attributes:
        current: of the database; () if none was applied.
        heads: of the project; None if they cannot be read.
        trouble: why not, as text.
    """

    current: tuple[str, ...]
    heads: tuple[str, ...] | None
    trouble: str = ""

    @property
    def behind(self) -> bool:
        return self.heads is not None and set(self.current) != set(self.heads)

    def __str__(self) -> str:
        own = f"at {', '.join(self.current)}" if self.current else "none applied"
        if self.heads is None:
            return f"{own}; heads unknown: {self.trouble}"
        if set(self.current) == set(self.heads):
            return f"{own} (head)"
        if not self.heads:
            return f"{own}; the project has no revision"
        return f"{own}; head is {', '.join(self.heads)}: run `alembic upgrade head`"


def migrations_of(connection: Connection, project: Path) -> Migrations | None:
    """Return the revisions of a database; None if neither it nor the project has migrations.

    Args:
        connection: to the database.
        project: the folder above config/; alembic.ini is there, or in the working directory.
    """
    try:
        current = _current(connection)
    except SQLAlchemyError as error:
        words = " ".join(str(getattr(error, "orig", error)).split())
        return Migrations((), None, f"the table {_TABLE} cannot be read: {words}")
    places = dict.fromkeys((Path.cwd() / "alembic.ini", project / "alembic.ini"))
    file = next((each for each in places if each.is_file()), None)
    if file is None:
        return None if current is None else Migrations(current, None, "no alembic.ini found")
    return Migrations(current or (), *_heads(file))


def _current(connection: Connection) -> tuple[str, ...] | None:
    """Return the revisions of a database; None without a version table."""
    if not inspect(connection).has_table(_TABLE):
        return None
    return tuple(str(row[0]) for row in connection.execute(text("SELECT version_num FROM alembic_version ORDER BY 1")))


def _heads(file: Path) -> tuple[tuple[str, ...] | None, str]:
    if find_spec("alembic") is None:
        return None, "Alembic is not installed"
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    try:
        return tuple(sorted(ScriptDirectory.from_config(Config(str(file))).get_heads())), ""
    except Exception as error:  # the revisions are code of the project
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"
