"""Checks of driver arguments and session variables that all systems share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbconfig.errors.problem import Problem
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings


def milliseconds(seconds: float) -> int:
    """Return seconds as whole milliseconds, at least one: for every server, zero means no limit."""
    return max(1, round(seconds * 1000))


def variable_names(settings: DatabaseSettings) -> Mapping[str, Any]:
    """Return the session variables with their secrets read; their names were validated at load."""
    return {name: one.read() if isinstance(one, Secret) else one for name, one in settings.variables.items()}


def unknown_argument(settings: DatabaseSettings, name: str, driver: str, key: str, help: str = "") -> Problem:
    """Return the problem of an argument that the driver does not accept."""
    return Problem(
        "unknown-key",
        f"{name!r} is not an argument of {driver}",
        settings.written_at(f"{key}.{name}"),
        f"{key}.{name}",
        help,
    )
