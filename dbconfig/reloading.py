"""A new configuration beside the old one: loaded, proved by a connection, then put in its place as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dbconfig import pool
from dbconfig.errors import ConfigError
from dbconfig.profile import Profile
from dbconfig.sessions import SessionFactory
from dbconfig.settings import DatabaseSettings

Key = tuple[str | None, str]  # profile and database
Profiles = Mapping[str | None, Profile]
Factories = Mapping[Key, SessionFactory]


@dataclass
class Renewal:
    """What is to take the place of what there is."""

    profiles: dict[str | None, Profile]
    factories: dict[Key, SessionFactory] = field(default_factory=dict)
    made: list[Engine] = field(default_factory=list)  # for the new settings
    proofs: list[Engine] = field(default_factory=list)  # only to see whether a connection can be made
    kept: list[Engine] = field(
        default_factory=list
    )  # the settings are the same: connections are replaced, not the engine
    retired: list[Engine] = field(default_factory=list)

    def abandon(self) -> None:
        """Close what was made for nothing."""
        for engine in (*self.made, *self.proofs):
            engine.dispose()

    def finish(self) -> None:
        """Let the old connections go, now that the new ones are in use: at once, or when they come back."""
        for engine in self.proofs:
            engine.dispose()
        for engine in self.kept:
            pool.retire(engine, pool.ledger(engine).live())
        for engine in self.retired:
            pool.close_on_return(engine)


def prepare(
    old: tuple[Profiles, Factories],
    profiles: dict[str | None, Profile],
    build: Callable[[Profile, str], SessionFactory],
) -> Renewal:
    """Make and prove what the new profiles mean for each engine that exists.

    Args:
        old: the profiles and the engines that there are.
        profiles: as they were read again.
        build: makes the engine of a database of a profile.

    Raises:
        ConfigError: a new profile lacks something; nothing has changed.
        sqlalchemy.exc.DBAPIError: a new connection cannot be made; nothing has changed.
    """
    renewal = Renewal(profiles)
    done: dict[int, SessionFactory | None] = {}  # by the old engine: it may be known under two names
    try:
        for (name, database), factory in old[1].items():
            if id(factory.engine) not in done:
                before, after = old[0][name].databases[database], profiles[name].databases.get(database)
                done[id(factory.engine)] = _renew(
                    renewal, factory, before, after, partial(build, profiles[name], database)
                )
            new = done[id(factory.engine)]
            if new is not None:
                renewal.factories[name, database] = new
    except BaseException:
        renewal.abandon()
        raise
    return renewal


def _renew(
    renewal: Renewal,
    factory: SessionFactory,
    before: DatabaseSettings,
    after: DatabaseSettings | None,
    build: Callable[[], SessionFactory],
) -> SessionFactory | None:
    if after is None:
        renewal.retired.append(factory.engine)  # the next one who asks is told that there is no such database
        return None
    if before.in_memory and after.in_memory:
        return factory  # another engine would be another database, an empty one
    new = build()
    same = before.means_the_same(after)
    (renewal.proofs if same else renewal.made).append(new.engine)
    _prove(new.engine)
    (renewal.kept if same else renewal.retired).append(factory.engine)
    return factory if same else new


def _prove(engine: Engine) -> None:
    try:
        engine.connect().close()
    except (SQLAlchemyError, ConfigError) as error:
        error.add_note(
            f"dbconfig: reload: {engine.logging_name} cannot be reached with the new configuration; "
            "nothing was changed, and the old one is still in use"
        )
        raise
