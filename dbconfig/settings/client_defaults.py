"""What client libraries add to an address: PGHOST and its like, service files, MySQL's option files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dbconfig.errors.problem import Location
from dbconfig.settings import small_files
from dbconfig.settings.environment_variables import process
from dbconfig.settings.keys import Keys
from dbconfig.settings.known_drivers import family
from dbconfig.settings.url_assembly import compose
from dbconfig.settings.url_parsing import DatabaseURL

OPTION_FILE: Final = "read_default_file"  # PyMySQL's name, which its descendants and mysqlclient share
_OPTION_GROUP: Final = "read_default_group"

# https://www.postgresql.org/docs/current/libpq-envars.html
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "username": "PGUSER",
    "database": "PGDATABASE",
    "options": "PGOPTIONS",
}
_OF_SERVICE: Final = {"host": "host", "port": "port", "user": "username", "dbname": "database", "options": "options"}
_OF_OPTION_FILE: Final = {
    "host": "host",
    "port": "port",
    "user": "username",
    "database": "database",
    "socket": "unix_socket",
}


@dataclass(frozen=True, slots=True)
class Default:
    """A value that the profile does not say, and where the client library finds it."""

    value: str
    location: Location


def defaults(settings: Keys, environ: Mapping[str, str] | None = None) -> dict[str, Default]:
    """Return the parts of an address, and `options`, that the client library takes from elsewhere; no secret."""
    address, environ = compose(settings), process() if environ is None else environ
    given = {**address.query, **settings.connect_args}
    if family(address.backend) == "mysql":
        file = _text(given.get(OPTION_FILE))
        group = _text(given.get(_OPTION_GROUP)) or "client"
        path = option_file(settings, file) if file else None
        return {} if path is None else _read(path, group, _OF_OPTION_FILE)
    if address.backend != "postgresql":
        return {}
    found = {
        part: Default(environ[name], Location("environment", variable=name))
        for part, name in _VARIABLES.items()
        if environ.get(name)
    }
    service = _text(given.get("service")) or environ.get("PGSERVICE", "")
    return {**found, **_of_service(service, environ)} if service else found  # libpq asks the service first


def completed(settings: Keys, environ: Mapping[str, str] | None = None) -> DatabaseURL:
    """Return the address with what the client library adds to it."""
    address, found = compose(settings), defaults(settings, environ)
    changes: dict[str, Any] = {}
    for part in ("username", "database"):
        if getattr(address, part) is None and part in found:
            changes[part] = found[part].value
    # A URL's query may name the host too; then the environment's is not asked.
    query = dict(address.query)
    for part in ("host", "port"):
        if getattr(address, part) is None and part not in query and "unix_socket" not in query and part in found:
            query[part] = (found[part].value,)
    if "unix_socket" in found and address.host is None and "unix_socket" not in query:
        query["unix_socket"] = (found["unix_socket"].value,)
    return replace(address, query=query, **changes)


def option_file(settings: Keys, written: str) -> Path:
    """Return MySQL's option file as a path; a relative one is relative to the project folder."""
    return (settings.folder or Path()) / Path(written).expanduser()


def _of_service(service: str, environ: Mapping[str, str]) -> dict[str, Default]:
    """Return a service's values, from the user's file or else from the system's."""
    named = environ.get("PGSERVICEFILE")
    folder = environ.get("PGSYSCONFDIR")
    paths = [Path(named) if named else Path(environ.get("HOME", "~")).expanduser() / ".pg_service.conf"]
    paths += [Path(folder) / "pg_service.conf"] if folder else []
    found = (_read(path, service, _OF_SERVICE) for path in paths)
    return next(filter(None, found), {})


def _read(path: Path, section: str, names: Mapping[str, str]) -> dict[str, Default]:
    """Return the known values of a section; none where the file cannot be read, which the client library tells."""
    try:
        lines = small_files.read(path).decode("utf-8", "replace").splitlines()
    except small_files.Unreadable:
        return {}
    found: dict[str, Default] = {}
    inside = False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("["):
            inside = text == f"[{section}]"
        key, equals, value = text.partition("=")
        part = names.get(key.strip())
        if inside and equals and part is not None and not text.startswith(("#", ";")):
            found[part] = Default(value.strip().strip("\"'"), Location(str(path), number))
    return found


def _text(value: Any) -> str:
    one = value[-1] if isinstance(value, tuple) and value else value
    return one if isinstance(one, str) else ""
