"""Why a server rejects a login, by its SQLSTATE: libpq reports only a text, in the server's language."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only

from dbconfig.engine.dialects.error_table import Meaning
from dbconfig.engine.dialects.postgresql.errors import of_state
from dbconfig.engine.dialects.system_errors import of_system
from dbconfig.settings import client_defaults, hosts
from dbconfig.settings.known_drivers import PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbconfig.settings.database import DatabaseSettings

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
_VERSION: Final = 196608  # 3.0
_AUTHENTICATION_OK: Final = 0
# Seconds for the whole exchange with a server: the caller has already waited for its own connection attempt.
_PATIENCE: Final = 2.0
_MOMENT: Final = 1e-6  # seconds; 0 means "do not wait", which is another error
_MESSAGE_LIMIT: Final = 30_000  # maximum bytes of an answer; libpq accepts no longer error before the login either


def ask(settings: DatabaseSettings) -> Meaning | None:
    """Begin a login without a password and return the first server's answer; None if none answers.

    Before it asks for a password, the server reports that it is starting, is full, or accepts no logins from this
    address. Once it asks for one, it reports nothing else.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _ask(settings)
    question = asyncio.to_thread(_ask, settings)
    try:
        # The connection attempt of an asynchronous driver runs in SQLAlchemy's greenlet, which can await.
        found: Meaning | None = await_only(question)
    except (MissingGreenlet, ImportError):  # a synchronous driver, in a coroutine: it has stopped the loop already
        question.close()
        return _ask(settings)
    return found


def _ask(settings: DatabaseSettings) -> Meaning | None:
    for family, address in _places(settings):
        seconds = min(settings.connect_timeout, _PATIENCE)
        until = monotonic() + seconds
        try:
            with closing(socket.socket(family, socket.SOCK_STREAM)) as plug:
                plug.settimeout(seconds)
                plug.connect(address)
                return _refusal(plug, settings, until)
        except (OSError, ValueError, struct.error) as error:  # ssl.SSLError is an OSError
            found = of_system(error)
            if found is not None:
                return found
    return None


def _places(settings: DatabaseSettings) -> Iterator[tuple[int, str | tuple[str, int]]]:
    address = client_defaults.completed(settings)
    for host, port in hosts.servers(address.host, address.port, address.query, PORTS["postgresql"]):
        if not host or host.startswith("/"):
            yield socket.AF_UNIX, f"{host or '/var/run/postgresql'}/.s.PGSQL.{port}"
            continue
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        for family, _, _, _, place in found:
            yield family, (str(place[0]), port)


def _refusal(plug: socket.socket, settings: DatabaseSettings, until: float) -> Meaning | None:
    """Send the startup message, and return the server's answer."""
    if plug.family != socket.AF_UNIX:
        plug.sendall(_SSL_REQUEST)
        if _exactly(plug, 1, until) == b"S":
            # Nothing secret is sent, and verifying the server is up to the driver.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            plug = context.wrap_socket(plug)
    address = client_defaults.completed(settings)
    parameters = {"user": address.username or "", "database": address.database or address.username or ""}
    body = b"".join(part.encode() + b"\0" for pair in parameters.items() for part in pair) + b"\0"
    plug.sendall(struct.pack("!II", len(body) + 8, _VERSION) + body)
    while True:
        kind, content = _message(plug, until)
        if kind == b"E":
            return _meaning(content)
        asks = kind == b"R" and struct.unpack("!I", content[:4])[0] != _AUTHENTICATION_OK
        if asks or kind == b"Z":  # for a password; or it accepts every login
            return None


def _message(plug: socket.socket, until: float) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!cI", _exactly(plug, 5, until))
    if not 4 <= length <= _MESSAGE_LIMIT:
        raise ValueError("not a message of PostgreSQL")
    return kind, _exactly(plug, length - 4, until)


def _exactly(plug: socket.socket, size: int, until: float) -> bytes:
    found = b""
    while len(found) < size:
        # A socket's limit is that of one call, and a server may send its answer byte by byte.
        plug.settimeout(max(until - monotonic(), _MOMENT))
        part = plug.recv(size - len(found))
        if not part:
            raise ConnectionResetError("the server closed the connection")
        found += part
    return found


def _meaning(content: bytes) -> Meaning | None:
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in content.split(b"\0") if part}
    return of_state(fields.get(b"C", ""), f"{fields.get(b'M', '')} {fields.get(b'R', '')}")
