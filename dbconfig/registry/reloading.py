"""Reload: load a new configuration, test it with a connection, then replace the old one as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dbconfig.engine import pool
from dbconfig.errors import ConfigError
from dbconfig.errors.light_dataclass import dataclass, field
from dbconfig.registry.engines import ProcessEngines
from dbconfig.registry.profiles import Profiles
from dbconfig.registry.styles import Key
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import AnyProfile

if TYPE_CHECKING:
    from dbconfig.registry.event_loops import EventLoops


@dataclass()
class Renewal:
    """The replacement for the current engines and profiles."""

    profiles: dict[str | None, AnyProfile]
    engines: dict[Key, Engine] = field(default_factory=dict)
    made: list[Engine] = field(default_factory=list)  # for the new settings
    proofs: list[Engine] = field(default_factory=list)  # only to test that a connection can be opened
    kept: list[Engine] = field(
        default_factory=list
    )  # the settings are the same: connections are replaced, not the engine
    retired: list[Engine] = field(default_factory=list)

    def abandon(self) -> None:
        """Close the new engines if the reload has failed."""
        for engine in (*self.made, *self.proofs):
            engine.dispose()

    def finish(self) -> None:
        """Close the old connections, now that the new ones are in use: immediately, or when they are returned."""
        for engine in self.proofs:
            engine.dispose()
        for engine in self.kept:
            pool.retire(engine, pool.ledger(engine).live())
        for engine in self.retired:
            pool.close_on_return(engine)


def prepare(
    old: Mapping[str | None, AnyProfile],
    engines: Mapping[Key, Engine],
    profiles: dict[str | None, AnyProfile],
    build: Callable[[AnyProfile, str], Engine],
) -> Renewal:
    """Create and test the new engine for each existing one.

    Args:
        old: the current profiles.
        engines: the current engines, by the names of profile and database.
        profiles: the reloaded profiles.
        build: creates the engine of a database of a profile.

    Raises:
        ConfigError: a new profile lacks something; nothing has changed.
        sqlalchemy.exc.DBAPIError: a new connection cannot be opened; nothing has changed.
    """
    renewal = Renewal(profiles)
    try:
        for (name, database), engine in engines.items():
            before, after = old[name].databases[database], profiles[name].databases.get(database)
            new = _renew(renewal, engine, before, after, partial(build, profiles[name], database))
            if new is not None:
                renewal.engines[name, database] = new
    except BaseException:
        renewal.abandon()
        raise
    return renewal


def _renew(
    renewal: Renewal,
    engine: Engine,
    before: DatabaseSettings,
    after: DatabaseSettings | None,
    build: Callable[[], Engine],
) -> Engine | None:
    if after is None:
        renewal.retired.append(engine)  # the next use raises an error that the database does not exist
        return None
    if before.in_memory and after.in_memory:
        return engine  # another engine would be another database, an empty one
    new = build()
    same = before.means_the_same(after)
    (renewal.proofs if same else renewal.made).append(new)
    _prove(new)
    (renewal.kept if same else renewal.retired).append(engine)
    return engine if same else new


def _prove(engine: Engine) -> None:
    try:
        engine.connect().close()
    except (SQLAlchemyError, ConfigError) as error:
        error.add_note(
            f"dbconfig: reload: {engine.logging_name} cannot be reached with the new configuration; "
            "nothing was changed, and the old one is still in use"
        )
        raise


class Reload:
    """Reads a registry's configuration again and switches to it, one caller at a time."""

    def __init__(self, profiles: Profiles, engines: ProcessEngines) -> None:
        self._profiles = profiles
        self._engines = engines
        self.forget_callers()

    def forget_callers(self) -> None:
        """In a forked child: the thread that reloads is the parent's."""
        self._turn = threading.Lock()

    def run(self, loops: Callable[[], EventLoops | None]) -> None:
        profiles, engines = self._profiles, self._engines
        with self._turn:
            while True:
                known, opened = profiles.known(), engines.opened()
                renewal = prepare(known, opened, profiles.read_again(known), self._build)
                with profiles.lock:
                    unchanged = engines.opened().keys() == opened.keys()  # else another reload was requested
                    if unchanged:
                        self._go_over_to(renewal, loops())
                if unchanged:
                    renewal.finish()
                    return
                renewal.abandon()

    def _build(self, profile: AnyProfile, database: str) -> Engine:
        return self._engines.build(self._profiles.resolve_in(profile, database))

    def _go_over_to(self, renewal: Renewal, loops: EventLoops | None) -> None:
        self._profiles.replace(renewal.profiles)
        # Engines for reading, and those of event loops, are recreated at their next use.
        renewal.retired += self._engines.replace(renewal.engines)
        for engine in (*renewal.retired, *renewal.proofs):
            self._engines.retire(engine)
        if loops is not None:
            loops.renew()
