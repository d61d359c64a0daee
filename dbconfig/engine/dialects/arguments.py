"""Checks of driver arguments and session variables that all systems share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings


_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)


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
