"""What the engine half asks of a driver, and what may become of an error."""

from __future__ import annotations

from enum import Enum


class Fate(Enum):
    """What an error says about the work that it ended."""

    CONFLICT = "conflict"  # rolled back by the server in favour of another transaction
    LOST = "lost connection"  # the connection is gone, and with it whatever was not committed
    ABSENT = "no connection"  # there was none: nothing was sent
    FINAL = "final"  # trying again would fail again
