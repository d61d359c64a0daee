"""The deadline of a request: the application's own, and a nearer one that the client asks for."""

from __future__ import annotations

from typing import Final

from dbconfig.settings.durations import parsed

HEADER: Final = "X-Request-Deadline"
TOO_LATE: Final = "the request was not answered within its deadline"


class BadDeadline(ValueError):
    """A client's deadline cannot be read."""


class RequestDeadline:
    """How many seconds a request has.

    Args:
        limit: the application's own, in seconds or as a duration such as `2s`.
        header: whether a client may ask for less, by `X-Request-Deadline`.
    """

    def __init__(self, limit: float | str, *, header: bool = False) -> None:
        seconds = parsed(limit) if isinstance(limit, str) else limit
        if seconds is None or isinstance(seconds, bool) or not seconds > 0:
            raise ValueError(f"the deadline of a request must be a duration of more than 0, not {limit!r}")
        self.limit = float(seconds)
        self.header = header

    def seconds(self, asked: str | None) -> float:
        """Return the seconds for a request, whose header is this.

        Raises:
            BadDeadline: the header is read, and is not a duration.
        """
        if not self.header or asked is None:
            return self.limit
        seconds = parsed(asked.strip())
        if seconds is None:
            raise BadDeadline(f"{HEADER} must be the seconds that are left, or a duration such as 800ms")
        return min(seconds, self.limit)
