"""What is no error, but should be known: holes, and settings that defeat what they are for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dbconfig.errors import Location, Problem
from dbconfig.profile import DEFAULT, Profile
from dbconfig.settings import DatabaseSettings

_GUESSABLE: Final = frozenset(
    {
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
    }
)
_LOCAL: Final = frozenset({None, "localhost", "127.0.0.1", "::1"})
_HOLES: Final = {
    "local_infile": "lets the server read files of this machine",
    "allow_local_infile": "lets the server read files of this machine",
    "init_command": "runs SQL that nobody checks on each connection: write `variables`",
}


def advice(profile: Profile) -> list[Problem]:
    """Return what somebody should act on; each is a warning, none refuses the profile."""
    return [warning for name, settings in profile.databases.items() for warning in _database(profile, name, settings)]


def _database(profile: Profile, name: str, settings: DatabaseSettings) -> Iterator[Problem]:
    def warning(key: str, message: str) -> Problem:
        path = key if name == DEFAULT else f"databases.{name}.{key}"
        return Problem("advice", f"{path}: {message}", settings.origin(key), path)

    if settings.max_overflow == -1:
        yield warning("max_overflow", "-1 is no limit: an unlimited pool does not protect the server")
    if settings.echo and settings.protected:
        yield warning(
            "echo",
            f"every statement of {profile.name} is logged, as if it were no production database"
            + ("" if settings.hide_parameters else "; the parameters too, for hide_parameters is not set"),
        )
    for option, why in _HOLES.items():
        if settings.connect_args.get(option):
            yield warning("connect_args", f"{option!r} {why}")
    password = settings.address.password
    if password is None:
        return
    key = "password" if settings.password is not None else "url"
    exposed = settings.protected or settings.address.host not in _LOCAL
    if exposed and password.kind == "text" and password.read().lower() in _GUESSABLE:
        yield warning(key, "the password is a default one, easy to guess")
    if exposed and password.written and _readable_by_others(profile, settings.origin(key)):
        yield warning(
            key, "the password is written in plain text in a file that others can read: write ${VAR} or {file: …}"
        )


def _readable_by_others(profile: Profile, location: Location) -> bool:
    if os.name != "posix" or location.line is None:
        return False
    try:
        mode = Path(location.source).stat().st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IRGRP | stat.S_IROTH))
