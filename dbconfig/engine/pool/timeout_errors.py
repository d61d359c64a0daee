"""The errors of callers who waited in vain: the pool is full, or the server is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import exc

CODE = "3o7r"  # SQLAlchemy's own, of its page about pool timeouts


Explain = Callable[[str], list[str]]  # writes the notes of a timeout under this slug


class _Pool(Protocol):
    explain: Explain | None
    server: str

    def size(self) -> int: ...
    def overflow(self) -> int: ...
    def timeout(self) -> float: ...


def full(pool: _Pool, what: str) -> exc.TimeoutError:
    """Return the error of SQLAlchemy's own pool, with who holds the connections and what to change."""
    notes = _notes(pool, "pool-timeout")
    message = (
        f"QueuePool limit of size {pool.size()} overflow {pool.overflow()} reached, "
        f"connection timed out, timeout {pool.timeout():0.2f}"
    )
    # In the message too: logs and trackers often show nothing else.
    held = [note for note in notes if note.startswith(HELD)]
    error = exc.TimeoutError("; ".join([message, *held]), code=CODE)
    for note in (what, *notes):
        error.add_note(note)
    return error


def shed(pool: _Pool, waited: float) -> exc.TimeoutError:
    """Return the error of a caller that is dropped, so that those who came after it are served soon."""
    message = f"dropped after waiting {waited:.2f} s for a connection: callers wait longer than pool_queue_target"
    error = exc.TimeoutError(message, code=CODE)
    for note in _notes(pool, OVERLOADED):
        error.add_note(note)
    return error


def _notes(pool: _Pool, slug: str) -> list[str]:
    return pool.explain(slug) if pool.explain is not None else []


def silent(pool: _Pool, waited: float) -> exc.TimeoutError:
    """Return the error of a caller for whom there was room, but whose connection was not opened in time."""
    error = exc.TimeoutError(
        f"{pool.server} did not answer within {pool.timeout():g} s (pool_timeout) while a connection was being opened"
    )
    error.__cause__ = TimeoutError(f"no answer for {waited:.1f} s")
    setattr(error, _SILENT, True)
    error.add_note("dbconfig[timed-out]: the pool has free places: the server, or the network to it, is at fault")
    return error


def is_silent(error: BaseException) -> bool:
    """Return whether a caller waited in vain for the server, and not for other callers."""
    return getattr(error, _SILENT, False)


OVERLOADED = "pool-overloaded"
HELD = "held longest: "
_SILENT = "_dbconfig_silent"  # on an error
