"""What is no error, but should be known: holes, and settings that defeat what they are for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.profile import DEFAULT, Profile

_GUESSABLE: Final = frozenset(
    [
        "password",
        "postgres",
        "mysql",
        "mariadb",
        "root",
        "admin",
        "secret",
        "changeme",
        "change_me",
        "example",
        "test",
        "123456",
        "12345678",
        "qwerty",
        "letmein",
        "passw0rd",
    ]
)
_LOCAL: Final = frozenset({None, "localhost", "127.0.0.1", "::1"})
_HOLES: Final = {
    "local_infile": "lets the server read files of this machine",
    "allow_local_infile": "lets the server read files of this machine",
    "init_command": "runs SQL that nobody checks on each connection: write `variables`",
}
_ADMINISTRATORS: Final = {"postgresql": ("postgres",), "mysql": ("root",), "mariadb": ("root",)}
_VERIFYING: Final = frozenset({"verify-ca", "verify-full"})

_Warning = Callable[[str, str, str, str], Problem]


def advice(profile: Profile) -> list[Problem]:
    """Return what somebody should act on; each is a warning, none refuses the profile."""
    return [warning for name, settings in profile.databases.items() for warning in _database(profile, name, settings)]


def _database(profile: Profile, name: str, settings: DatabaseSettings) -> Iterator[Problem]:
    def warning(slug: str, key: str, message: str, help: str) -> Problem:
        path = key if name == DEFAULT else f"databases.{name}.{key}"
        location = settings.origin(key)
        if location.line is None and not location.variable:
            location = settings.origin(address_key(settings))
        return Problem(slug, f"{path}: {message}", location, path, help, severity="warning")

    if not settings.in_memory and (settings.max_overflow == -1 or settings.pool_size == 0):
        key = "max_overflow" if settings.max_overflow == -1 else "pool_size"
        message = f"{getattr(settings, key)} is no limit: an unlimited pool does not protect the server"
        yield warning("unlimited-pool", key, message, "write a limit")
    if settings.echo and settings.protected:
        message = f"every statement of {profile.name} is logged, as if it were no production database" + (
            "" if settings.hide_parameters else "; the parameters too, for hide_parameters is not set"
        )
        yield warning("echo-in-production", "echo", message, "remove it")
    if settings.in_memory and settings.protected:
        message = "the data of a protected database are in memory, and gone when the process ends"
        yield warning("memory-in-production", address_key(settings), message, "name a file or a server")
    for option, why in _HOLES.items():
        if settings.connect_args.get(option) or option in settings.address.query:
            key = "connect_args" if settings.connect_args.get(option) else "query"
            yield warning("option-hole", key, f"{option!r} {why}", "remove it")
    yield from _access(settings, warning)
    yield from _password(settings, warning)


def _access(settings: DatabaseSettings, warning: _Warning) -> Iterator[Problem]:
    """Say who logs in to a protected server, and by what way."""
    address = settings.address
    if not settings.protected or settings.backend == "sqlite":
        return
    if address.username in _ADMINISTRATORS[settings.backend]:
        key = "username" if settings.username else address_key(settings)
        message = f"the application logs in as {quoted(address.username or '')}, the administrator of the server"
        yield warning("superuser", key, message, "make a user of its own for the application")
    remote = address.host not in _LOCAL and not str(address.host).startswith("/") and "unix_socket" not in address.query
    if remote and not _verifies(settings):
        postgresql = settings.backend == "postgresql"
        help = "sslmode=verify-full and sslrootcert=…" if postgresql else "ssl_ca=…"
        message = "the server's TLS certificate is not verified: whoever stands between can read and change everything"
        yield warning("tls-not-verified", address_key(settings), message, f"`query:` with {help}")


def _verifies(settings: DatabaseSettings) -> bool:
    given = {**settings.address.query, **settings.connect_args}
    if settings.backend == "postgresql":
        mode = given.get("sslmode", "")
        return (mode[0] if isinstance(mode, tuple) else mode) in _VERIFYING
    return any(given.get(name) is not None for name in ("ssl_ca", "ssl_capath", "ssl_verify_cert", "ssl"))


def _password(settings: DatabaseSettings, warning: _Warning) -> Iterator[Problem]:
    password = settings.address.password
    if password is None:
        return
    key = "password" if settings.password is not None else "url"
    exposed = settings.protected or settings.address.host not in _LOCAL
    if exposed and password.kind == "text" and password.read().lower() in _GUESSABLE:
        yield warning("guessable-password", key, "the password is a default one, easy to guess", "set another one")
    if exposed and password.written and _readable_by_others(settings, settings.origin(key)):
        message = "the password is written in plain text in a file that others can read: write ${VAR} or {file: …}"
        yield warning("secret-in-file", key, message, "{file: PATH} is read again for each new connection")
    readable = password.readable_by_others(settings.folder)
    if readable:
        message = f"the secret file {quoted(readable)} is readable by other users of this machine"
        yield warning("secret-file-readable", key, message, "its permissions should be 600")


def address_key(settings: DatabaseSettings) -> str:
    """Return the key that says where the database is."""
    return "url" if settings.url is not None else "drivername"


def _readable_by_others(settings: DatabaseSettings, location: Location) -> bool:
    if os.name != "posix" or location.line is None:
        return False
    try:
        mode = Path(location.source).stat().st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IRGRP | stat.S_IROTH))
