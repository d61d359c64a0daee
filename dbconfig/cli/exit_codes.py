"""How a command ends: the exit codes."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from typing import Final

OK: Final = 0
FOUND: Final = 1  # a check found a problem
FAILED: Final = 2  # the command could not run
INTERRUPTED: Final = 130  # Ctrl-C, as shells have it
