"""The shard selected in a context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from dbconfig.settings.loaded_profile import AnyProfile

# By registry and database, "" for all databases that have such a shard. Never modified in place.
_chosen: ContextVar[Mapping[tuple[int, str], str]] = ContextVar("dbconfig.shards", default={})  # noqa: B039


@contextmanager
def on(registry: int, profile: AnyProfile, shard: str, database: str | None) -> Iterator[None]:
    """Select a shard for a context, and for tasks started within it.

    Raises:
        ConfigError: no database, or not the named one, has this shard.
    """
    if database is not None:
        profile.shard(database, shard)
    elif not any(shard in profile.shards(name) for name in profile.divided):
        profile.shard(next(iter(profile.divided), "default"), shard)  # which raises the error
    before = _chosen.get()
    added = (registry, database or "")
    # An outer block's choice for one database must not override an inner block's choice for all.
    kept = {key: value for key, value in before.items() if database is not None or key[0] != registry}
    _chosen.set({**kept, added: shard})
    try:
        yield
    finally:
        # Not with a token, which can be reset only in the context that created it.
        _chosen.set(before)


def resolved(registry: int, profile: AnyProfile, database: str) -> str:
    """Return the database for a name in this context: the selected shard, if the database is divided.

    If none was selected, it is the name itself, which the profile rejects.
    """
    known = profile.shards(database)
    if not known:
        return database
    chosen = _chosen.get()
    shard = chosen.get((registry, database)) or chosen.get((registry, ""))
    return database if shard is None else profile.shard(database, shard)


def spread(registry: int, profile: AnyProfile, database: str) -> list[str]:
    """Return the databases to process one after another: every shard if none was selected."""
    found = resolved(registry, profile, database)
    known = profile.shards(found)
    return [profile.shard(found, shard) for shard in known] or [found]
