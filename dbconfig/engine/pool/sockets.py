"""The socket under a connection: a check without a round trip, and time limits that end a half-open one."""

from __future__ import annotations

import enum
import logging
import os
import select
import socket
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from dbconfig.engine.pool import driver

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

logger: logging.Logger = logging.getLogger("dbconfig.pool.sockets")

# Seconds. A peer that vanished while we wait for its answer is noticed after IDLE + INTERVAL * COUNT; one that does not
# acknowledge what we sent, after USER_TIMEOUT. Both are needed: the first has no effect while data is unacknowledged,
# the second while there is none. Long enough to survive a network outage of six seconds.
KEEPALIVE_IDLE = 5
KEEPALIVE_INTERVAL = 2
KEEPALIVE_COUNT = 2
USER_TIMEOUT = 8.0

_CLOSED_BY_PEER: int = getattr(select, "POLLRDHUP", 0)  # Linux distinguishes end-of-file from data; elsewhere we ask


class Verdict(enum.Enum):
    """What is known of a connection."""

    ALIVE = enum.auto()
    ASK = enum.auto()  # readable, perhaps a notice, or no socket to check
    DEAD = enum.auto()  # closed or reset by the other side
    SILENT = enum.auto()  # asked, and no valid answer came


def descriptor(dialect: Any, connection: Any) -> int | None:
    """Return the file descriptor of a driver's connection, or ``None`` if it has none or is closed."""
    return driver.of(dialect).socket(connection)


class Look:
    """Checks one connection's socket, repeatedly."""

    __slots__ = ("_poll",)

    def __init__(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN | _CLOSED_BY_PEER)
        self._poll = poll.poll

    @classmethod
    def at(cls, dialect: Any, connection: Any) -> Look | None:
        """Return the check of this driver connection, or ``None`` if the driver or the platform exposes no socket."""
        fd = descriptor(dialect, connection) if hasattr(select, "poll") else None
        return None if fd is None else cls(fd)

    def verdict(self) -> Verdict:
        events = self._poll(0)
        if not events:
            return Verdict.ALIVE  # nothing to read: nothing was closed
        if events[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL | _CLOSED_BY_PEER):
            return Verdict.DEAD
        return Verdict.ASK


def shut(fd: int) -> None:
    """End a connection under a driver that is blocked in it; the driver then sees end-of-file and raises."""
    try:
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        logger.debug("could not shut down descriptor %s: %s", fd, error)


def set_time_limits(dialect: Any, connection: Any) -> None:
    """Let a half-open TCP connection end: by keepalive while it waits, by user timeout while it sends.

    Set on the socket after connecting, so that one function serves every driver, under TLS as well. What the driver or
    the URL sets itself (``keepalives_idle=…``) is left unchanged.
    """
    fd = descriptor(dialect, connection)
    if fd is None:
        return
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
            ("TCP_KEEPCNT", KEEPALIVE_COUNT),
            ("TCP_USER_TIMEOUT", int(USER_TIMEOUT * 1000)),
        ):
            number = getattr(socket, option, None)
            if number is not None and duplicate.getsockopt(socket.IPPROTO_TCP, number) == _SYSTEM.get(option):
                duplicate.setsockopt(socket.IPPROTO_TCP, number, value)


def _system_defaults() -> dict[str, int]:
    defaults: dict[str, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
            number = getattr(socket, option, None)
            if number is not None:
                defaults[option] = fresh.getsockopt(socket.IPPROTO_TCP, number)
    return defaults


_SYSTEM = _system_defaults()


def attach(engine: Engine) -> None:
    """Set the time limits on each new connection of an engine."""

    def connect(connection: Any, record: Any) -> None:
        set_time_limits(engine.dialect, record.driver_connection)

    event.listen(engine, "connect", connect)
