"""Differences between the database systems: defaults, timeouts, session variables, and driver arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbconfig.settings.known_drivers import family, is_generic

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Engine

    from dbconfig.settings.database import DatabaseSettings


class Dialect(Protocol):
    """The interface of each module in this folder."""

    def address(self, settings: DatabaseSettings, drivername: str) -> URL:
        """Return the engine's URL, without any secret."""

    def arguments(self, settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
        """Return the driver's arguments, `connect_args` merged in, without any secret."""

    def attach(self, engine: Engine, settings: DatabaseSettings) -> None:
        """Attach listeners for what each new connection, or the engine, needs beyond its arguments."""

    def set_up_foreign(self, engine: Engine, settings: DatabaseSettings) -> None:
        """Apply to connections that the application creates what the driver's arguments would have set."""

    def session_reset(self, engine: Engine, settings: DatabaseSettings) -> Callable[[Any, Any], None] | None:
        """Return what resets the session of a connection; None where closing the connection is cheaper.

        Raises:
            ConfigError: the driver cannot.
        """


def of(backend: str) -> Dialect:
    """Return the module of a database system."""
    from importlib import import_module

    name = "generic" if is_generic(backend) else family(backend)
    module: Any = import_module(f"dbconfig.engine.dialects.{name}.base")
    dialect: Dialect = module
    return dialect
