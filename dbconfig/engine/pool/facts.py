"""Attributes that each log record has about its pool; a JSON log shows them as fields."""

from __future__ import annotations

import re
from typing import Any, Final

_ROLE: Final = re.compile(r"reads|replica\d+")


def facts(name: str, **more: Any) -> dict[str, Any]:
    """Return the `extra` of a log record.

    Args:
        name: of the pool: "profile", "profile/database", and for reading "…/reads" or "…/replica1".
        more: further attributes; never a secret.
    """
    profile, *parts = name.split("/")
    if parts and _ROLE.fullmatch(parts[-1]):
        parts.pop()
    if parts == ["default"]:
        name, parts = profile, []
    return {"pool": name, "profile": profile, "database": "/".join(parts) or "default", **more}
