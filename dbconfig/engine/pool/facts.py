"""What each log record says of the pool that it is about, as attributes that a JSON log has as fields."""

from __future__ import annotations

import re
from typing import Any, Final

_ROLE: Final = re.compile(r"reads|replica\d+")


def facts(name: str, **more: Any) -> dict[str, Any]:
    """Return the `extra` of a log record.

    Args:
        name: of the pool: "profile", "profile/database", and for reading "…/reads" or "…/replica1".
        more: what else the record says; a secret is never among it.
    """
    profile, *parts = name.split("/")
    if parts and _ROLE.fullmatch(parts[-1]):
        parts.pop()
    if parts == ["default"]:
        name, parts = profile, []
    return {"pool": name, "profile": profile, "database": "/".join(parts) or "default", **more}
