"""One entry of the catalogue."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

_SYSTEMS: Final = {"postgresql": "PostgreSQL", "mysql": "MySQL and MariaDB", "sqlite": "SQLite"}


class Entry:
    """The meaning of a slug.

    Attributes:
        meaning: what is wrong, and why it is rejected or reported.
        example: what causes it; a fragment of YAML or a command.
        fix: what to do.
        permanent: whether waiting cannot help, so that `wait` gives up immediately.
        on: what to do instead on one database system, by the name of its family.
    """

    def __init__(
        self, meaning: str, example: str, fix: str, permanent: bool = True, on: Mapping[str, str] | None = None
    ) -> None:
        self.meaning = meaning
        self.example = example
        self.fix = fix
        self.permanent = permanent
        self.on: Mapping[str, str] = on or {}

    def advice(self, family: str = "") -> str:
        """Return what to do on one database system; without one, on each."""
        if family:
            return self.on.get(family, self.fix)
        return " ".join(
            [self.fix, *(f"{_SYSTEMS[name]}: {text[:1].lower()}{text[1:]}" for name, text in self.on.items())]
        )
