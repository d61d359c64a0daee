"""A profile as loaded; `Profile` is the application's view of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.errors.problem import BUILT_IN, Location, Problem
from dbconfig.settings import shards
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.keys import CONNECTION_KEYS, FOR_PROFILE, Origins
from dbconfig.settings.known_drivers import backend_of, family
from dbconfig.settings.replicas import switched_off
from dbconfig.settings.value_types import plain

DEFAULT: Final = "default"  # the name of a profile's own database

# Specific to a database system: inherited only by databases of the same one.
_SYSTEM_KEYS: Final = frozenset(
    {"connect_args", "variables", "dialect_options", "isolation_level", "pgbouncer"}
    | {"sslmode", "sslrootcert", "sslcert", "sslkey"}
)


class AnyProfile:
    """The methods shared by the loader's and the application's profile."""

    if TYPE_CHECKING:
        name: str
        databases: dict[str, DatabaseSettings]
        _reason: str
        _folder: Path | None
        _sources: tuple[str, ...]
        _shards: dict[str, tuple[str, ...]]

        def with_databases(self, databases: dict[str, DatabaseSettings]) -> Self:
            """Return the same profile with other databases."""

    def database(self, name: str) -> DatabaseSettings:
        """Return the settings of a database.

        Raises:
            ConfigError: the profile has no database with this name.
        """
        found = self.databases.get(name)
        if found is not None:
            return found
        if name in self._shards:
            names = ", ".join(self._shards[name])
            message = f"{quoted(name)} is divided into shards, and none was chosen"
            help = f"name one, as in db.session({name!r}, shard={self._shards[name][0]!r})"
            raise ConfigError([Problem("no-shard", message, help=help, notes=(f"shards: {names}",))])
        help = did_you_mean(suggest(name, self.databases)) or _ways_to(name, self.databases)
        message = f"profile {quoted(self.name)} has no database {quoted(name)}"
        notes = (f"databases: {', '.join(self.databases)}",)
        raise ConfigError([Problem("unknown-database", message, help=help, notes=notes)])

    def shards(self, name: str = DEFAULT) -> tuple[str, ...]:
        """Return the names of the shards of a database; () if it is not divided."""
        return self._shards.get(name, ())

    @property
    def divided(self) -> tuple[str, ...]:
        """The databases that are divided into shards."""
        return tuple(self._shards)

    def shard(self, name: str, shard: str) -> str:
        """Return the name of a shard among the databases.

        Raises:
            ConfigError: the database has no such shard.
        """
        found = shards.named(name, shard)
        if found in self.databases:
            return found
        known = self._shards.get(name, ())
        notes = (f"shards: {', '.join(known)}",) if known else ()
        help = did_you_mean(suggest(shard, known)) or "name it under `shards:`"
        message = f"database {quoted(name)} has no shard {quoted(shard)}"
        raise ConfigError([Problem("unknown-shard", message, help=help, notes=notes)])

    def origin(self, key: str) -> Location:
        """Return where the effective value of a key was written: "pool_size", or "databases.analytics.echo"."""
        return next(iter(self.layers(key)), BUILT_IN)

    def layers(self, key: str) -> tuple[Location, ...]:
        """Return every place where a key was written, the effective one first."""
        parts = key.split(".")
        name, inside = (parts[1], parts[2:]) if parts[0] == "databases" and len(parts) > 2 else (DEFAULT, parts)
        settings = self.databases.get(name)
        return settings.layers(".".join(inside)) if settings is not None else ()

    @property
    def reason(self) -> str:
        """Why this profile was selected: "ENVIRONMENT, environment", "argument", or "default"."""
        return self._reason

    @property
    def folder(self) -> Path | None:
        """The project folder, which holds the configuration folder."""
        return self._folder

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that its values were read from."""
        return self._sources

    def settle(self, origins: Origins, folder: Path | None, reason: str) -> Self:
        """Record where the values came from; called once by the loader, before the profile is shared."""
        self._folder, self._reason = folder, reason
        places = [place for found in origins.values() for place in found if place.line is not None]
        self._sources = tuple(dict.fromkeys(place.source for place in places))
        for name, database in self.databases.items():
            database.settle(origins, () if name == DEFAULT else ("databases", name), folder)
        return self


class LoadedProfile(AnyProfile):
    """A profile loaded from files.

    It is not a `Profile`, which needs pydantic-settings, whose import takes a tenth of the startup time of a process.
    """

    def __init__(self, name: str, databases: dict[str, DatabaseSettings]) -> None:
        self.name, self.databases = name, databases
        self._reason: str = ""
        self._folder: Path | None = None
        self._sources: tuple[str, ...] = ()
        self._shards = shards.grouped(databases)

    def with_databases(self, databases: dict[str, DatabaseSettings]) -> Self:
        made = type(self)(self.name, databases)
        made._reason, made._folder, made._sources = self._reason, self._folder, self._sources
        made._shards = self._shards
        return made


def _ways_to(name: str, known: Iterable[str]) -> str:
    """Return the remedy for a database that a profile lacks."""
    if name != DEFAULT:
        return "name it under `databases:`"
    ways = " or ".join(f"db.session({each!r})" for each in known)
    return f"name one, as in {ways}; or write `url:` at the top of the file, which makes it the profile's default"


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat form of a profile, its own database's keys beside `databases`, as databases that inherit."""
    own = {key: value for key, value in data.items() if key not in ("name", "databases")}
    named = data.get("databases") or {}
    if not isinstance(named, Mapping) or not all(
        isinstance(each, (Mapping, DatabaseSettings)) for each in named.values()
    ):
        return {"name": data.get("name"), "databases": named}
    own = {**FOR_PROFILE.get(str(data.get("name")), {}), **own}
    named = shards.unfolded(named)
    if isinstance(own.get(shards.KEY), Mapping) and DEFAULT not in named:
        parts = shards.unfolded({DEFAULT: {key: each for key, each in own.items() if key in CONNECTION_KEYS}})
        if DEFAULT not in parts:
            named = {**parts, **named}
            own = {key: each for key, each in own.items() if key not in CONNECTION_KEYS}
    # A profile may consist of named databases only; then there is no `default`.
    databases: dict[str, Any] = (
        {DEFAULT: own} if DEFAULT not in named and (own.keys() & CONNECTION_KEYS - {"replicas"} or not named) else {}
    )
    for name, each in named.items():
        if isinstance(each, DatabaseSettings):
            databases[name] = each
            continue
        # If the profile has no own database, its options apply to the named ones.
        same = _system(own) in ("", _system(each))
        inherited = {
            key: value for key, value in own.items() if key not in CONNECTION_KEYS and (same or key not in _SYSTEM_KEYS)
        }
        databases[name] = {**inherited, **each}
        if "replicas" in own and switched_off(own["replicas"]):
            databases[name]["replicas"] = ()  # DBCONFIG_REPLICAS=off is for an emergency, and for all databases
    return {"name": data.get("name"), "databases": databases}


def _system(data: Mapping[str, Any]) -> str:
    written = str(plain(data.get("drivername") or data.get("url") or ""))
    if not written:
        return ""  # the system "" would be searched for in the entry points of every installed package
    try:
        return family(backend_of(written.partition("://")[0]))
    except ValueError:
        return ""
