"""Limits of generic dialects: keys that need knowledge of the database system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dbconfig.settings import nested_values
from dbconfig.settings.findings import Finding
from dbconfig.settings.keys import Keys, group, system_key
from dbconfig.settings.url_parsing import DatabaseURL

_GROUPS: Final = ("tls", "timeout", "replica", "observability")
_KEYS: Final = ("replicas", "pool_reset", "fast_begin", "paramstyle")
# These have no effect if they are off.
_NOTHING: Final = (None, False, (), "rollback")


def unusable(settings: Keys, address: DatabaseURL) -> Iterator[Finding]:
    """Yield the keys that would have no effect, and the driver's arguments that cannot be data."""
    for key, field in type(settings).model_fields.items():
        if key not in settings.model_fields_set or not (group(field) in _GROUPS or key in _KEYS):
            continue
        value = getattr(settings, key)
        if value in _NOTHING or value == {}:
            continue
        message = f"`{key}` has no effect on {address.backend}: only its SQLAlchemy dialect is known"
        help = "remove it, or use the driver's own `connect_args`"
        yield Finding("not-applicable", message, help, (key,), because=system_key(settings))
    if settings.pool_reset_on_return == "discard":
        message = f"`pool_reset_on_return: discard` has no effect on {address.backend}"
        yield Finding("not-applicable", message, "remove it", ("pool_reset_on_return",))
    if isinstance(settings.host, tuple):
        yield Finding("invalid-value", f"a list of hosts has no effect on {address.backend}", "name one", ("host",))
    yield from nested_values.needs_code(settings)
