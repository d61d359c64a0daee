"""What our pool is told beyond QueuePool's own arguments, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from dbconfig.engine.pool.ping import Check


@dataclass(frozen=True)
class LineOptions:
    """What our pool needs to know beyond QueuePool's own arguments."""

    name: str = "pool"
    max_waiting: int | None = None
    check: Check | None = None
    min_idle: int = 0
    idle_timeout: float | None = None
    keepalive: float | None = None
    patient: bool = True  # wait for a server that cannot be reached; else its callers have another one to go to
