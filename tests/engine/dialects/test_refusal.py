"""A server that refuses a login in another language is understood: by its code, which libpq does not tell."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from dbconfig import Profile, Registry
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import fate_of
from dbconfig.engine.dialects.postgresql import refusal
from dbconfig.settings.database import DatabaseSettings

STARTING = "система баз данных запускается"
FULL = "Entschuldigung, schon zu viele Clients"
REJECTED = 'пользователь "app" не прошёл проверку подлинности'


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def error(state: str, words: bytes) -> bytes:
    return message(b"E", b"SFATAL\0VFATAL\0C" + state.encode() + b"\0M" + words + b"\0\0")


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Play a server that says no to TLS and then the same to everybody; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:  # the test has ended
                    return
                with client:
                    (length,) = struct.unpack("!I", client.recv(4))
                    if length == 8:
                        client.recv(4)
                        client.sendall(b"N")
                        (length,) = struct.unpack("!I", client.recv(4))
                    client.recv(length - 4)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def by_session(db: Registry) -> None:
    with db.session() as session:
        session.execute(text("SELECT 1"))


def by_task(db: Registry) -> None:
    async def ask() -> None:
        async with db.async_session() as session:
            await session.connection()

    asyncio.run(ask())


def by_session_in_a_coroutine(db: Registry) -> None:
    async def ask() -> None:
        by_session(db)

    asyncio.run(ask())


WAYS = {
    "psycopg2": by_session,
    "psycopg2 in a coroutine": by_session_in_a_coroutine,
    "psycopg": by_session,
    "psycopg async": by_task,
    "asyncpg": by_task,
}


@pytest.fixture(params=WAYS)
def fail(request: pytest.FixtureRequest) -> Callable[[bytes], DBAPIError]:
    """Return the error of a driver that meets a server with this answer."""
    driver = request.param.split()[0]
    pytest.importorskip(driver)

    def connect(answer: bytes) -> DBAPIError:
        with answering(answer) as port:
            url = f"postgresql+{driver}://app:pw@127.0.0.1:{port}/shop"
            profile = Profile(name="refused", url=url, pool_timeout=2)
            with Registry.from_profile(profile) as db, pytest.raises(DBAPIError) as raised:
                WAYS[request.param](db)
        return raised.value

    return connect


@pytest.mark.parametrize(
    ("state", "words", "encoding", "slug", "fate"),
    [
        ("57P03", STARTING, "utf-8", "starting-up", Fate.ABSENT),
        ("53300", FULL, "utf-8", "too-many-connections", Fate.ABSENT),
        ("28P01", REJECTED, "utf-8", "login-rejected", Fate.FINAL),
        # What psycopg2 cannot decode left it as a bare UnicodeDecodeError.
        ("57P03", STARTING, "cp1251", "starting-up", Fate.ABSENT),
        ("28P01", REJECTED, "cp1251", "login-rejected", Fate.FINAL),
    ],
)
def test_the_code_decides_where_nobody_knows_the_words(
    fail: Callable[[bytes], DBAPIError], state: str, words: str, encoding: str, slug: str, fate: Fate
) -> None:
    raised = fail(error(state, words.encode(encoding)))
    assert any(note.startswith(f"dbconfig[{slug}]") for note in raised.__notes__)
    assert fate_of(raised) is fate


def test_a_connection_that_ends_after_the_question_for_a_password_was_lost_and_not_rejected() -> None:
    asks: Any = message(b"R", struct.pack("!I", 3))  # for the password in clear text; then it hangs up
    with answering(asks) as port:
        url = f"postgresql+psycopg2://app:pw@127.0.0.1:{port}/shop"
        profile = Profile(name="refused", url=url, pool_timeout=2)
        with Registry.from_profile(profile) as db, pytest.raises(OperationalError) as raised:
            by_session(db)
    assert "dbconfig[connection-lost]" in raised.value.__notes__[0]
    assert fate_of(raised.value) is Fate.LOST


class Mute(socket.socket):
    """Reaches a server that says nothing, and notes for how long somebody would wait for it."""

    waits: ClassVar[list[float | None]] = []

    def settimeout(self, value: float | None) -> None:
        self.waits.append(value)

    def connect(self, address: Any) -> None:
        raise TimeoutError


@pytest.mark.parametrize(("connect_timeout", "seconds"), [("0.5s", 0.5), ("30s", 2.0)])
def test_a_caller_whose_connect_has_failed_waits_two_seconds_at_most_for_the_reason(
    connect_timeout: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has already waited for its connect, and the reason only explains the error."""
    monkeypatch.setattr(Mute, "waits", [])
    monkeypatch.setattr(socket, "socket", Mute)
    refusal.ask(DatabaseSettings(url="postgresql://u@127.0.0.1/d", connect_timeout=connect_timeout))
    assert Mute.waits == [seconds]


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for_any_longer() -> None:
    def trickle() -> None:
        client = listener.accept()[0]
        with client, suppress(OSError):  # until the caller has gone
            client.recv(8)
            client.sendall(b"N" + message(b"E", b"S" * 29_000)[:5])
            while not gone.wait(0.02):
                client.sendall(b"S")

    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=trickle)
        server.start()
        url = f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d"
        began = time.monotonic()
        found = refusal.ask(DatabaseSettings(url=url, connect_timeout=0.5))
        spent = time.monotonic() - began
        gone.set()
        server.join()
    assert found is not None
    assert found.slug == "timed-out"
    assert spent < 60  # all of it takes ten minutes


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_wait_waits_for_a_server_that_starts_in_another_language(driver: str) -> None:
    pytest.importorskip(driver)
    with answering(error("57P03", STARTING.encode())) as port:
        url = f"postgresql+{driver}://app:pw@127.0.0.1:{port}/shop"
        told = pytest.raises(TimeoutError, match=f"refused: 127.0.0.1:{port} did not answer within 1 s")
        with Registry.from_profile(Profile(name="refused", url=url, pool_timeout=1)) as db, told:
            db.wait(timeout=1)
