"""Databases for tests: who may have one, made beside the profile's own, cleaned between tests, dropped at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine

from dbconfig.config.protected_databases import protected_elsewhere
from dbconfig.engine import create_tables
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.integrations.testing.baseline import Baseline
from dbconfig.integrations.testing.databases import Options, Place
from dbconfig.registry.registry import Registry
from dbconfig.sessions.model_databases import Homes
from dbconfig.sessions.sessionmaker import Readers, SessionFactory
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.profile import DEFAULT, Profile

if TYPE_CHECKING:
    from dbconfig.sessions.sessionmaker import AsyncReaders, AsyncSessionFactory

Setup = Callable[[Engine], object]

_FOR_TESTS: Final = re.compile(r"(^|[_-])(tests?|testing|ci)([_-]|$)", re.IGNORECASE)


def refuse_unless_for_tests(registry: Registry, options: Options) -> None:
    """Raise what is wrong with using the registry's profile for tests, which lose its data.

    Raises:
        ConfigError: a database of it is protected, here or by another profile, or the profile is not meant for tests.
    """
    profile = registry.profile
    help = "run with ENVIRONMENT=testing, or name a profile for tests in pytest's configuration: db_profile = testing"
    for name, settings in profile.databases.items():
        shown = profile.name if name == DEFAULT else f"{profile.name}/{name}"
        if settings.protected:
            message = f"tests are refused: profile {quoted(shown)} is protected"
            raise ConfigError([Problem("not-for-tests", message, settings.origin("protected"), "protected", help)])
        owner = _protected_by_another(registry, settings)
        if owner:
            message = (
                f"tests are refused: {quoted(shown)} points at the database of {quoted(owner)}, which is protected"
            )
            raise ConfigError([Problem("not-for-tests", message, settings.origin("url"), "url", help)])
    in_memory = all(settings.in_memory for settings in profile.databases.values())
    if not (options.chosen or in_memory or _FOR_TESTS.search(profile.name)):
        message = (
            f"tests are refused: profile {quoted(profile.name)} is not meant for them, its name has no 'test' in it"
        )
        raise ConfigError([Problem("not-for-tests", message, help=help, notes=(f"it was chosen by {profile.reason}",))])


def _protected_by_another(registry: Registry, settings: DatabaseSettings) -> str:
    if registry._given is not None:
        return ""  # made in code: there are no other profiles beside it
    return protected_elsewhere(
        registry.profile, settings, destructive=True, path=registry._path, environ=registry._environ()
    )


class Testbed:
    """A registry whose databases are all exchanged for databases of tests; each is made at its first use."""

    __test__ = False

    def __init__(self, registry: Registry, original: Profile, options: Options, setup: Setup | None) -> None:
        self.registry = registry
        self._original = original
        self._options = options
        self._setup = setup
        self._baselines: dict[str, Baseline] = {}
        self._made: list[Place] = []

    def engine(self, database: str = DEFAULT) -> Engine:
        """Return the engine of a database, which exists and has its tables."""
        self.prepare(database)
        return self.registry.engine(database)

    def factory(self, database: str) -> SessionFactory:
        """Return what makes the sessions of a database, which exists and has its tables."""
        self.prepare(database)
        return self.registry._factory(database, None)

    def async_factory(self, database: str) -> AsyncSessionFactory:
        """Return what makes the asynchronous sessions of a database in the running loop."""
        self.prepare(database)
        return self.registry._async_factory(database, None)

    def needed(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the databases that a test needs which names some: with tables bound, a session may use them all."""
        homes = [DEFAULT, *self.registry._homes.names()] if self.registry._homes else []
        return tuple(dict.fromkeys([*names, *homes]))

    def homes_of(self, database: str) -> Homes | None:
        """Return which table lives where, for sessions of this database that serve several."""
        return self.registry._homes if self.registry._homes and database == DEFAULT else None

    @contextmanager
    def overridden(self, makers: Mapping[str, tuple[SessionFactory, Readers]]) -> Iterator[Registry]:
        """Let the registry make its sessions with other factories for a while."""
        registry: Any = self.registry
        kept = dict(registry._factories), dict(registry._sessions), dict(registry._readers)
        for name, (factory, readers) in makers.items():
            registry._sessions[name] = factory.session
            registry._factories[None, name] = registry._factories[registry.profile.name, name] = factory
            registry._readers[None, name] = registry._readers[registry.profile.name, name] = readers
        # The tables are there; on SQLite the lock to look for them would have to wait for the test's own transaction.
        registry.create_tables = lambda *models, database=DEFAULT: []
        try:
            yield registry
        finally:
            registry.__dict__.pop("create_tables", None)
            registry._factories, registry._sessions, registry._readers = kept

    @contextmanager
    def async_overridden(self, makers: Mapping[str, tuple[AsyncSessionFactory, AsyncReaders]]) -> Iterator[None]:
        """Do the same in the running loop."""
        assert self.registry._loops is not None
        loop = self.registry._loops.of_this_loop
        registry: Any = self.registry
        for name, (factory, readers) in makers.items():
            loop.overrides[None, name] = loop.overrides[registry.profile.name, name] = factory
            loop.reading_overrides[None, name] = loop.reading_overrides[registry.profile.name, name] = readers
        registry.create_tables = lambda *models, database=DEFAULT: []
        try:
            yield
        finally:
            registry.__dict__.pop("create_tables", None)
            loop.overrides.clear()
            loop.reading_overrides.clear()

    def prepare(self, database: str = DEFAULT) -> None:
        if database in self._baselines:
            return
        engine = self.registry.engine(database)
        place = Place.of(self._original.databases[database], self._options)
        if place.make(lambda: self._set_up(database)):
            self._made.append(place)
        self._baselines[database] = Baseline.of(engine)

    def _set_up(self, database: str) -> None:
        engine = self.registry.engine(database)
        self._create_tables(database)
        if not engine.url.query.get("vfs"):
            engine.dispose()  # a template may have no connections

    def _create_tables(self, database: str) -> None:
        engine = self.registry.engine(database)
        if self._setup is not None:
            self._setup(engine)
        elif self.registry._homes:
            create_tables.create(engine, self.registry._by_home((), DEFAULT).get(database, ()))
        else:
            create_tables.create(engine, ())

    def clean(self, database: str = DEFAULT) -> None:
        """Take back what was committed: rows, and tables that were not there before."""
        baseline = self._baselines.get(database)
        if baseline is not None and not baseline.restore(self.registry.engine(database)):
            self._create_tables(database)

    def clean_all(self) -> None:
        for database in self._baselines:
            self.clean(database)

    def close(self) -> None:
        self.registry.dispose()
        if not self._options.reuse:
            for place in self._made:
                place.drop()


@contextmanager
def opened(registry: Registry, options: Options, setup: Setup | None) -> Iterator[Testbed]:
    """Let a registry use databases for tests for a while."""
    refuse_unless_for_tests(registry, options)
    original, given = registry.profile, registry._given
    exchanged = {name: Place.of(each, options).settings for name, each in original.databases.items()}
    registry.dispose()
    # Kept for the whole run: an application that disposes at its end would come back to the profile's own database.
    registry._given = original.model_copy(update={"databases": exchanged})
    registry._forget()
    registry._pinned = True
    bed = Testbed(registry, original, options, setup)
    try:
        yield bed
    finally:
        registry._pinned = False
        bed.close()
        registry._given = given
        registry._forget()
