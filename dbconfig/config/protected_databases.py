"""Finds out whether another profile protects the database that this one points at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dbconfig.config.active_profile import Selection
from dbconfig.config.folder import Folder, find_folder
from dbconfig.config.layering import PREFIX
from dbconfig.config.loader import load_selected, read_environment
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings import client_defaults, hosts
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.environment_variables import Environment, Variable
from dbconfig.settings.known_drivers import PORTS, family
from dbconfig.settings.loaded_profile import AnyProfile


class _Assumed(Environment):
    """An environment in which every variable has a value, so that a profile can be examined without its secrets."""

    __slots__ = ("_real",)

    def __init__(self, real: Environment | None) -> None:
        super().__init__({})
        self._real = real

    def __iter__(self) -> Iterator[str]:
        return iter(())  # DBCONFIG_… applies to the selected profile, not to the others

    def get(self, name: str) -> Variable | None:
        found = self._real.get(name) if self._real is not None and not name.startswith(PREFIX) else None
        return (
            found if found is not None and found.value else Variable(name, "1", Location("environment", variable=name))
        )


def protected_elsewhere(
    profile: AnyProfile,
    settings: DatabaseSettings,
    *,
    destructive: bool,
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str] | None,
) -> str:
    """Return the name of another profile that protects the same database, or "".

    Args:
        destructive: resolve environment variables too, so that an exported `DATABASE_URL` cannot lead a test to
            production; other actions are blocked only by the files themselves.
    """
    if _identity(settings) is None:
        return ""
    folder = find_folder(path)
    environment = _Assumed(read_environment(folder, environ) if destructive else None)
    for name in folder.profiles():
        other = _loaded(folder, environment, name) if name != profile.name else None
        if other is not None and any(each.protected and _same(each, settings) for each in other.databases.values()):
            return name
    return ""


def refuse_protected(profile: AnyProfile, settings: DatabaseSettings) -> None:
    """Raise if a profile is protected.

    Raises:
        ConfigError: it is.
    """
    if settings.protected:
        message = f"profile {quoted(profile.name)} is protected: dropping tables is refused"
        help = "write `protected: false` in a profile whose tables may be dropped"
        raise ConfigError([Problem("protected", message, settings.origin("protected"), "protected", help)])


def refuse_elsewhere(
    profile: AnyProfile,
    settings: DatabaseSettings,
    what: str,
    *,
    destructive: bool,
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str] | None,
) -> None:
    """Raise if another profile protects the database.

    Raises:
        ConfigError: another profile protects it; the problem names that profile.
    """
    owner = protected_elsewhere(profile, settings, destructive=destructive, path=path, environ=environ)
    if owner:
        message = (
            f"refused to {what}: profile {quoted(profile.name)} points at the same database as {quoted(owner)}, "
            "which is protected"
        )
        help = f"give {quoted(profile.name)} a database of its own, or run with ENVIRONMENT={owner}"
        raise ConfigError([Problem("database-elsewhere", message, help=help)])


def _loaded(folder: Folder, environment: Environment, name: str) -> AnyProfile | None:
    try:
        return load_selected(folder, environment, Selection(name, "protection"))
    except ConfigError:
        return None  # an invalid profile cannot be compared; loading it reports its problems


def _same(one: DatabaseSettings, other: DatabaseSettings) -> bool:
    """Return whether two profiles mean the same database, regardless of user, driver, and address form."""
    mine, theirs = _identity(one), _identity(other)
    return mine is not None and mine == theirs and (one.backend == "sqlite" or bool(_places(one) & _places(other)))


def _identity(settings: DatabaseSettings) -> tuple[str, str] | None:
    """Return what identifies a database on its server; None for a private one."""
    address = client_defaults.completed(settings)
    database = address.database or ""
    if settings.backend == "sqlite":
        path = settings.path
        if path is None and database.startswith("file:") and "memory" not in (*address.query.get("mode", ()), database):
            path = (settings.folder or Path()) / database.removeprefix("file:")
        return None if path is None else ("sqlite", str(path.resolve()))
    return family(settings.backend), database or address.username or ""


def _places(settings: DatabaseSettings) -> frozenset[tuple[str, int]]:
    """Return the host and port of each server in the address; a socket is this machine."""
    address = client_defaults.completed(settings)
    found = hosts.servers(address.host, address.port, address.query, PORTS.get(settings.backend, 0))
    local = ("", *hosts.LOCAL)
    return frozenset(
        ("localhost" if name in local or name.startswith("/") else name.lower(), port) for name, port in found
    )
