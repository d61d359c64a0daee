"""Whether a server of MySQL's kind still speaks: it greets each client that connects, before anything is asked."""

from __future__ import annotations

import socket
from typing import Final

LIMIT: Final = 2.0  # seconds that a server has for its greeting, which takes no lock and no disk


def is_heard(host: tuple[str, int]) -> bool:
    """Return whether a server greets; one that stands still is connected to by its kernel, and says nothing."""
    try:
        with socket.create_connection(host, LIMIT) as plug:
            plug.settimeout(LIMIT)
            return bool(plug.recv(1))
    except OSError:
        return False
