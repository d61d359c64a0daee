"""What differs between the database systems: defaults, timeouts, session variables, arguments of the drivers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from dbconfig.errors import ConfigError, Problem
from dbconfig.secrets import Secret

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from dbconfig.settings import DatabaseSettings

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)


class Dialect(Protocol):
    """What each module of this folder has."""

    def address(self, settings: DatabaseSettings, drivername: str) -> URL:
        """Return the engine's URL, without any secret."""

    def arguments(self, settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
        """Return the driver's arguments, `connect_args` merged in, without any secret."""

    def attach(self, engine: Engine, settings: DatabaseSettings) -> None:
        """Attach what each new connection, or the engine, needs beyond its arguments."""


def of(backend: str) -> Dialect:
    """Return the module of a database system."""
    from importlib import import_module

    name = {"mariadb": "mysql"}.get(backend, backend)
    module: Any = import_module(f"dbconfig.dialects.{name}")
    dialect: Dialect = module
    return dialect


def milliseconds(seconds: float) -> int:
    """Return seconds as whole milliseconds, at least one: to every server zero means no limit."""
    return max(1, round(seconds * 1000))


def variable_names(settings: DatabaseSettings) -> Mapping[str, Any]:
    """Return the session variables, whose names are known to be names and whose values are one value each.

    Raises:
        ConfigError: a name is none, and would be SQL of its own; or a value is a list or a mapping.
    """
    problems = [
        Problem(
            "invalid-value",
            "the name of a session variable has letters, digits, `_` and dots",
            settings.origin(f"variables.{name}"),
            f"variables.{name}",
        )
        for name in settings.variables
        if not _VARIABLE.fullmatch(name)
    ]
    problems += [
        Problem(
            "wrong-type",
            f"a session variable has one value, not a {'mapping' if isinstance(value, Mapping) else 'list'}",
            settings.origin(f"variables.{name}"),
            f"variables.{name}",
            "write it as the text that would stand behind SET: 'one,two'",
        )
        for name, value in settings.variables.items()
        if isinstance(value, (Mapping, list, tuple))
    ]
    if problems:
        raise ConfigError(problems)
    return {name: one.read() if isinstance(one, Secret) else one for name, one in settings.variables.items()}


def unknown_argument(settings: DatabaseSettings, name: str, driver: str, key: str, help: str = "") -> Problem:
    """Return the problem of an argument that the driver does not take."""
    location = settings.origin(f"{key}.{name}")
    return Problem(
        "unknown-key",
        f"{name!r} is no argument of {driver}",
        location if location.line or location.variable else settings.origin("url"),
        f"{key}.{name}",
        help,
    )
