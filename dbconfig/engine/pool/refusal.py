"""Reasons for which a pool rejects a caller."""

from __future__ import annotations

import enum

NEVER = float("inf")


class Refusal(enum.Enum):
    """The reasons for which the queue rejects a caller."""

    FULL = "too many callers are waiting (pool_max_waiting)"
    SHED = "the wait has stayed above pool_queue_target"
