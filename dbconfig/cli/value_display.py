"""Values for display: without secrets, and with only known harmless parameters of a URL's query."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from dbconfig.errors.light_dataclass import replace
from dbconfig.errors.problem import BUILT_IN, Location
from dbconfig.errors.redaction import MASK, PLAIN_PARAMETERS, is_secret_name
from dbconfig.settings import durations
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.key_kinds import kind
from dbconfig.settings.loaded_profile import DEFAULT
from dbconfig.settings.replicas import NOT_FOR_REPLICA
from dbconfig.settings.secret_sources import Secret
from dbconfig.settings.url_parsing import DatabaseURL

# By their type, so that a new setting is shown as the others are.
_DURATIONS: Final = frozenset(
    key for key, field in DatabaseSettings.model_fields.items() if kind(field).startswith("seconds")
)


def address(value: DatabaseURL) -> str:
    """Return a URL without its secrets."""
    return str(masked(value))


def masked(value: DatabaseURL) -> DatabaseURL:
    query = {name: found if name in PLAIN_PARAMETERS else (MASK,) for name, found in value.query.items()}
    return replace(value, query=query)


def settings_address(settings: DatabaseSettings) -> str:
    """Return the address of a database as one URL."""
    return address(settings.address)


def plain(value: Any) -> Any:
    """Return a setting's value for JSON, without secrets."""
    if isinstance(value, DatabaseURL):
        return address(value)
    if isinstance(value, Secret):
        return value.masked()
    if isinstance(value, Mapping):
        return {key: MASK if is_secret_name(key) else plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def setting(settings: DatabaseSettings, key: str) -> Any:
    """Return the value of a setting for JSON, without secrets."""
    value = getattr(settings, key)
    if key == "replicas":
        return [replica(settings, number) for number in range(len(settings.replicas))]
    if key == "query":
        return plain(masked(DatabaseURL("", query=value)).query)
    return plain(value)


def replica(primary: DatabaseSettings, number: int) -> dict[str, Any]:
    """Return how a replica differs from its primary."""
    own = primary.replicas[number]
    keys = [key for key in type(own).model_fields if key not in NOT_FOR_REPLICA and own.origin(key) != BUILT_IN]
    values = {key: setting(own, key) for key in keys}
    inherited = {key: setting(primary, key) for key in keys if hasattr(primary, key)}
    differ = {key: value for key, value in values.items() if key not in inherited or value != inherited[key]}
    return {key: value for key, value in differ.items() if value is not None}  # a URL that is replaced by its parts


def replica_place(primary: DatabaseSettings, number: int) -> str:
    """Return where a replica was written: the location of the keys that it does not share with its primary."""
    own = primary.replicas[number]
    for key in (*replica(primary, number), "url", "drivername"):
        if own.origin(key) != BUILT_IN:
            return place(own.origin(key))
    return place(primary.origin("replicas"))


def text(value: Any, key: str = "") -> str:
    """Return a value as YAML."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return durations.written(value) if key in _DURATIONS else f"{value:g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def pool(settings: DatabaseSettings) -> str:
    """Return the pool in a few words."""
    if settings.in_memory and settings.poolclass is None:
        return "in memory"
    if settings.poolclass is not None and settings.poolclass != "QueuePool":
        return settings.poolclass
    size = str(settings.pool_size) if settings.pool_size else "unlimited"
    return f"{size} + {settings.max_overflow if settings.max_overflow >= 0 else 'unlimited'}"


def place(location: Location) -> str:
    """Return where a value was written, without the column."""
    if location.line is not None and not location.variable:
        return f"{location.source}:{location.line}"
    return str(location)


def key_path(database: str, key: str) -> str:
    return key if database == DEFAULT else f"databases.{database}.{key}"
