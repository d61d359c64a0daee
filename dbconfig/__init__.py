"""Database connections for SQLModel and SQLAlchemy, configured in YAML.

>>> from dbconfig import db
>>> with db.session() as session: ...
"""

from __future__ import annotations

# Not from typing, which takes longer to import than Python to start; type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dbconfig.config.loader import load
    from dbconfig.engine.pool import PoolStats
    from dbconfig.engine.pool.deadline import DeadlineExceeded
    from dbconfig.errors import ConfigError, DBConfigError, ProfileNotFound
    from dbconfig.errors.problem import Location, Problem
    from dbconfig.registry.registry import Registry
    from dbconfig.sessions.commit import CommitUncertain
    from dbconfig.settings.database import DatabaseSettings
    from dbconfig.settings.profile import Profile

    db: Registry

__version__ = "0.1.0"

# Imported on demand: an application that validates a file needs no SQLAlchemy, and a command no pydantic.
_HOMES = {
    "CommitUncertain": "sessions.commit",
    "ConfigError": "errors",
    "DBConfigError": "errors",
    "DatabaseSettings": "settings.database",
    "DeadlineExceeded": "engine.pool.deadline",
    "Location": "errors",
    "PoolStats": "engine.pool",
    "Problem": "errors",
    "Profile": "settings.profile",
    "ProfileNotFound": "errors",
    "Registry": "registry.registry",
    "load": "config.loader",
}

__all__ = [
    "CommitUncertain",
    "ConfigError",
    "DBConfigError",
    "DatabaseSettings",
    "DeadlineExceeded",
    "Location",
    "PoolStats",
    "Problem",
    "Profile",
    "ProfileNotFound",
    "Registry",
    "db",
    "load",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "db":
        # The import lock of the registry's module ensures a single instance when several threads import it first.
        value = import_module("dbconfig.registry.registry").default
    elif name in _HOMES:
        value = getattr(import_module(f"dbconfig.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
