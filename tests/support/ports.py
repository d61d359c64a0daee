"""Pick a loopback port that stays ours while nobody listens on it."""

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections (32768 and up). A client that keeps asking
# for a stopped server's port inside that range may be given the very port as its own, and so be connected to itself.
_PORTS = range(20_000, 32_000)
_taken: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on, a different one at each call."""
    while True:
        port = random.choice(_PORTS)
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _taken.add(port)
        return port
