"""Whether a server still responds, before any login: MySQL and MariaDB greet, PostgreSQL says whether it offers TLS."""

from __future__ import annotations

import selectors
import socket
from contextlib import ExitStack
from typing import Any, Final

from dbconfig.engine.pool.clock import monotonic

LIMIT: Final = 1.0  # seconds that a server has for its greeting, which needs neither locks nor disk access
AGAIN: Final = 0.3  # seconds until a second connection is tried in parallel: a packet may have been lost

_SSL_REQUEST: Final = bytes((0, 0, 0, 8, 4, 210, 22, 47))  # PostgreSQL's, which is answered by one letter


def question(system: str) -> bytes:
    """Return what makes a server of a system respond; empty if it speaks first."""
    return _SSL_REQUEST if system == "postgresql" else b""


def is_heard(host: tuple[str, int], request: bytes = b"") -> bool:
    """Return whether a server responds; for a stopped one, its kernel accepts the connection, and nothing is sent.

    Args:
        host: name and port; a folder contains PostgreSQL's socket.
        request: what the server is asked.
    """
    end = monotonic() + LIMIT
    try:
        addresses = _addresses(*host)
    except OSError:
        return False
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        next_try, now = monotonic(), monotonic()
        while now < end:
            if now >= next_try:
                next_try = now + AGAIN
                for family, address in addresses:
                    plug = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    plug.setblocking(False)
                    plug.connect_ex(address)
                    selector.register(plug, selectors.EVENT_WRITE if request else selectors.EVENT_READ)
            for key, ready in selector.select(max(0.0, min(next_try, end) - now)):
                assert isinstance(key.fileobj, socket.socket)
                if ready & selectors.EVENT_WRITE and _asks(key.fileobj, request):
                    selector.modify(key.fileobj, selectors.EVENT_READ)
                    continue
                if ready & selectors.EVENT_READ and _is_greeted(key.fileobj):
                    return True
                selector.unregister(key.fileobj)
            if not selector.get_map():
                return False  # rejected or closed at each address
            now = monotonic()
    return False


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{port}")]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _asks(plug: socket.socket, request: bytes) -> bool:
    try:
        return plug.send(request) == len(request)
    except OSError:  # the connection was rejected
        return False


def _is_greeted(plug: socket.socket) -> bool:
    try:
        return bool(plug.recv(1))
    except OSError:
        return False
