"""A new configuration beside the old one: loaded, proved by a connection, then put in its place as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dbconfig.engine import pool
from dbconfig.errors import ConfigError
from dbconfig.sessions.sessionmaker import Readers, SessionFactory
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.password_providers import TIMEOUT, Providers
from dbconfig.settings.profile import Profile

if TYPE_CHECKING:
    from dbconfig.registry.event_loops import Loops

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


class Reloading:
    """What a registry does about secrets that rotate and a configuration that changes."""

    _lock: threading.RLock
    _reloading: threading.Lock
    _providers: Providers
    _given: Profile | None
    _profiles: dict[str | None, Profile]
    _factories: dict[Key, SessionFactory]
    _sessions: dict[str, Any]
    _readers: dict[Key, Readers]
    _loops: Loops | None

    def password_provider(
        self, name: str, function: Callable[[DatabaseSettings], str], *, timeout: float = TIMEOUT
    ) -> None:
        """Let `password: {provider: NAME}` call a function for each new connection.

        Register it before the first use. Installed packages do so by the entry points `dbconfig.password_providers`.

        Args:
            name: as it stands in the profile.
            function: gets the settings of the database, `.address.host`, `.address.username` and so on, and returns
                the password. It is called on a thread of its own, and by several at once.
            timeout: seconds after which the connection attempt fails.
        """
        self._providers.add(name, function, timeout)

    def reload(self) -> None:
        """Read the configuration again and go over to it, without an interruption.

        Every engine in use is made anew and proved by a connection, then all take the place of the old ones at once;
        replicas, and the engines of event loops, follow at their next use.
        Work in progress finishes on its old connection, which closes when it comes back; those at rest close now. Where
        nothing has changed the engine stays, and its connections are replaced: a new password is in use everywhere
        afterwards. A database in memory stays as it is.

        Raises:
            ConfigError: the new configuration cannot be used; nothing has changed.
            sqlalchemy.exc.DBAPIError: a database cannot be reached with it; nothing has changed.
        """
        with self._reloading:
            while True:
                profiles, factories = dict(self._profiles), dict(self._factories)
                renewal = prepare((profiles, factories), self._read_again(profiles), self._build_anew)
                with self._lock:
                    unchanged = self._factories.keys() == factories.keys()  # else somebody has asked for one more
                    if unchanged:
                        self._go_over_to(renewal)
                if unchanged:
                    renewal.finish()
                    return
                renewal.abandon()

    def _go_over_to(self, renewal: Renewal) -> None:
        self._profiles, self._factories = renewal.profiles, renewal.factories
        self._sessions = {key[1]: made.session for key, made in self._factories.items() if not key[0]}
        # Engines for reading, and those of event loops, are made anew by whoever next asks for one.
        renewal.retired += self._reading_engines()
        self._stop_routing()
        self._readers = {}
        if self._loops is not None:
            self._loops.renew()

    def _build_anew(self, profile: Profile, database: str) -> SessionFactory:
        (name, _), settings, label = self._resolved_in(profile, database)
        return self._build(name, database, settings, label)

    def _read_again(self, profiles: Mapping[str | None, Profile]) -> dict[str | None, Profile]:
        if self._given is not None:
            return dict(profiles)
        again = {known.name: self._load(known.name if name else None) for name, known in profiles.items()}
        return {name: again[known.name] for name, known in profiles.items()}

    # What the registry has.

    if TYPE_CHECKING:

        def _load(self, name: str | None) -> Profile: ...
        def _resolved_in(self, profile: Profile, database: str) -> tuple[tuple[str, str], DatabaseSettings, str]: ...
        def _build(self, profile: str, database: str, settings: DatabaseSettings, label: str) -> SessionFactory: ...
        def _reading_engines(self) -> list[Engine]: ...
        def _stop_routing(self) -> None: ...
