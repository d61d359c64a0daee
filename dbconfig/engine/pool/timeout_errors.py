"""The errors of callers that got no connection: the pool is full, or the server does not answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sized
from typing import Any, Protocol

from sqlalchemy import exc

from dbconfig.engine.pool.clock import monotonic

CODE = "3o7r"  # SQLAlchemy's own code, of its page about pool timeouts


Explain = Callable[[str], list[str]]  # writes the notes of a timeout under this slug


class _Options(Protocol):
    @property
    def max_waiting(self) -> int | None: ...


class _Pool(Protocol):
    explain: Explain | None
    server: str

    @property
    def options(self) -> _Options: ...
    @property
    def waiters(self) -> Sized: ...

    def size(self) -> int: ...
    def overflow(self) -> int: ...
    def timeout(self) -> float: ...


def full(pool: _Pool, what: str, *, refused: bool = False) -> exc.TimeoutError:
    """Return the error of SQLAlchemy's own pool, with who holds the connections and what to change."""
    notes = _notes(pool, "pool-timeout", for_many=refused)
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


def refused(pool: _Pool) -> exc.TimeoutError:
    """Return the error of a caller for which the queue has no room."""
    waiting, most = len(pool.waiters), pool.options.max_waiting
    return full(pool, f"the queue is full: {waiting} waiting (pool_max_waiting is {most})", refused=True)


def late(pool: _Pool, waited: float, trouble: BaseException | None, *, all_in_use: bool) -> BaseException:
    """Return the error of a caller whose time is over.

    Args:
        pool: in which it waited.
        waited: seconds.
        trouble: the error of the last connect, while it is being retried.
        all_in_use: whether the callers wait for each other, not for the server.
    """
    if all_in_use:
        error = full(pool, f"waited {waited:.1f} s")
        error.__cause__ = trouble
        return error
    return silent(pool, waited) if trouble is None else copy_of(trouble, waited)


def copy_of(error: BaseException, waited: float) -> BaseException:
    """Return the error for one more caller: an exception raised by several threads mixes up their tracebacks."""
    try:
        mine = type(error)(*error.args)
    except Exception:
        mine = error
    mine.__cause__ = error.__cause__
    mine.add_note(f"the pool tried to connect for {waited:.1f} s (pool_timeout)")
    return mine


def shed(pool: _Pool, waited: float) -> exc.TimeoutError:
    """Return the error of a caller that is dropped, so that later callers are served soon."""
    message = f"dropped after waiting {waited:.2f} s for a connection: callers wait longer than pool_queue_target"
    error = exc.TimeoutError(message, code=CODE)
    for note in _notes(pool, OVERLOADED, for_many=True):
        error.add_note(note)
    return error


# Seconds for which rejected callers get the same explanation: composing one takes longer than half a checkout, and
# under overload hundreds of callers are rejected per second.
SAME_NOTES = 1.0
_written: weakref.WeakKeyDictionary[Any, tuple[float, str, list[str]]] = weakref.WeakKeyDictionary()


def _notes(pool: _Pool, slug: str, *, for_many: bool = False) -> list[str]:
    if pool.explain is None:
        return []
    if not for_many:
        return pool.explain(slug)
    now = monotonic()
    until, of, notes = _written.get(pool, (0.0, "", []))
    if now >= until or of != slug:
        notes = pool.explain(slug)
        _written[pool] = (now + SAME_NOTES, slug, notes)
    return notes


def silent(pool: _Pool, waited: float) -> exc.TimeoutError:
    """Return the error of a caller that had a place, but whose connection was not opened in time."""
    error = exc.TimeoutError(
        f"{pool.server} did not answer within {pool.timeout():g} s (pool_timeout) while a connection was being opened"
    )
    error.__cause__ = TimeoutError(f"no answer for {waited:.1f} s")
    setattr(error, _SILENT, True)
    error.add_note("dbconfig[timed-out]: the pool is not exhausted: the server, or the network to it, is at fault")
    return error


def is_silent(error: BaseException) -> bool:
    """Return whether a caller timed out waiting for the server, not for other callers."""
    return getattr(error, _SILENT, False)


OVERLOADED = "pool-overloaded"
HELD = "held longest: "
_SILENT = "_dbconfig_silent"  # on an error
