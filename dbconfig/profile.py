"""A profile: the settings of all its databases, from explicit sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import PrivateAttr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dbconfig.drivers import backend_of
from dbconfig.errors import BUILT_IN, Location
from dbconfig.settings import CONNECTION_KEYS, DatabaseSettings, Origins
from dbconfig.values import plain

DEFAULT: Final = "default"  # the name of a profile's own database

# Meant for one database system: inherited only by a database of the same one.
_SYSTEM_KEYS: Final = frozenset({"connect_args", "variables", "dialect_options", "isolation_level"})


class Profile(BaseSettings):
    """One environment's settings: the profile's own database, `default`, and further named ones.

    >>> Profile(name="tests", url="sqlite://").databases["default"].in_memory
    True
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    name: str
    databases: dict[str, DatabaseSettings]

    _reason: str = PrivateAttr("")
    _folder: Path | None = PrivateAttr(None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the loader's sources, the environment over the documents; without them only the arguments, never `$NAME`."""
        sources = getattr(init_settings, "init_kwargs", {}).get("sources")
        return tuple(sources) if sources is not None else (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        return expand(data) if isinstance(data, Mapping) else data

    def origin(self, key: str) -> Location:
        """Return where the value in force was written: ``origin("pool_size")``, ``origin("databases.analytics.echo")``."""
        return next(iter(self.layers(key)), BUILT_IN)

    def layers(self, key: str) -> tuple[Location, ...]:
        """Return every place where a key was written, the one in force first."""
        parts = key.split(".")
        name, inside = (parts[1], parts[2:]) if parts[0] == "databases" and len(parts) > 2 else (DEFAULT, parts)
        settings = self.databases.get(name)
        return settings.layers(".".join(inside)) if settings is not None else ()

    @property
    def reason(self) -> str:
        """Why this profile was taken: "ENVIRONMENT, environment", "argument" or "default"."""
        return self._reason

    @property
    def folder(self) -> Path | None:
        """The project folder, which holds the configuration folder."""
        return self._folder

    def settle(self, origins: Origins, folder: Path | None, reason: str) -> Self:
        """Note where the values came from; called once, by the loader, before anybody else has the profile."""
        self._folder, self._reason = folder, reason
        for name, database in self.databases.items():
            database.settle(origins, () if name == DEFAULT else ("databases", name), folder)
        return self


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat form of a profile, keys of its own database beside `databases`, as databases that inherit engine options."""
    own = {key: value for key, value in data.items() if key not in ("name", "databases")}
    named = data.get("databases") or {}
    if not isinstance(named, Mapping) or not all(
        isinstance(each, (Mapping, DatabaseSettings)) for each in named.values()
    ):
        return {"name": data.get("name"), "databases": named}
    if data.get("name") == "production":
        own.setdefault("protected", True)
    # A profile may consist of named databases only; then there is no `default`.
    databases: dict[str, Any] = (
        {DEFAULT: own} if DEFAULT not in named and (own.keys() & CONNECTION_KEYS or not named) else {}
    )
    for name, each in named.items():
        if isinstance(each, DatabaseSettings):
            databases[name] = each
            continue
        same = _system(own) == _system(each)
        inherited = {
            key: value for key, value in own.items() if key not in CONNECTION_KEYS and (same or key not in _SYSTEM_KEYS)
        }
        databases[name] = {**inherited, **each}
    return {"name": data.get("name"), "databases": databases}


def _system(data: Mapping[str, Any]) -> str:
    written = str(plain(data.get("drivername") or data.get("url") or ""))
    try:
        return backend_of(written.partition("://")[0])
    except ValueError:
        return ""
