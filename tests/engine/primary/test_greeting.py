"""Whether a server is heard, which MySQL's is without being asked, and PostgreSQL's when it is asked for TLS."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dbconfig.engine.primary import greeting
from tests.support.ports import LOOPBACK, free_port
from tests.support.servers import Server


class Greeter:
    """Accepts connections, and says hello to those that a test names by their number."""

    def __init__(self, *greeted: int, closes: bool = False, asked: bytes = b"") -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.host: tuple[str, int] = self._listener.getsockname()
        self.accepted = 0
        self._greeted = greeted
        self._closes = closes
        self._asked = asked
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
            elif self.accepted in self._greeted and (not self._asked or plug.recv(100) == self._asked):
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


def greeter(stack: ExitStack, *greeted: int, **how: Any) -> Greeter:
    found = Greeter(*greeted, **how)
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


def test_a_server_that_speaks_when_it_is_asked_is_asked(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    question = greeting.question("postgresql")
    assert question
    assert not greeting.question("mysql")
    assert not greeting.is_heard(greeter(stack, asked=question).host, question)
    monkeypatch.setattr(greeting, "LIMIT", 30.0)
    monkeypatch.setattr(greeting, "AGAIN", 30.0)
    server = greeter(stack, 1, asked=question)
    assert greeting.is_heard(server.host, question)
    assert server.accepted == 1
    assert not greeting.is_heard((LOOPBACK, free_port()), question)
    assert not greeting.is_heard(greeter(stack, closes=True).host, question)


@pytest.mark.server
def test_postgresql_is_heard_over_its_socket_too(postgresql: Server, tmp_path: Path) -> None:
    question = greeting.question("postgresql")
    assert greeting.is_heard((postgresql.host, postgresql.port), question)
    (folder,) = {each.strip() for (each,) in postgresql.sql("SHOW unix_socket_directories")}
    assert greeting.is_heard((folder, postgresql.port), question)
    assert not greeting.is_heard((str(tmp_path), postgresql.port), question)
