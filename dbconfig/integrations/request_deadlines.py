"""The deadline of a request: the application's own, or a nearer one requested by the client."""

from __future__ import annotations

from typing import Final

from dbconfig.settings.durations import parsed

HEADER: Final = "X-Request-Deadline"
TOO_LATE: Final = "the request was not answered within its deadline"


class BadDeadline(ValueError):
    """A client's deadline is invalid."""


class RequestDeadline:
    """The time limit of requests.

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
        """Return the seconds for a request with this header.

        Raises:
            BadDeadline: the header is enabled, and is not a duration.
        """
        if not self.header or asked is None:
            return self.limit
        seconds = parsed(asked.strip())
        if seconds is None:
            raise BadDeadline(f"{HEADER} must be the seconds that are left, or a duration such as 800ms")
        return min(seconds, self.limit)
