"""Any other SQLAlchemy dialect: the address and the driver's arguments are passed as written, and nothing is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from dbconfig.settings.database import DatabaseSettings


def address(settings: DatabaseSettings, drivername: str) -> URL:
    return settings.public_url(drivername)


def arguments(settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
    return {key: value for key, value in settings.connect_args.items() if not isinstance(value, Secret)}


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    """Attach nothing: no key applies to such a dialect."""


def set_up_foreign(engine: Engine, settings: DatabaseSettings) -> None:
    """Set nothing, for the same reason."""


def session_reset(engine: Engine, settings: DatabaseSettings) -> Callable[[Any, Any], None] | None:
    return None
