"""Warnings about configurations that are valid but insecure or self-defeating."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings import hosts, small_files, tls
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import DEFAULT, AnyProfile
from dbconfig.settings.located_values import Source

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
_LOCAL: Final = hosts.LOCAL | {""}
_HOLES: Final = {
    "local_infile": "lets the server read files of this machine",
    "allow_local_infile": "lets the server read files of this machine",
    "read_default_file": "reads host, user, and password from another file if the profile does not set them",
    "init_command": "runs unchecked SQL on each connection: use `variables`",
}
_ADMINISTRATORS: Final = {"postgresql": ("postgres",), "mysql": ("root",), "mariadb": ("root",)}

_OFF: Final = ("false", "no", "off", "n", "f", "0")  # as SQLAlchemy reads the text of a URL
_INSTEAD: Final = {"read_default_file": "write the address here, and `password: {file: PATH}`"}
_ONLY_OWNER: Final = "remove the write permission of others from it and from its folder: chmod o-w,g-w"
_Warning = Callable[[str, str, str, str], Problem]


def advice(profile: AnyProfile) -> list[Problem]:
    """Return the warnings about a profile; none of them rejects it."""
    found = [warning for name, settings in profile.databases.items() for warning in _database(profile, name, settings)]
    return [*_files(profile), *found]


def _files(profile: AnyProfile) -> Iterator[Problem]:
    """Warn about configuration files that other users may write: these decide where a password is sent."""
    for source in profile.sources:
        if small_files.writable_by_others(Path(source)):
            message = f"{quoted(source)} can be written or replaced by other users of this machine"
            yield Problem("file-writable", message, Location(source), help=_ONLY_OWNER, severity="warning")


def _database(profile: AnyProfile, name: str, settings: DatabaseSettings) -> Iterator[Problem]:
    def warning(slug: str, key: str, message: str, help: str) -> Problem:
        path = key if name == DEFAULT else f"databases.{name}.{key}"
        location = settings.origin(key)
        if location.line is None and not location.variable:
            location = settings.origin(address_key(settings))
        return Problem(slug, f"{path}: {message}", location, path, help, severity="warning")

    if not settings.in_memory and (settings.max_overflow == -1 or settings.pool_size == 0):
        key = "max_overflow" if settings.max_overflow == -1 else "pool_size"
        message = f"{getattr(settings, key)} removes the limit: an unlimited pool does not protect the server"
        yield warning("unlimited-pool", key, message, "write a limit")
    if settings.echo and settings.protected:
        shown = "" if settings.hide_parameters else ", with its parameters (hide_parameters is not set)"
        message = f"every statement of {profile.name} is logged, although the database is protected{shown}"
        yield warning("echo-in-production", "echo", message, "remove it")
    if settings.in_memory and settings.protected:
        message = "the data of a protected database is in memory, and lost when the process ends"
        yield warning("memory-in-production", address_key(settings), message, "use a file or a server")
    for option, why in _HOLES.items():
        if settings.connect_args.get(option) or _in_url(option, settings):
            key = "connect_args" if settings.connect_args.get(option) else "query"
            yield warning("option-hole", key, f"{option!r} {why}", _INSTEAD.get(option, "remove it"))
    yield from _access(settings, warning)
    yield from _password(settings, warning)


def _in_url(option: str, settings: DatabaseSettings) -> bool:
    """Return whether the URL, or `query`, has an option, which it may also switch off."""
    values = settings.address.query.get(option, ())
    return any(not option.endswith("local_infile") or str(each).strip().lower() not in _OFF for each in values)


def _access(settings: DatabaseSettings, warning: _Warning) -> Iterator[Problem]:
    """Warn about the user and the transport of connections to a protected server."""
    address = settings.address
    if not settings.protected or settings.backend == "sqlite" or settings.is_generic:
        return
    if address.username in _ADMINISTRATORS[settings.backend]:
        key = "username" if settings.username else address_key(settings)
        message = f"the application logs in as {quoted(address.username or '')}, the administrator of the server"
        yield warning("superuser", key, message, "create a separate user for the application")
    if _is_remote(settings) and _sslmode(settings) not in tls.VERIFYING:
        message = "the server's certificate is not verified: anyone on the network path can read and change everything"
        help = "write `sslmode: verify-full` and `sslrootcert: system`, or the file of your provider's authority"
        yield warning("tls-not-verified", address_key(settings), message, help)


def _is_remote(settings: DatabaseSettings) -> bool:
    """Return whether a server, or one of several, is reached over a network."""
    address = settings.address
    if settings.backend == "sqlite" or settings.is_generic or "unix_socket" in address.query:
        return False
    found = hosts.servers(address.host, address.port, address.query, 0)
    return any(host not in _LOCAL and not host.startswith("/") for host, _ in found)


def _sslmode(settings: DatabaseSettings) -> str:
    return tls.mode(settings, {**settings.address.query, **settings.connect_args}, settings.backend)


def _password(settings: DatabaseSettings, warning: _Warning) -> Iterator[Problem]:
    password = settings.address.password
    if password is None:
        return
    key = "password" if settings.password is not None else "url"
    exposed = settings.protected or _is_remote(settings)
    if exposed and password.kind == "text" and password.read().lower() in _GUESSABLE:
        yield warning("guessable-password", key, "the password is easy to guess", "set another password")
    if exposed and password.written and _readable_by_others(settings.origin(key)):
        message = "the password is in plain text in a file that others can read: write ${VAR} or {file: …}"
        yield warning("secret-in-file", key, message, "{file: PATH} is read again for each new connection")
    location = settings.origin(key)
    if password.written and isinstance(location.text, Source) and location.text.cuts_secret(location.line or 0):
        message = "the ` #` after it begins a comment, which is not part of the password"
        help = "put the password in quotes if it continues; otherwise, write a space after the `#`"
        yield warning("comment-after-secret", key, message, help)
    file = password.file(settings.folder)
    if file is not None and small_files.readable_by_others(file):
        message = f"the secret file {quoted(password.argument)} is readable by other users of this machine"
        yield warning("secret-file-readable", key, message, "set its permissions to 600")
    if file is not None and small_files.writable_by_others(file):
        message = f"the secret file {quoted(password.argument)} can be written or replaced by other users"
        yield warning("file-writable", key, message, _ONLY_OWNER)


def address_key(settings: DatabaseSettings) -> str:
    """Return the key that sets the address of the database."""
    return "url" if settings.url is not None else "drivername"


def _readable_by_others(location: Location) -> bool:
    return location.line is not None and small_files.readable_by_others(Path(location.source))
