"""One entry of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_SYSTEMS: Final = {"postgresql": "PostgreSQL", "mysql": "MySQL and MariaDB", "sqlite": "SQLite"}


class Entry(NamedTuple):
    """What a slug means.

    Attributes:
        meaning: what is wrong, and why it is refused or reported.
        example: what leads to it; a fragment of YAML or a command.
        fix: what to do.
        permanent: whether waiting cannot help, so that `wait` gives up at once.
        on: what to do instead on one database system, by the name of its family.
    """

    meaning: str
    example: str
    fix: str
    permanent: bool = True
    on: Mapping[str, str] = {}

    def advice(self, family: str = "") -> str:
        """Return what to do on one database system; without one, on each."""
        if family:
            return self.on.get(family, self.fix)
        return " ".join(
            [self.fix, *(f"{_SYSTEMS[name]}: {text[:1].lower()}{text[1:]}" for name, text in self.on.items())]
        )
