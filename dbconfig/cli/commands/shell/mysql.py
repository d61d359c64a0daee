"""MySQL's and MariaDB's client."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any, Final

from dbconfig.cli.commands.shell.start import CannotPass, Start, written
from dbconfig.settings import hosts, tls
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import PORTS

# Lines of an option file are cut at 4096 bytes, and the rest is read as a separate line: as an option.
_LONGEST_LINE: Final = 4000
# Variables of the caller's environment that would select a server other than the profile's.
_ELSEWHERE: Final = ("MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT", "MYSQL_GROUP_SUFFIX")
_NO: Final = ("false", "0", "no", "off", "none")
_MODES: Final = {
    "disable": "DISABLED",
    "require": "REQUIRED",
    "verify-ca": "VERIFY_CA",
    "verify-full": "VERIFY_IDENTITY",
}

_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b"}


def start(settings: DatabaseSettings, environ: dict[str, str], path: str) -> Start:
    """Return how to start the client: the profile's settings are in an unnamed option file."""
    address = settings.address
    given = _given(settings)
    socket = given.get("unix_socket")
    host, port = _server(settings)
    options = {
        "user": address.username,
        "password": settings.read_password(),
        "host": host,
        "port": str(port) if port else None,
        "socket": written(socket) if socket else None,
        "protocol": None if socket else "tcp",
        "database": address.database,
        **_tls_files(settings, given),
    }
    lines = ["[client]", *_tls_options(settings, given, path)]
    for key, value in options.items():
        if value is None:
            continue
        line = f'{key}="{_escaped(value)}"'
        if "\0" in line or len(line.encode()) > _LONGEST_LINE:
            raise CannotPass(f"the client does not accept this {key}: it is too long, or contains a NUL character")
        lines.append(line)
    # The client inherits the file: no other process can open it, and it disappears with the client.
    with tempfile.TemporaryFile() as file:
        file.write(("\n".join(lines) + "\n").encode())
        file.seek(0)
        descriptor = os.dup(file.fileno())
    os.set_inheritable(descriptor, True)
    kept = {key: value for key, value in environ.items() if key not in _ELSEWHERE}
    # MySQL's client reads ~/.mylogin.cnf too, after our file.
    kept["MYSQL_TEST_LOGIN_FILE"] = os.devnull
    return [f"--defaults-file=/dev/fd/{descriptor}"], kept


def _server(settings: DatabaseSettings) -> tuple[str, int | None]:
    """Return the host and port; with several hosts, those of the primary, for which the client would not search."""
    address = settings.address
    if "host" not in address.query:
        return address.host or "localhost", address.port
    from sqlalchemy.exc import DBAPIError

    from dbconfig.engine import create
    from dbconfig.engine.primary.watch import PLACE

    engine = create.build(settings, "shell")
    try:
        with engine.connect() as connection:
            host: tuple[str, int] = connection.info[PLACE]
    except DBAPIError:  # let the client report the error
        return hosts.servers(None, None, address.query, PORTS[settings.backend])[0]
    finally:
        engine.dispose()
    return host


def _given(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the driver's own parameters; those of PyMySQL's `ssl` under their names in a URL."""
    given = {**settings.address.query, **settings.connect_args}
    inner = given.get("ssl")
    if isinstance(inner, Mapping):
        given |= {f"ssl_{name}": value for name, value in inner.items()}
    return {name: value for name, value in given.items() if value is not None}


def _tls_files(settings: DatabaseSettings, given: Mapping[str, Any]) -> dict[str, str]:
    found = {f"ssl-{name}": written(given[f"ssl_{name}"]) for name in ("ca", "cert", "key") if f"ssl_{name}" in given}
    wanted = tls.parameters(settings)
    for option, key in (("ssl-ca", "sslrootcert"), ("ssl-cert", "sslcert"), ("ssl-key", "sslkey")):
        if key in wanted:
            found[option] = tls.bundle(settings) if wanted[key] == tls.SYSTEM else wanted[key]
    return found


def _tls_options(settings: DatabaseSettings, given: Mapping[str, Any], path: str) -> list[str]:
    """Return the option lines with the profile's TLS requirements."""
    mode = settings.sslmode or _mode(given)
    if mode not in _MODES:
        return []
    if "MariaDB" not in _version(path):
        return [f"ssl-mode={_MODES[mode]}"]
    if mode == "disable":
        return ["skip-ssl"]
    if mode == "require":
        _prove_tls(settings)
        return ["ssl"]
    # MariaDB's client has no equivalent of `verify-ca`: it also compares the name in the certificate.
    return ["ssl", "ssl-verify-server-cert"]


def _prove_tls(settings: DatabaseSettings) -> None:
    """Check that the server offers TLS: without a certificate to verify, MariaDB's client falls back to plaintext."""
    from dbconfig.cli.commands.check import network

    for host, port in network.targets(settings):
        failure = network.tls(settings, host, port, settings.connect_timeout).failure
        if failure is not None:
            raise CannotPass(f"{failure.slug}: {host}:{port}: {failure.words or 'the profile requires TLS'}")


def _mode(given: Mapping[str, Any]) -> str:
    """Return the `sslmode` equivalent of the driver's own parameters."""

    def is_on(name: str, default: bool = False) -> bool:
        return written(given[name]).lower() not in _NO if name in given else default

    if is_on("ssl_disabled"):
        return "disable"
    trusts = "ssl_ca" in given or "ssl_capath" in given
    if is_on("ssl_verify_identity") or is_on("ssl_check_hostname", default=trusts):
        return "verify-full"
    return "verify-ca" if trusts or is_on("ssl_verify_cert") else "prefer"


def _version(path: str) -> str:
    command = [path, "--no-defaults", "--version"]
    # Its arguments contain nothing from a profile.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    return done.stdout


def _escaped(value: str) -> str:
    # https://mariadb.com/kb/en/configuring-mariadb-with-option-files/#option-file-syntax
    return "".join(_ESCAPES.get(ch, ch) for ch in value)
