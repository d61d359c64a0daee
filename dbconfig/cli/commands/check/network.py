"""The route to a server, step by step: its address, a TCP connection, what answers, and whether it offers TLS."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from dbconfig.engine.connection_failures import Failure, default_port
from dbconfig.engine.dialects.error_table import UNKNOWN
from dbconfig.engine.dialects.mysql.errors import CODES
from dbconfig.engine.dialects.system_errors import of_system
from dbconfig.settings import client_defaults, hosts
from dbconfig.settings.database import DatabaseSettings

_SSL_REQUEST: Final = struct.pack(
    "!II", 8, 80877103
)  # https://www.postgresql.org/docs/current/protocol-message-formats.html
_CLIENT_SSL: Final = 0x800  # https://mariadb.com/kb/en/connection/#capabilities
_SILENCE: Final = 1.0  # seconds without an answer after which it is probed for a web server


@dataclass(slots=True)
class Step:
    """One step of a check: what was done, how long it took, and what was found or why it failed."""

    name: str
    seconds: float = 0.0
    detail: str = ""
    failure: Failure | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    target: str = ""  # its server, if there are several


class StepFailed(Exception):
    """A step that ends the check."""

    def __init__(self, slug: str, stage: str, words: str = "") -> None:
        super().__init__(slug, stage, words)  # recreated from these in another process
        self.failure: Failure = Failure(slug, stage, words)

    def __str__(self) -> str:
        return self.failure.words


def timed(name: str, work: Callable[[Step], None]) -> Step:
    """Do one step and return it with its time."""
    step = Step(name)
    begin = time.perf_counter()
    try:
        work(step)
    except StepFailed as failed:
        step.failure = failed.failure
    step.seconds = time.perf_counter() - begin
    return step


def targets(settings: DatabaseSettings) -> list[tuple[str, int]]:
    """Return the hosts and ports of a server; none if it is reached through a Unix socket."""
    if "unix_socket" in settings.connect_args:
        return []
    address = client_defaults.completed(settings)
    if "unix_socket" in address.query:
        return []
    found = hosts.servers(address.host, address.port, address.query, default_port(settings))
    if settings.backend == "postgresql" and (not found[0][0] or found[0][0].startswith("/")):
        return []  # libpq uses the socket if no host is set
    return [(host or "localhost", port) for host, port in found]


def approach(settings: DatabaseSettings, host: str, port: int, timeout: float) -> Iterator[Step]:
    """Yield the steps to one host, up to the first that fails."""
    steps: tuple[Callable[[], Step], ...] = (
        lambda: resolve(host, port),
        lambda: tcp(host, port, timeout),
        lambda: tls(settings, host, port, timeout),
    )
    for step in steps:
        done = step()
        done.target = f"{host}:{port}"
        yield done
        if done.failure is not None:
            return


def resolve(host: str, port: int) -> Step:
    def work(step: Step) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise StepFailed("host-unknown", "resolve", str(error)) from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        step.detail, step.facts = ", ".join(addresses), {"addresses": addresses}

    return timed("resolve", work)


def tcp(host: str, port: int, timeout: float) -> Step:
    def work(step: Step) -> None:
        _open(host, port, timeout).close()
        step.detail = f"{host}:{port}"

    return timed("tcp", work)


def tls(settings: DatabaseSettings, host: str, port: int, timeout: float) -> Step:
    """Find out what answers, and whether it offers TLS, before any name or password is sent."""
    postgresql = settings.backend == "postgresql"

    def work(step: Step) -> None:
        with closing(_open(host, port, timeout)) as plug:
            if postgresql:
                plug.sendall(_SSL_REQUEST)
            first = _first_bytes(plug, host, port, timeout)
        offered = _postgresql_offers(first) if postgresql else _mysql_offers(first)
        wanted = demands_tls(settings)
        if wanted and not offered:
            raise StepFailed("tls-refused", "tls")
        step.facts = {"offered": offered, "demanded": wanted}
        step.detail = (
            f"{'offered' if offered else 'not offered'}, {'required' if wanted else 'not required'} by the profile"
        )

    return timed("tls", work)


def demands_tls(settings: DatabaseSettings) -> bool:
    """Return whether the profile requires TLS."""
    if settings.sslmode is not None:
        return settings.sslmode not in ("disable", "allow", "prefer")
    given = {**settings.address.query, **settings.connect_args}
    if settings.backend == "postgresql":
        mode = given.get("sslmode", given.get("ssl", ""))  # `ssl` is a driver's own parameter
        return str(mode[0] if isinstance(mode, tuple) else mode) in ("require", "verify-ca", "verify-full")
    return any(given.get(name) is not None for name in ("ssl_ca", "ssl_verify_cert", "ssl"))


def _open(host: str, port: int, timeout: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout)
    except TimeoutError:
        raise StepFailed("timed-out", "tcp", f"no answer within {timeout:g} s") from None
    except OSError as error:
        row = of_system(error) or UNKNOWN
        raise StepFailed(row.slug, "tcp", error.strerror or str(error)) from None


def _first_bytes(plug: socket.socket, host: str, port: int, timeout: float) -> bytes:
    patience = min(_SILENCE, timeout / 3)
    plug.settimeout(patience)
    try:
        first = plug.recv(4096)
    except TimeoutError:
        if _is_web_server(host, port, patience):
            raise StepFailed("not-a-database", "tls", "an HTTP server answers") from None
        plug.settimeout(timeout - 2 * patience)
        try:
            first = plug.recv(4096)
        except TimeoutError:
            raise StepFailed("timed-out", "tls", "it accepts the connection, but does not answer") from None
    except OSError as error:
        raise StepFailed("connection-lost", "tls", error.strerror or str(error)) from None
    if not first:
        raise StepFailed("connection-lost", "tls", "it closes the connection immediately")
    return first


def _is_web_server(host: str, port: int, timeout: float) -> bool:
    try:
        with closing(_open(host, port, timeout)) as plug:
            plug.settimeout(timeout)
            plug.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return plug.recv(5).startswith(b"HTTP")
    except (OSError, StepFailed):
        return False


def _postgresql_offers(first: bytes) -> bool:
    if first[:1] in (b"S", b"N"):
        return first[:1] == b"S"
    what = (
        "MySQL or MariaDB answers"
        if first[4:5] == b"\x0a"
        else "an HTTP server answers"
        if first.startswith(b"HTTP")
        else "it does not speak PostgreSQL's protocol"
    )
    if first[:1] == b"E":
        raise StepFailed("connection-lost", "tls", "the server answers with an error")
    raise StepFailed("not-a-database", "tls", what)


def _mysql_offers(first: bytes) -> bool:
    # Four bytes of header, protocol version 10, version up to a zero byte, thread (4), salt (8), zero, capabilities.
    if first[4:5] == b"\xff":
        code = struct.unpack("<H", first[5:7])[0] if len(first) > 6 else 0
        row = CODES.get(code, UNKNOWN)
        raise StepFailed(row.slug, "tls", first[7:].decode("utf-8", "replace").lstrip("#"))
    end = first.find(b"\0", 5)
    if first[4:5] != b"\x0a" or end < 0 or len(first) < end + 16:
        what = "an HTTP server answers" if first.startswith(b"HTTP") else "it does not speak MySQL's protocol"
        raise StepFailed("not-a-database", "tls", what)
    return bool(struct.unpack("<H", first[end + 14 : end + 16])[0] & _CLIENT_SSL)
