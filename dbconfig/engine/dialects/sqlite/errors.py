"""SQLite's errors: which are transient."""

from __future__ import annotations

from typing import Final

# https://www.sqlite.org/rescode.html: BUSY, LOCKED and their extended forms
_SQLITE: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
