"""Defaults of client libraries for an address: PGHOST and similar variables, service files, MySQL's option files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import dataclass, field, replace
from dbconfig.errors.problem import Location
from dbconfig.settings import small_files
from dbconfig.settings.environment_variables import process
from dbconfig.settings.keys import Keys
from dbconfig.settings.known_drivers import family
from dbconfig.settings.url_assembly import compose
from dbconfig.settings.url_parsing import DatabaseURL

OPTION_FILE: Final = "read_default_file"  # PyMySQL's name, shared by its forks and mysqlclient
_OPTION_GROUP: Final = "read_default_group"

# https://www.postgresql.org/docs/current/libpq-envars.html
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "username": "PGUSER",
    "database": "PGDATABASE",
    "options": "PGOPTIONS",
}
# Variables that libpq turns into session parameters; they override its `options`.
SESSION: Final = {
    "PGAPPNAME": "application_name",
    "PGTZ": "timezone",
    "PGDATESTYLE": "datestyle",
    "PGGEQO": "geqo",
}
_OF_SERVICE: Final = {"host": "host", "port": "port", "user": "username", "dbname": "database", "options": "options"}
_OF_OPTION_FILE: Final = {
    "host": "host",
    "port": "port",
    "user": "username",
    "database": "database",
    "socket": "unix_socket",
}


# How libpq and asyncpg name the setting that they reject.
_PARAMETER: Final = late_pattern(r'parameter "([\w.]+)"')
_ABOUT_SERVICE: Final = "service"
_SETTING: Final = late_pattern(
    r'invalid "?([a-z_]+)"? value: |connection option "([a-z_]+)"|`(\w+)` parameter must be|^(\w+) is expected to be'
)


@dataclass(frozen=True, slots=True)
class Default:
    """A value that the profile does not set, and where the client library finds it."""

    value: str = field(repr=False)  # a service may have a password
    location: Location


def defaults(settings: Keys, environ: Mapping[str, str] | None = None) -> dict[str, Default]:
    """Return the parts of an address, and `options`, that the client library reads from elsewhere; never a secret."""
    address, environ = compose(settings), variables(environ)
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
    named = service_of(settings, environ)
    lines = (service(named, environ) if named else None) or {}
    return {**found, **{_OF_SERVICE[name]: one for name, one in lines.items() if name in _OF_SERVICE}}  # asked first


def completed(settings: Keys, environ: Mapping[str, str] | None = None) -> DatabaseURL:
    """Return the address with what the client library adds to it."""
    address, found = compose(settings), defaults(settings, environ)
    changes: dict[str, Any] = {}
    for part in ("username", "database"):
        if getattr(address, part) is None and part in found:
            changes[part] = found[part].value
    # A URL's query may set the host too; then the environment's is not used.
    query = dict(address.query)
    for part in ("host", "port"):
        if getattr(address, part) is None and part not in query and "unix_socket" not in query and part in found:
            query[part] = (found[part].value,)
    if "unix_socket" in found and address.host is None and "unix_socket" not in query:
        query["unix_socket"] = (found["unix_socket"].value,)
    return replace(address, query=query, **changes)


def option_file(settings: Keys, written: str) -> Path:
    """Return the path of MySQL's option file; a relative one is relative to the project folder."""
    return (settings.folder or Path()) / Path(written).expanduser()


def variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Return the variables that a client library reads."""
    return process() if environ is None else environ


def is_written(settings: Keys, name: str) -> bool:
    """Whether a URL's query or `connect_args` have a parameter."""
    return name in compose(settings).query or name in settings.connect_args


def is_left_open(settings: Keys, part: str) -> bool:
    """Whether the profile leaves a part of the address, by its key, to the client library."""
    if part not in ("host", "port", "username", "database"):
        return False
    written = is_written(settings, part) or (part == "port" and is_written(settings, "host"))
    return not written and getattr(compose(settings), part) is None


def refused_setting(
    settings: Keys, words: str, environ: Mapping[str, str] | None = None
) -> tuple[str, Location | None] | None:
    """Return the setting that PostgreSQL's client rejects in this text, and its location outside the profile."""
    environ = variables(environ)
    service_ = service_of(settings, environ)
    lines = (service(service_, environ) if service_ else None) or {}
    name, variable = "service", "PGSERVICE"
    if _ABOUT_SERVICE not in words:
        found = _SETTING.search(words)
        if found is None:
            return None
        name = next(part for part in found.groups() if part)
        variable = f"PG{name.replace('_', '').upper()}"
    if is_written(settings, name):
        return name, None
    if name in lines:
        return name, lines[name].location
    return name, Location("environment", variable=variable) if environ.get(variable) else None


def tls_word(settings: Keys, name: str, environ: Mapping[str, str] | None = None) -> Location | None:
    """Return where PostgreSQL's client finds `sslmode` or a similar parameter that the profile does not set."""
    environ = variables(environ)
    if family(compose(settings).backend) != "postgresql" or is_written(settings, name):
        return None
    service_ = service_of(settings, environ)
    lines = (service(service_, environ) if service_ else None) or {}
    if name in lines:
        return lines[name].location
    variable = f"PG{name.upper()}"
    return Location("environment", variable=variable) if environ.get(variable) else None


def session_parameter(
    settings: Keys, words: str, environ: Mapping[str, str] | None = None
) -> tuple[str, Location] | None:
    """Return the session parameter that the server's text mentions, and where PostgreSQL's client finds it."""
    found = _PARAMETER.search(words)
    if found is None or family(compose(settings).backend) != "postgresql":
        return None
    name, environ = found[1].lower(), variables(environ)
    for variable, parameter in {**SESSION, "PGCLIENTENCODING": "client_encoding"}.items():
        if parameter == name and environ.get(variable):
            return parameter, Location("environment", variable=variable)
    options = defaults(settings, environ).get("options")
    return (name, options.location) if options is not None and name in options.value.lower() else None


def service_of(settings: Keys, environ: Mapping[str, str] | None = None) -> str:
    """Return the name of the requested PostgreSQL service, or ""."""
    given = {**compose(settings).query, **settings.connect_args}
    return _text(given.get("service")) or variables(environ).get("PGSERVICE", "")


def service(name: str, environ: Mapping[str, str] | None = None) -> dict[str, Default] | None:
    """Return a service's lines, from the user's file or else from the system's; None if neither has it."""
    environ = variables(environ)
    file = environ.get("PGSERVICEFILE")
    folder = environ.get("PGSYSCONFDIR")
    paths = [Path(file) if file else Path(environ.get("HOME", "~")).expanduser() / ".pg_service.conf"]
    paths += [Path(folder) / "pg_service.conf"] if folder else []
    found = (_section(path, name) for path in paths)
    return next((lines for lines in found if lines is not None), None)


def _read(path: Path, section: str, names: Mapping[str, str]) -> dict[str, Default]:
    found = _section(path, section) or {}
    return {names[key]: Default(one.value.strip("\"'"), one.location) for key, one in found.items() if key in names}


def _section(path: Path, section: str) -> dict[str, Default] | None:
    """Return the lines of a section; None if it or the file is missing, which the client library reports."""
    try:
        lines = small_files.read(path).decode("utf-8", "replace").splitlines()
    except small_files.Unreadable:
        return None
    found: dict[str, Default] | None = None
    inside = False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("["):
            inside = text == f"[{section}]"
            if inside and found is None:
                found = {}
        key, equals, value = text.partition("=")
        if inside and found is not None and equals and not text.startswith(("#", ";", "[")):
            found[key.strip()] = Default(value.strip(), Location(str(path), number))
    return found


def _text(value: Any) -> str:
    one = value[-1] if isinstance(value, tuple) and value else value
    return one if isinstance(one, str) else ""
