"""One entry of the catalogue."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """What a slug means.

    Attributes:
        meaning: what is wrong, and why it is refused or told.
        example: what leads to it; a fragment of YAML or a command.
        fix: what to do.
    """

    meaning: str
    example: str
    fix: str
