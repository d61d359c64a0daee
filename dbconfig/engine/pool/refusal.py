"""Why a pool serves a caller no connection."""

from __future__ import annotations

import enum

NEVER = float("inf")


class Refusal(enum.Enum):
    """Why the line serves a caller no connection."""

    FULL = "too many callers are waiting (pool_max_waiting)"
    SHED = "the wait has stayed above pool_queue_target"
