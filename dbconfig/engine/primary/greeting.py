"""Whether a MySQL or MariaDB server still responds: it greets each client that connects, without a request."""

from __future__ import annotations

import selectors
import socket
from contextlib import ExitStack
from typing import Final

from dbconfig.engine.pool.clock import monotonic

LIMIT: Final = 1.0  # seconds that a server has for its greeting, which needs neither locks nor disk access
AGAIN: Final = 0.3  # seconds until a second connection is tried in parallel: a packet may have been lost


def is_heard(host: tuple[str, int]) -> bool:
    """Return whether a server greets; for a stopped one, its kernel accepts the connection, and nothing is sent."""
    end = monotonic() + LIMIT
    try:
        addresses = socket.getaddrinfo(*host, type=socket.SOCK_STREAM)
    except OSError:
        return False
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        next_try, now = monotonic(), monotonic()
        while now < end:
            if now >= next_try:
                next_try = now + AGAIN
                for family, kind, protocol, _, address in addresses:
                    plug = stack.enter_context(socket.socket(family, kind, protocol))
                    plug.setblocking(False)
                    plug.connect_ex(address)
                    selector.register(plug, selectors.EVENT_READ)
            for key, _ in selector.select(max(0.0, min(next_try, end) - now)):
                assert isinstance(key.fileobj, socket.socket)
                if _is_greeted(key.fileobj):
                    return True
                selector.unregister(key.fileobj)
            if not selector.get_map():
                return False  # rejected or closed at each address
            now = monotonic()
    return False


def _is_greeted(plug: socket.socket) -> bool:
    try:
        return bool(plug.recv(1))
    except OSError:
        return False
