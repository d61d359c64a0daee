"""The program's name on the server: PostgreSQL's application_name, MySQL's program_name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dbconfig.settings.known_drivers import family
from dbconfig.settings.rules import LONGEST_APPLICATION_NAME

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings

_LIBPQ: Final = ("psycopg2", "psycopg")
_PROGRAM_NAME: Final = ("pymysql", "aiomysql", "asyncmy")  # mysqlclient cannot set it


def named(arguments: Mapping[str, Any], settings: DatabaseSettings, drivername: str, label: str) -> dict[str, Any]:
    """Return the arguments of the driver's `connect` with the name of this program, unless they have one.

    Args:
        arguments: those of the driver's `connect`.
        settings: of the database.
        drivername: as `DatabaseSettings.driver` returns it.
        label: "profile" or "profile/database", for the name where the settings have none.
    """
    driver = drivername.partition("+")[2].removesuffix("_async")
    name = settings.application_name or default_name(settings, label)
    if _is_written(settings) or family(settings.backend) == "sqlite":
        return dict(arguments)
    if driver in _LIBPQ:
        # PGAPPNAME and a service file override a fallback.
        key = "application_name" if settings.application_name else "fallback_application_name"
        return {key: name, **arguments}
    if driver == "asyncpg":
        given = arguments.get("server_settings") or {}
        return {**arguments, "server_settings": {"application_name": name, **given}}
    return {"program_name": name, **arguments} if driver in _PROGRAM_NAME else dict(arguments)


def default_name(settings: DatabaseSettings, label: str) -> str:
    """Return the names of the project's folder and of the profile, or of the profile only if it has no folder."""
    profile = label.partition("/")[0]
    folder = settings.folder.resolve().name if settings.folder is not None else ""
    name = f"{folder}/{profile}" if folder else profile
    shown = "".join(each if each.isprintable() else "?" for each in name)
    return shown.encode()[-LONGEST_APPLICATION_NAME:].decode(errors="ignore")


def _is_written(settings: DatabaseSettings) -> bool:
    """Whether the URL, the driver's arguments, or a session variable set the name."""
    query, given = settings.address.query, settings.connect_args
    if "application_name" in query or {"application_name", "program_name"} & given.keys():
        return True
    if any(name.lower() == "application_name" for name in (*settings.variables, *given.get("server_settings", ()))):
        return True
    options = (*query.get("options", ()), given.get("options"))
    return any("application_name" in str(each) for each in options if each)
