"""What both worlds of the simulator share: a server that accepts, refuses, or hangs, and how long things take."""

from __future__ import annotations

TIMEOUT = 2.0  # pool_timeout
CONNECT_LIMIT = 1.0
CLOSE_LIMIT = 0.5
PING_LIMIT = 0.4
LIFETIME = 20.0
MOST_EVENTS = 5_000  # of one schedule; usual are some dozen


class Broken(AssertionError):
    """A promise was not kept."""


class Connection:
    """What the server sees of one connection."""

    __slots__ = ("dead", "expires", "open", "pinned")

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.open = True
        self.dead = False  # the server has closed it
        self.pinned = False  # the parent's, which a forked child must not touch


class Server:
    def __init__(self) -> None:
        self.mode = "up"
        self.connections: list[Connection] = []

    def outcome(self) -> tuple[float, BaseException | None, bool]:
        """Return how long a connect takes, its error, and whether that is transient."""
        if self.mode == "refuse":
            return 0.002, ConnectionRefusedError("refused"), True
        if self.mode == "reject":
            return 0.002, ValueError("wrong password"), False
        if self.mode == "hang":
            return CONNECT_LIMIT, TimeoutError("no answer"), True
        return (0.2 if self.mode == "slow" else 0.01), None, False
