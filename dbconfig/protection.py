"""Which other profile protects the database that this one points at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final

from dbconfig.environment import Environment, Variable
from dbconfig.errors import ConfigError, Location
from dbconfig.layering import PREFIX
from dbconfig.loader import load_selected, read_environment
from dbconfig.profile import Profile
from dbconfig.profiles import Folder, Selection, find_folder
from dbconfig.settings import DatabaseSettings

_PORTS: Final = {"postgresql": 5432, "mysql": 3306}
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Assumed(Environment):
    """An environment in which every variable has a value: a profile can be looked at without its secrets."""

    __slots__ = ("_real",)

    def __init__(self, real: Environment | None) -> None:
        super().__init__({})
        self._real = real

    def __iter__(self) -> Iterator[str]:
        return iter(())  # DBCONFIG_… is meant for the profile in use, not for the others

    def get(self, name: str) -> Variable | None:
        found = self._real.get(name) if self._real is not None and not name.startswith(PREFIX) else None
        return (
            found if found is not None and found.value else Variable(name, "1", Location("environment", variable=name))
        )


def protected_elsewhere(
    profile: Profile,
    settings: DatabaseSettings,
    *,
    destructive: bool,
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str] | None,
) -> str:
    """Return the name of another profile that protects the same database, or "".

    Args:
        destructive: look through environment variables too, so that an exported `DATABASE_URL` cannot lead a test to
            production; what is not destructive is held up only by what the files themselves say.
    """
    target = _identity(settings)
    if target is None:
        return ""
    folder = find_folder(path)
    environment = _Assumed(read_environment(folder, environ) if destructive else None)
    for name in folder.profiles():
        other = _loaded(folder, environment, name) if name != profile.name else None
        if other is not None and any(each.protected and _identity(each) == target for each in other.databases.values()):
            return name
    return ""


def _loaded(folder: Folder, environment: Environment, name: str) -> Profile | None:
    try:
        return load_selected(folder, environment, Selection(name, "protection"))
    except ConfigError:
        return None  # what cannot be loaded cannot be compared; whoever uses that profile is told what is wrong with it


def _identity(settings: DatabaseSettings) -> tuple[object, ...] | None:
    """Return what makes a database the same one, by whatever user and driver; None for one that nobody shares."""
    if settings.in_memory:
        return None
    if settings.path is not None:
        return "sqlite", str(settings.path.resolve())
    address = settings.address
    system = {"mariadb": "mysql"}.get(settings.backend, settings.backend)
    hosts = address.query.get("host") or (address.host or "localhost",)
    names = tuple("localhost" if host in _LOCAL else str(host).lower() for host in hosts)
    return system, names, address.port or _PORTS.get(system), address.database or address.username
