"""Pick a loopback port that stays ours while nobody listens on it."""

import fcntl
import random
import socket
from functools import cache
from itertools import chain
from typing import IO

from tests.support.templates import kept_folder

LOOPBACK = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections (32768 and up). A client that keeps asking
# for a stopped server's port inside that range may be given the very port as its own, and so be connected to itself.
_PORTS = range(20_000, 32_000)
_random = random.SystemRandom()  # not the one that tests seed, or two runs would choose alike
_taken: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on, a different one at each call.

    Until this process ends, no other one gets it, which may belong to another run on this machine: between the choice
    and the first listener there may be a second, and with stopped servers minutes.

    Raises:
        RuntimeError: no such port is left.
    """
    first = _random.randrange(len(_PORTS))
    for port in chain(_PORTS[first:], _PORTS[:first]):
        if port in _taken or not _reserve(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise RuntimeError(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free: how many test runs are there?")


def _reserve(port: int) -> bool:
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)  # of one byte
    except OSError:
        return False
    return True


@cache
def _reservations() -> IO[bytes]:
    return (kept_folder() / "ports").open("ab")  # closing it would give up all of this process
