"""Which shard a context works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from dbconfig.settings.loaded_profile import AnyProfile

# By registry and database, "" for all databases that have such a shard. Never written into.
_chosen: ContextVar[Mapping[tuple[int, str], str]] = ContextVar("dbconfig.shards", default={})  # noqa: B039


@contextmanager
def on(registry: int, profile: AnyProfile, shard: str, database: str | None) -> Iterator[None]:
    """Let a context work on a shard; tasks that are started within it do so too.

    Raises:
        ConfigError: no database, or not the one that is named, has such a shard.
    """
    if database is not None:
        profile.shard(database, shard)
    elif not any(shard in profile.shards(name) for name in profile.divided):
        profile.shard(next(iter(profile.divided), "default"), shard)  # which says why not
    before = _chosen.get()
    added = (registry, database or "")
    # What an outer block says of one database must not survive an inner one that speaks of all.
    kept = {key: value for key, value in before.items() if database is not None or key[0] != registry}
    _chosen.set({**kept, added: shard})
    try:
        yield
    finally:
        # Not by a token, which only the context that made it takes back.
        _chosen.set(before)


def resolved(registry: int, profile: AnyProfile, database: str) -> str:
    """Return the database that a name means here: of one that is divided, the shard that the context has chosen.

    Where none was chosen it is the name itself, which the profile refuses.
    """
    known = profile.shards(database)
    if not known:
        return database
    chosen = _chosen.get()
    shard = chosen.get((registry, database)) or chosen.get((registry, ""))
    return database if shard is None else profile.shard(database, shard)


def spread(registry: int, profile: AnyProfile, database: str) -> list[str]:
    """Return the databases that are to be worked on one after another: every shard where none was chosen."""
    found = resolved(registry, profile, database)
    known = profile.shards(found)
    return [profile.shard(found, shard) for shard in known] or [found]
