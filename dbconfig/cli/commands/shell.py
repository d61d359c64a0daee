"""`dbconfig shell`: the database's own shell; the password never stands on a command line, where others can read it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import Final, NoReturn

from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FAILED
from dbconfig.errors.printable import quoted
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.profile import DEFAULT
from dbconfig.settings.secret_sources import Secret

# https://www.postgresql.org/docs/current/libpq-envars.html
_PARAMETERS: Final = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "application_name": "PGAPPNAME",
    "options": "PGOPTIONS",
    "channel_binding": "PGCHANNELBINDING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "host": "PGHOST",
    "port": "PGPORT",
}


def run(context: Context) -> int:
    context.arguments.database = name = context.arguments.database or DEFAULT
    settings = context.databases()[name]
    context.out.note(f"{context.selection.name}/{name} ({context.reason})")
    if settings.in_memory:
        context.out.note("error: an in-memory database is its process's own: there is nothing to look at")
        return FAILED
    if settings.protected and not _confirmed(context):
        return FAILED
    starters = {"sqlite": _sqlite, "postgresql": _postgresql}
    program, arguments, environ = starters.get(settings.backend, _mysql)(settings, dict(context.environ))
    path = next((found for each in program if (found := shutil.which(each, path=environ.get("PATH")))), None)
    if path is None:
        context.out.note(f"error: {' or '.join(program)} is not installed")
        return FAILED
    sys.stdout.flush()
    return _become(path, [path, *arguments], environ)


def _confirmed(context: Context) -> bool:
    """Ask for the profile's name: what is typed there acts on a protected database."""
    name = context.selection.name
    sys.stderr.write(f"{name} is protected; type its name to go on: ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if answer != name:
        context.out.note(f"error: {quoted(answer)} is not {quoted(name)}")
        return False
    return True


def _become(path: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
    os.execve(path, arguments, environ)  # noqa: S606  # no shell: the arguments are ours


_Start = tuple[tuple[str, ...], list[str], dict[str, str]]


def _postgresql(settings: DatabaseSettings, environ: dict[str, str]) -> _Start:
    address = settings.address
    given = {
        "PGHOST": address.host,
        "PGPORT": str(address.port) if address.port else None,
        "PGUSER": address.username,
        "PGDATABASE": address.database or address.username,
        "PGPASSWORD": settings.read_password(),
        "PGCONNECT_TIMEOUT": str(max(1, round(settings.connect_timeout))),
    }
    for parameter, variable in _PARAMETERS.items():
        values = address.query.get(parameter) or ()
        if values:
            given[variable] = ",".join(one.read() if isinstance(one, Secret) else str(one) for one in values)
    # What the caller's environment says of another server must not take part.
    kept = {key: value for key, value in environ.items() if key not in (*given, *_PARAMETERS.values(), "PGSERVICE")}
    return ("psql",), [], {**kept, **{key: value for key, value in given.items() if value is not None}}


def _mysql(settings: DatabaseSettings, environ: dict[str, str]) -> _Start:
    address = settings.address
    socket = address.query.get("unix_socket", ())
    given = {
        "user": address.username,
        "password": settings.read_password(),
        "host": address.host or "localhost",
        "port": str(address.port) if address.port else None,
        "socket": str(socket[0]) if socket else None,
        "protocol": None if socket else "tcp",
    }
    given |= {
        f"ssl-{name}": str(found[0])
        for name in ("ca", "cert", "key")
        if (found := address.query.get(f"ssl_{name}")) is not None
    }
    lines = [f'{key}="{_escaped(value)}"' for key, value in given.items() if value is not None]
    # A file without a name, which the client inherits: nobody else can open it, and it is gone with the client.
    file = tempfile.TemporaryFile()  # noqa: SIM115  # stays open for the program that this process becomes
    file.write(("[client]\n" + "\n".join(lines) + "\n").encode())
    file.seek(0)
    descriptor = os.dup(file.fileno())
    os.set_inheritable(descriptor, True)
    environ = {key: value for key, value in environ.items() if key not in ("MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT")}
    arguments = [f"--defaults-file=/dev/fd/{descriptor}", *([address.database] if address.database else [])]
    program = ("mariadb", "mysql") if settings.backend == "mariadb" else ("mysql", "mariadb")
    return program, arguments, environ


def _escaped(value: str) -> str:
    # https://mariadb.com/kb/en/configuring-mariadb-with-option-files/#option-file-syntax
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")


def _sqlite(settings: DatabaseSettings, environ: dict[str, str]) -> _Start:
    return ("sqlite3",), [str(settings.path or settings.address.database)], environ
