"""`dbconfig shell`: the database's own shell; the password is never on a command line, where others can read it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final, NoReturn

from dbconfig.cli.commands.shell import mysql, psql
from dbconfig.cli.commands.shell.start import CannotPass, Start
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FAILED
from dbconfig.errors.printable import quoted
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import family
from dbconfig.settings.loaded_profile import DEFAULT


def run(context: Context) -> int:
    context.arguments.database = name = context.arguments.database or DEFAULT
    settings = context.profile.database(name)
    context.out.note(f"{context.selection.name}/{name} ({context.reason})")
    if settings.in_memory:
        context.out.note("error: an in-memory database is private to its process: a shell cannot open it")
        return FAILED
    if settings.protected and not _confirmed(context):
        return FAILED
    programs = _PROGRAMS.get(settings.backend, ())
    if not programs:
        context.out.note(f"error: `dbconfig shell` does not support {settings.backend}")
        return FAILED
    path = next((found for each in programs if (found := shutil.which(each, path=context.environ.get("PATH")))), None)
    if path is None:
        context.out.note(f"error: {' or '.join(programs)} is not installed")
        return FAILED
    try:
        arguments, environ = _STARTERS[family(settings.backend)](settings, dict(context.environ), path)
    except CannotPass as error:
        context.out.note(f"error: {error}")
        return FAILED
    sys.stdout.flush()
    return _become(path, [path, *arguments], environ)


def _confirmed(context: Context) -> bool:
    """Ask for the profile's name before a shell opens a protected database."""
    name = context.selection.name
    sys.stderr.write(f"{name} is protected; type its name to continue: ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if answer != name:
        context.out.note(f"error: {quoted(answer)} is not {quoted(name)}")
        return False
    return True


def _become(path: str, arguments: list[str], environ: dict[str, str]) -> NoReturn:
    os.execve(path, arguments, environ)  # noqa: S606  # no shell: the arguments are ours


def _sqlite(settings: DatabaseSettings, environ: dict[str, str], path: str) -> Start:
    # An absolute path begins with `/`, a URI with `file:`.
    database = settings.path.absolute() if settings.path is not None else settings.address.database
    if "\0" in str(database):
        raise CannotPass("the file's name contains a NUL character")
    return [str(database)], environ


_PROGRAMS: Final = {
    "sqlite": ("sqlite3",),
    "postgresql": ("psql",),
    "mysql": ("mysql", "mariadb"),
    "mariadb": ("mariadb", "mysql"),
}
_STARTERS: Final = {"sqlite": _sqlite, "postgresql": psql.start, "mysql": mysql.start}
