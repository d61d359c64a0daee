"""Databases for tests: who may have one, made beside the profile's own, cleaned between tests, dropped at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from dbconfig.engine import create_tables
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.integrations.testing.baseline import Baseline
from dbconfig.integrations.testing.databases import Options, Place
from dbconfig.registry.registry import Registry
from dbconfig.sessions.model_databases import Homes
from dbconfig.settings.profile import DEFAULT, Profile

if TYPE_CHECKING:
    from dbconfig.sessions.sessionmaker import AsyncSessionFactory, SessionFactory

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
        owner = registry.parts.profiles.protected_elsewhere(settings, destructive=True)
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
        return self.registry.parts.engines.factory(database)

    def async_factory(self, database: str) -> AsyncSessionFactory:
        """Return what makes the asynchronous sessions of a database in the running loop."""
        self.prepare(database)
        return self.registry.parts.loops.here().factory(database)

    def needed(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the databases that a test needs which names some: with tables bound, a session may use them all."""
        homes = self.registry.parts.homes
        return tuple(dict.fromkeys([*names, *([DEFAULT, *homes.names()] if homes else [])]))

    def homes_of(self, database: str) -> Homes | None:
        """Return which table lives where, for sessions of this database that serve several."""
        homes = self.registry.parts.homes
        return homes if homes and database == DEFAULT else None

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
        elif self.registry.parts.homes:
            create_tables.create(engine, self.registry.parts.homes.grouped((), DEFAULT).get(database, ()))
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
    original = registry.profile
    exchanged = {name: Place.of(each, options).settings for name, each in original.databases.items()}
    registry.dispose()
    # Kept for the whole run: an application that disposes at its end would come back to the profile's own database.
    bed = Testbed(registry, original, options, setup)
    try:
        with registry.parts.profiles.exchange(exchanged):
            yield bed
    finally:
        bed.close()
