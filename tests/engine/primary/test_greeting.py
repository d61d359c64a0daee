"""Whether a server of MySQL's kind is heard to greet."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dbconfig.engine.primary import greeting
from tests.support.ports import LOOPBACK, free_port


class Greeter:
    """Accepts connections, and says hello to those that a test names by their number."""

    def __init__(self, *greeted: int, closes: bool = False) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.host: tuple[str, int] = self._listener.getsockname()
        self.accepted = 0
        self._greeted = greeted
        self._closes = closes
        self._stack = ExitStack()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plug = self._listener.accept()[0]
            except OSError:
                return
            self._stack.enter_context(plug)
            self.accepted += 1
            if self._closes:
                plug.close()
            elif self.accepted in self._greeted:
                plug.sendall(b"hello")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self._stack.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def greeter(stack: ExitStack, *greeted: int, closes: bool = False) -> Greeter:
    found = Greeter(*greeted, closes=closes)
    stack.callback(found.close)
    return found


def test_a_server_that_greets_is_asked_once(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "LIMIT", 30.0)
    monkeypatch.setattr(greeting, "AGAIN", 30.0)
    server = greeter(stack, 1)
    assert greeting.is_heard(server.host)
    assert server.accepted == 1


def test_one_connection_that_fell_silent_is_no_silent_server(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "LIMIT", 30.0)
    server = greeter(stack, 2)
    assert greeting.is_heard(server.host)


def test_a_server_that_stands_still_is_not_heard(stack: ExitStack) -> None:
    server = greeter(stack)
    assert not greeting.is_heard(server.host)
    assert server.accepted > 1


def test_a_server_that_refuses_or_closes_needs_no_time(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "LIMIT", 3600.0)
    monkeypatch.setattr(greeting, "AGAIN", 3600.0)
    assert not greeting.is_heard((LOOPBACK, free_port()))
    assert not greeting.is_heard(greeter(stack, closes=True).host)
    assert not greeting.is_heard(("no-such-host.invalid", 3306))
