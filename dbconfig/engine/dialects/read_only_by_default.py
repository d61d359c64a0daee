"""What makes transactions read-only on a server that accepts writes, by the module of its system."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dbconfig.settings.known_drivers import family

if TYPE_CHECKING:
    from dbconfig.engine.pool.options import Connected
    from dbconfig.settings.database import DatabaseSettings


def reason(settings: DatabaseSettings, connected: Connected) -> str:
    """Return what makes transactions read-only by default; "" if nothing is known that does."""
    system = family(settings.backend)
    if system not in ("postgresql", "mysql"):
        return ""
    module: Any = import_module(f"{__package__}.{system}.read_only_by_default")
    found: str = module.reason(settings, connected)
    return found
