"""Lifecycle of test databases: permitted profiles, creation, cleanup between tests, and dropping at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import Engine, event

from dbconfig.engine import any_driver, create_tables
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.integrations.testing.baseline import Baseline
from dbconfig.integrations.testing.databases import Options, Place
from dbconfig.registry.registry import Registry
from dbconfig.sessions.model_databases import Homes
from dbconfig.settings.loaded_profile import DEFAULT, AnyProfile

if TYPE_CHECKING:
    from dbconfig.sessions.sessionmaker import AsyncSessionFactory, SessionFactory

T = TypeVar("T")
Setup = Callable[[Engine], object]

_FOR_TESTS: Final = re.compile(r"(^|[_-])(tests?|testing|ci)([_-]|$)", re.IGNORECASE)


def refuse_unless_for_tests(registry: Registry, options: Options) -> None:
    """Raise if the registry's profile must not be used for tests, which destroy its data.

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
        if settings.is_generic and not options.in_place:
            message = f"tests are refused: no database for tests can be created on {settings.backend}"
            hint = "name a database for tests in the profile, and set `db_in_place = true`"
            raise ConfigError([Problem("not-for-tests", message, settings.origin("url"), "url", hint)])
        owner = registry.parts.profiles.protected_elsewhere(settings, destructive=True)
        if owner:
            message = (
                f"tests are refused: {quoted(shown)} points at the database of {quoted(owner)}, which is protected"
            )
            raise ConfigError([Problem("not-for-tests", message, settings.origin("url"), "url", help)])
    in_memory = all(settings.in_memory for settings in profile.databases.values())
    if not (options.chosen or in_memory or _FOR_TESTS.search(profile.name)):
        message = (
            f"tests are refused: profile {quoted(profile.name)} is not a test profile: its name does not contain 'test'"
        )
        raise ConfigError([Problem("not-for-tests", message, help=help, notes=(f"it was chosen by {profile.reason}",))])


class Testbed:
    """A registry whose databases are all replaced with test databases, each created at its first use."""

    __test__ = False

    def __init__(self, registry: Registry, original: AnyProfile, options: Options, setup: Setup | None) -> None:
        self.registry = registry
        self._original = original
        self._options = options
        self._setup = setup
        self._prepared: set[str] = set()
        self._asynchronous: dict[str, any_driver.Database] = {}  # of databases that have no synchronous driver
        self._closing = ExitStack()
        self._baselines: dict[str, Baseline] = {}
        self._made: list[Place] = []
        self._filling = False
        self.early: Mapping[str, Engine] = {}  # engines created earlier, at an application's import

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
        """Return the databases that a test with these names needs: with bound tables, a session may use all of them."""
        homes = self.registry.parts.homes
        return tuple(dict.fromkeys([*names, *([DEFAULT, *homes.names()] if homes else [])]))

    def homes_of(self, database: str) -> Homes | None:
        """Return the database of each table, for sessions of this database that serve several."""
        homes = self.registry.parts.homes
        return homes if homes and database == DEFAULT else None

    def prepare(self, database: str = DEFAULT) -> None:
        if database in self._prepared:
            return
        place = Place.of(self._original.database(database), self._options)
        if place.make(lambda: self._set_up(database)):
            self._made.append(place)
        self._prepared.add(database)
        if not self._filling:
            self._baselines[database] = self._on(database, Baseline.of)

    def fill(self, databases: Iterable[str]) -> None:
        """Create databases now, for fixtures that insert rows for the whole run; `filled` ends that."""
        self._filling = True
        for name in databases:
            if name in self._original.databases:  # the test that uses another one gets the error
                self.prepare(name)

    def filled(self) -> None:
        """Use the current content of the databases as the baseline of each test."""
        if self._filling:
            self._filling = False
            self._baselines |= {name: self._on(name, Baseline.of) for name in self._prepared}

    @contextmanager
    def cleaned(self, databases: Iterable[str]) -> Iterator[Commits]:
        """Clean, at the end, the databases with commits outside the test's connection, or with DDL."""
        commits = Commits()
        for name in databases:
            self.prepare(name)
            if not self.only_asynchronous(name):
                commits.watch(self.registry.engine(name), name)
            if name in self.early:
                commits.watch(self.early[name], name)
        try:
            yield commits
        finally:
            commits.stop()
            for name in commits.databases:
                self.clean(name)

    def only_asynchronous(self, database: str) -> bool:
        """Return whether a database has no synchronous driver."""
        return self.registry.parts.profiles.resolve(database).settings.only_asynchronous()

    def require_synchronous(self, databases: Iterable[str], fixture: str, help: str) -> None:
        """Raise an error that names the fixture to use, if a synchronous one has no driver.

        Raises:
            ConfigError: a database has only an asynchronous driver.
        """
        for name in databases:
            settings = self.registry.parts.profiles.resolve(name).settings
            if settings.only_asynchronous():
                driver = settings.driver(asynchronous=True)
                message = f"`{fixture}` needs a synchronous driver, and {driver} is an asynchronous one"
                raise ConfigError([Problem("async-driver", message, settings.origin("url"), "url", help)])

    def _on(self, database: str, work: Callable[[Engine], T]) -> T:
        """Call a function with a database's engine, with the available driver, and return its result."""
        if not self.only_asynchronous(database):
            return work(self.registry.engine(database))
        if database not in self._asynchronous:
            found, parts = self.registry.parts.profiles.resolve(database), self.registry.parts
            beside = parts.engines.of_memory(found) if found.settings.in_memory else None
            made = any_driver.connected(found.settings, found.label, parts.plan.options, beside=beside)
            self._asynchronous[database] = self._closing.enter_context(made)
        return self._asynchronous[database].call(work)

    def _set_up(self, database: str) -> None:
        def set_up(engine: Engine) -> None:
            self._create_tables(engine, database)
            if not engine.url.query.get("vfs"):
                engine.dispose()  # a template must not have connections

        self._on(database, set_up)

    def _create_tables(self, engine: Engine, database: str) -> None:
        if self._setup is not None:
            self._setup(engine)
        elif self.registry.parts.homes:
            create_tables.create(engine, self.registry.parts.homes.grouped((), DEFAULT).get(database, ()))
        else:
            create_tables.create(engine, ())

    def clean(self, database: str = DEFAULT) -> None:
        """Undo what was committed: rows, and new tables."""
        baseline = self._baselines.get(database)
        if baseline is None:
            return

        def clean(engine: Engine) -> None:
            if not baseline.restore(engine):
                self._create_tables(engine, database)

        self._on(database, clean)

    def clean_all(self) -> None:
        for database in self._baselines:
            self.clean(database)

    def close(self) -> None:
        with self._closing:
            self.registry.dispose()
        if not self._options.reuse:
            for place in self._made:
                place.drop()


class Commits:
    """The databases in which something was committed."""

    def __init__(self) -> None:
        self.databases: set[str] = set()
        self._watched: list[tuple[Engine, Callable[..., None]]] = []

    def watch(self, engine: Engine, database: str) -> None:
        def note(connection: object) -> None:
            self.databases.add(database)

        self._watched.append((engine, note))
        event.listen(engine, "commit", note)

    def stop(self) -> None:
        for engine, note in self._watched:
            event.remove(engine, "commit", note)
        self._watched.clear()


@contextmanager
def opened(registry: Registry, options: Options, setup: Setup | None) -> Iterator[Testbed]:
    """Make a registry use test databases temporarily."""
    refuse_unless_for_tests(registry, options)
    original = registry.profile
    exchanged = {name: Place.of(each, options).settings for name, each in original.databases.items()}
    opened = registry.parts.engines.opened()
    early = {name: engine for (profile, name), engine in opened.items() if profile == original.name}
    registry.dispose()
    # Kept for the whole run: an application that calls dispose() would return to the profile's own database.
    bed = Testbed(registry, original, options, setup)
    bed.early = early
    try:
        with registry.parts.profiles.exchange(exchanged), _redirected(early, registry):
            yield bed
    finally:
        bed.close()


@contextmanager
def _redirected(engines: Mapping[str, Engine], registry: Registry) -> Iterator[None]:
    """Redirect engines that an application created at import to the test databases."""
    kept = [(engine, engine.pool, engine.dialect, engine.url) for engine in engines.values()]
    for name, engine in engines.items():
        tests = registry.engine(name)
        engine.pool, engine.dialect, engine.url = tests.pool, tests.dialect, tests.url
    try:
        yield
    finally:
        for engine, pool, dialect, url in kept:
            engine.pool, engine.dialect, engine.url = pool, dialect, url
