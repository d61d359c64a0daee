"""Regular expressions that are compiled at first use, not at import."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any


class LatePattern:
    """A `re.Pattern` that is compiled at first use."""

    def __init__(self, text: str, flags: int = 0) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._text, self._flags), name)
        if not name.startswith("__"):
            setattr(self, name, found)  # the next use goes straight to the pattern's own method
        return found


if TYPE_CHECKING:

    def late_pattern(text: str, flags: int = 0) -> re.Pattern[str]: ...

else:
    late_pattern = LatePattern
