"""A process from which servers are forked: it imports once what they need, for all the processes of a test run.

It and those that want servers share a pair of sockets. Who wants one makes another pair, and sends an end of it through
the first. Nothing of this has a name: no file is left behind, and when all who could send have ended, however they did,
the process reads the end of its socket, and ends too.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_READY = b"!"  # the first that a server says
_LONGEST_END = 30.0  # seconds


class Prototype:
    """The end at which servers are wanted; processes that are forked from this one have it too."""

    def __init__(self, module: str) -> None:
        """Start `serve` of a module, which gets the number of its socket."""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {module} import serve; serve({theirs.fileno()})"],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid
        atexit.register(self.close)

    def connect(self, kind: bytes) -> socket.socket:
        """Return a connection to a new server.

        Args:
            kind: of the server, one byte.

        Raises:
            OSError: the process has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                hand_in(self._control, kind, theirs)
            if ours.recv(1) != _READY:
                raise ConnectionResetError("the process from which servers are forked has ended")
        except BaseException:
            ours.close()
            raise
        return ours

    def close(self) -> None:
        """Wait for its end; in a process forked from the one that started it, only lay down what would keep it."""
        self._control.close()
        try:
            self._process.wait(_LONGEST_END)
        except subprocess.TimeoutExpired:  # a process that a test has forked lives on, and could send
            self._process.kill()
            self._process.wait()


def hand_in(control: socket.socket, kind: bytes, connection: socket.socket) -> None:
    socket.send_fds(control, [kind], [connection.fileno()])


def handed_in(control: socket.socket) -> Iterator[tuple[bytes, socket.socket]]:
    """Yield connections, each with the kind of its server, and close them, until nobody can hand one in any more."""
    while True:
        kind, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not kind:
            return
        reap(os.WNOHANG)
        with socket.socket(fileno=descriptors[0]) as connection:
            yield kind, connection


def reap(options: int = 0) -> None:
    """Take note of the children that have ended; without `os.WNOHANG` wait for all of them."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def fork_server(serve: Callable[[socket.socket], None], connection: socket.socket, *others: socket.socket) -> None:
    """Fork a process that serves a connection, and closes the other sockets, or nobody would see the end of them."""
    if os.fork():
        return
    for each in others:
        each.close()
    with suppress(BrokenPipeError, ConnectionResetError):  # who wanted it has ended
        connection.sendall(_READY)
    serve(connection)
    os._exit(0)


def ignore_ctrl_c() -> None:
    """Let Ctrl-C end what is asked for, not who is asked; `heed_ctrl_c` undoes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
