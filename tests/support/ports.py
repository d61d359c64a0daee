"""Pick a loopback port that stays ours while nobody listens on it."""

import os
import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections (32768 and up). A client that keeps asking
# for a stopped server's port inside that range may be given the very port as its own, and so be connected to itself.
_PORTS = range(20_000, 32_000)
# Each worker of a parallel run takes every so manieth, so that no two of them choose the same port at the same time.
_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_random = random.SystemRandom()  # not the one that tests seed, or two runs would choose alike
_taken: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on, a different one at each call."""
    while True:
        port = _random.choice(_PORTS[_WORKER::_WORKERS])
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _taken.add(port)
        return port
