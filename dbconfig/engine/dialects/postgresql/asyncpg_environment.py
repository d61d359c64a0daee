"""libpq's settings from the environment and from a service file, for asyncpg, which ignores most of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dbconfig.errors import ConfigError, Location, Problem
from dbconfig.errors.printable import quoted
from dbconfig.settings import client_defaults

if TYPE_CHECKING:
    from dbconfig.settings.client_defaults import Default
    from dbconfig.settings.database import DatabaseSettings

# Requirements that asyncpg would not meet, and the values that require nothing:
# https://www.postgresql.org/docs/current/libpq-envars.html
_REFUSED: Final = {
    "PGCHANNELBINDING": ("prefer", "disable"),
    "PGREQUIREAUTH": (),
    "PGREQUIREPEER": (),
    "PGGSSENCMODE": ("prefer", "disable"),
    "PGSSLCERTMODE": ("allow",),
    "PGHOSTADDR": (),
    "PGLOADBALANCEHOSTS": ("disable",),
}
# Parameters of a service: the address, under asyncpg's names; libpq's parameters, which are translated as a URL's are;
# and those that `connect_timeout` of the profile overrides in any case.
_ADDRESS: Final = {"host": "host", "port": "port", "dbname": "database", "user": "user", "passfile": "passfile"}
_WORDS: Final = frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "target_session_attrs"})
# The same parameters as variables; a service overrides them.
_WORD_OF: Final = {
    "PGSSLMODE": "sslmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLCRL": "sslcrl",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
}
_SETTLED: Final = frozenset({"options", "connect_timeout", "client_encoding", "fallback_application_name"})


@dataclass(frozen=True, slots=True)
class Found:
    """Settings from outside the profile, by the place where asyncpg accepts them."""

    address: dict[str, Any] = field(default_factory=dict)
    words: dict[str, Default] = field(default_factory=dict)
    session: dict[str, str] = field(default_factory=dict)
    options: Default | None = None


def look(settings: DatabaseSettings, environ: Mapping[str, str] | None = None) -> Found:
    """Return the settings of the environment and the service, as libpq would use them.

    Raises:
        ConfigError: the service is missing, or a setting is not supported by asyncpg.
    """
    variables = client_defaults.variables(environ)
    problems = [
        _refusal(name, Location("environment", variable=name))
        for name, harmless in _REFUSED.items()
        if variables.get(name) and variables[name] not in harmless
    ]
    found = Found(options=client_defaults.defaults(settings, environ).get("options"))
    found.words.update(_words(variables))
    found.session.update({key: variables[name] for name, key in client_defaults.SESSION.items() if variables.get(name)})
    service = client_defaults.service_of(settings, environ)
    lines = client_defaults.service(service, environ) if service else {}
    if lines is None:
        raise ConfigError([_missing(settings, service)])
    for name, default in lines.items():
        if name in _ADDRESS:
            found.address[_ADDRESS[name]] = _several(name, default)
        elif name in _WORDS:
            found.words[name] = default
        elif name == "application_name":
            found.session[name] = default.value
        elif name not in _SETTLED:
            problems.append(_refusal(name, default.location))
    if problems:
        raise ConfigError(problems)
    given = settings.address
    has: dict[str, Any] = {
        "host": given.host or "host" in given.query,
        "user": given.username,
        "database": given.database,
    }
    has["port"] = has["host"] or given.port or "port" in given.query  # a service's port is that of its host
    for name in [name for name in found.address if has.get(name)]:
        del found.address[name]
    return found


def _words(variables: Mapping[str, str]) -> dict[str, Default]:
    return {
        word: client_defaults.Default(variables[name], Location("environment", variable=name))
        for name, word in _WORD_OF.items()
        if variables.get(name)
    }


def _several(name: str, default: Default) -> Any:
    """Return a value in the form that asyncpg expects: hosts and ports with commas are lists."""
    parts: list[Any] = [part.strip() for part in default.value.split(",")] if name in ("host", "port") else []
    if name == "port":
        if not all(part.isdigit() for part in parts):
            message = f"the port {quoted(default.value)} is not a number"
            raise ConfigError([Problem("invalid-value", message, default.location)])
        parts = [int(part) for part in parts]
    return parts if len(parts) > 1 else parts[0] if parts else default.value


def _refusal(name: str, location: Location) -> Problem:
    help = "psycopg supports libpq's settings, for both kinds of engine: use postgresql+psycopg://"
    if name == "password":
        help = "write it as the key `password`, or into a password file"
    return Problem("not-applicable", f"asyncpg does not support {quoted(name)}", location, help=help)


def _missing(settings: DatabaseSettings, service: str) -> Problem:
    location = next(
        (place for key in ("connect_args", "query") if (place := settings.origin(f"{key}.service")).line),
        settings.origin("url"),
    )
    if not client_defaults.is_written(settings, "service"):
        location = Location("environment", variable="PGSERVICE")
    message = f"the service {quoted(service)} is not defined in any service file"
    return Problem("invalid-value", message, location, help="add it to ~/.pg_service.conf, or set PGSERVICEFILE")
