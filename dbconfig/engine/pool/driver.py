"""The pool's interface to a driver. Each driver implements it in its dialect's folder; this module names none."""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

logger: logging.Logger = logging.getLogger("dbconfig.pool.sockets")


class Parameters:
    """The arguments of one connect, and what the configuration says of them.

    SQLAlchemy 2.0 passes the same dictionary to every connect, so a limit set for one caller's deadline would limit all
    later callers. Each connect therefore starts from the original values.
    """

    def __init__(self, now: dict[str, Any], written: dict[str, Any]) -> None:
        self._now = now
        self._written = written

    def written(self, key: str) -> Any:
        return self._written.setdefault(key, self._now.get(key))

    def at_most(self, key: str, seconds: float) -> float:
        limit = min(float(self.written(key) or math.inf), seconds)
        self._now[key] = limit
        return limit

    def set(self, key: str, value: Any) -> None:
        self._now[key] = value


class Left(NamedTuple):
    """What is known of a connection whose client has closed it.

    Attributes:
        statement: the beginning of what its client was executing; empty if the driver does not tell.
        opened: when the client began to open it, and when it had, by the pool's clock. None if that was not noted.
    """

    statement: str = ""
    opened: tuple[float, float] | None = None


class Driver:
    """A driver without special support. `connection` is the driver's own, never SQLAlchemy's adapter of it."""

    buffers_rows = False  # without a cursor of the server, all rows are there when a statement has been executed
    interrupts = False  # statements are ended by `interrupt`, on the connection itself
    package = ""  # the Python package whose frames are not the application's
    wire: frozenset[str] = frozenset()  # Python modules that send and receive, in which a signal handler may raise

    def socket(self, connection: Any) -> int | None:
        """Return the file descriptor of a connection; None if it has none, or is closed."""
        try:
            found = self.plug(connection)
            fd = None if found is None else found.fileno()
        except Exception as error:  # a closed connection says so in its driver's own way
            logger.debug("no socket found under %r: %s", connection, error)
            return None
        return fd if isinstance(fd, int) and fd >= 0 else None

    def plug(self, connection: Any) -> Any:
        """Return the object with the `fileno` of a connection, or None. May raise."""
        transport = self.transport(connection)
        return None if transport is None else transport.get_extra_info("socket")

    def transport(self, connection: Any) -> asyncio.WriteTransport | None:
        """Return what a connection writes to, if that is a transport of asyncio's."""
        return None

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        """Change the arguments of a connect so that it ends in time."""

    def connected(self, connection: Any, record: Any) -> None:
        """Take back what `limit_connect` has set for the connect alone."""

    def number(self, connection: Any) -> int | None:
        """Return the server's ID of a connection, as reported at login."""
        return None

    def known_number(self, connection: Any) -> int | None:
        """Return it; None, too, if a connection that is closed no longer knows it."""
        try:
            return self.number(connection)
        except Exception as error:  # each driver says so in its own way
            logger.debug("no number of %r: %s", connection, error)
            return None

    def cancel(self, cursor: Any, beside: Any, number: int) -> None:
        """Ask the server, by the cursor of another connection (`beside`), to end what a connection executes."""

    def leave(self, connection: Any) -> Left:
        """Return what identifies a connection, which is about to be closed, on the server. Must not raise."""
        return Left()

    def end(self, cursor: Any, beside: Any, number: int, left: Left) -> bool:
        """Ask the server to end a connection whose client has left it while it sent a statement.

        Unlike `cancel`, which ends nothing if the server has not begun the statement.

        Returns:
            Whether that is settled; if not, the statement may yet begin.
        """
        return True

    def was_cancelled(self, error: BaseException) -> bool:
        """Return whether a statement's error means that it was cancelled on the server."""
        return False

    def run_until(self, connection: Any, when: float | None) -> Awaitable[None] | None:
        """Let statements end at a time of the pool's clock, if the database runs in this process; None removes it.

        Rows that are still to come are included.
        """
        return None

    def interrupt(self, connection: Any) -> Awaitable[None] | None:
        """Interrupt what a connection executes, if the database runs in this process."""
        return None

    def parameter(self, connection: Any, key: str) -> str | None:
        """Return what the server last reported of a setting, without a round trip. May raise."""
        return None

    def in_transaction(self, connection: Any) -> bool:
        """Return whether a transaction is open, as far as is known without asking the server."""
        return True

    def awaits_answer(self, connection: Any) -> bool:
        """Return whether a statement has been sent and its answer has not been read."""
        return False

    def forget(self, connection: Any) -> None:
        """Make a connection collectable whose event loop is closed."""

    def hang_up(self, connection: Any) -> None:
        """Close a connection of asyncio without notifying the server, where SQLAlchemy has no way to."""


def in_time(connect: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    """Return a coroutine function that connects within a limit of time."""

    async def connect_in_time(*arguments: Any, **keywords: Any) -> Any:
        try:
            # Not wait_for, which on Python 3.11 loses a connection that is ready at the moment of a cancellation.
            async with asyncio.timeout(seconds):
                return await connect(*arguments, **keywords)
        finally:
            keywords.clear()  # error reporters print the local variables of a frame, and one is the password

    return connect_in_time


_known: weakref.WeakKeyDictionary[Any, Driver] = weakref.WeakKeyDictionary()
_UNKNOWN = Driver()


def introduce(dialect: Any, driver: Driver) -> None:
    """Register the driver of a dialect object's connections."""
    _known[dialect] = driver


def of(dialect: Any) -> Driver:
    """Return the driver of a dialect object."""
    return _known.get(dialect, _UNKNOWN)
