"""The internals of a registry, for the integrations, not for applications."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Engine

from dbconfig.engine import draining, pool
from dbconfig.engine.pool import forks
from dbconfig.engine.pool.facts import facts
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.registry.engines import Engines, ProcessEngines
from dbconfig.registry.profiles import Profiles
from dbconfig.registry.reloading import Reload
from dbconfig.registry.styles import Key, Plan, Threads
from dbconfig.sessions import retry
from dbconfig.sessions.model_databases import Homes
from dbconfig.sessions.session_classes import SQLMODEL, SessionClasses
from dbconfig.settings.shards import SEPARATOR

if TYPE_CHECKING:
    from dbconfig.engine.pool import PoolStats
    from dbconfig.registry.event_loops import EventLoops
    from dbconfig.settings.database import DatabaseSettings

T = TypeVar("T")
_log = logging.getLogger("dbconfig.advice")


TableVerb = Literal["create", "drop"]


def on_tables(verb: TableVerb, engine: Engine, tables: Sequence[Any]) -> list[str]:
    """Create or drop tables; return the names of those that were."""
    from dbconfig.engine import create_tables

    return (create_tables.create if verb == "create" else create_tables.drop)(engine, tables)


class Parts:
    """The profiles, the engines of the process, and those of each event loop."""

    def __init__(self, profiles: Profiles, options: Mapping[str, Any], classes: SessionClasses = SQLMODEL) -> None:
        self.profiles = profiles
        self.plan: Plan = Plan(profiles, options, classes)
        self.homes: Homes = self.plan.homes
        self.engines: ProcessEngines = Engines(self.plan, Threads())
        self.reload: Reload = Reload(profiles, self.engines)
        self.event_loops: EventLoops | None = None  # until the first use
        profiles.forgetting = self._leave_to_the_parent
        forks.guard(profiles)

    @property
    def loops(self) -> EventLoops:
        """The engines of event loops; nothing asynchronous is imported earlier.

        Raises:
            ConfigError: greenlet is not installed.
        """
        if self.event_loops is None:
            self.event_loops = _import_event_loops().EventLoops(self.plan, self.engines)
        return self.event_loops

    @contextmanager
    def join(self, makers: Mapping[str, Callable[[Any], tuple[Any, Any]]]) -> Iterator[None]:
        """Temporarily replace the asynchronous session factories of some databases, in every event loop.

        Args:
            makers: by database; each turns a loop's factory into another one, and into one for read-only sessions.
        """
        name, before = self.profiles.get().name, self.plan.joining
        self._join({**before, **{(name, database): make for database, make in makers.items()}}, 1)
        try:
            yield
        finally:
            self._join(before, -1)

    def _join(self, joining: Mapping[Key, Callable[[Any], tuple[Any, Any]]], change: int) -> None:
        self.plan.joining = joining
        self.plan.overridden += change
        if self.event_loops is not None:
            self.event_loops.forget_sessions()

    def attempts(self, database: str, engine: Any, limit: int | None, timeout: float) -> retry.Attempts:
        """Return the counter of attempts for a unit of work on an engine of either kind."""
        books = pool.ledger_if_any(engine)
        found = retry.Attempts(limit, timeout, f"{self.profiles.get().name}/{database}")
        if books is not None:
            found.told.append(books.count_retry)
        if self.plan.around is not None:
            found.around = self.plan.around
        return found

    def watch(self, look: Callable[[Engine], None]) -> Callable[[], None]:
        """Call a function with every existing and future engine; return a function that ends that."""
        with self.profiles.lock:
            self.plan.watchers = (*self.plan.watchers, look)
            for engine in self.every_engine():
                look(engine)

        def end() -> None:
            self.plan.watchers = tuple(each for each in self.plan.watchers if each is not look)

        return end

    def every_engine(self) -> list[Engine]:
        """Return every engine in use; for those of event loops, the synchronous side."""
        found = self.engines.alive()
        return [*found, *self.event_loops.alive()] if self.event_loops is not None else found

    def dispose(self, timeout: float | None) -> None:
        """Close every engine of the process; with a limit, wait for work in progress first."""
        if timeout is not None:
            draining.check(timeout)
        self._advise()
        try:
            if timeout is not None and not self.profiles.exchanged:
                draining.drain(self.engines.alive(), timeout)
        finally:
            # Also if an interrupt ends the wait: drained engines must not be found again.
            with self.profiles.lock:
                alive = self.engines.alive()
                if self.profiles.forget():
                    self.engines.forget()
            for engine in alive:
                pool.dispose(engine)

    def _advise(self) -> None:
        """Log advice from the statistics before they are dropped with their engines."""
        if _log.isEnabledFor(logging.INFO) and len(self.engines):
            from dbconfig.engine.pool.advice import advice

            for found in self.all_stats():
                for line in advice([found]):
                    _log.info("%s", line, extra=facts(found.name))

    def stats(self, database: str) -> PoolStats:
        """Return the statistics of a database's pool for writing: of the process, or else of the running loop.

        Raises:
            RuntimeError: there is only an asynchronous driver, and no loop runs.
        """
        found = self.profiles.resolve(database)
        engine = self.engines.opened().get(found.key)
        if engine is None:
            here = self.event_loops.of_the_running_one() if self.event_loops is not None else None
            if here is not None and found.key in here.opened():
                return pool.stats(here.opened()[found.key].sync_engine)
            if found.settings.only_asynchronous():
                raise RuntimeError(_unsuited(found.settings, "stats()", "all_stats(), or stats() in a coroutine"))
            engine = self.engines.factory(database).engine
        return pool.stats(engine)

    def all_stats(self) -> list[PoolStats]:
        """Return the statistics of every pool that is in use, or has connections open, by name."""
        found = self.engines.stats()
        if self.event_loops is not None:
            found += self.event_loops.stats()
        return sorted(found, key=lambda each: each.name)

    def tables(self, models: Sequence[Any], database: str, verb: TableVerb) -> dict[str, Sequence[Any]]:
        """Return the tables that are to be created or dropped, by database.

        Raises:
            ConfigError: a name is not that of a table, or a database is protected, by this profile or by another one.
        """
        if self.plan.overridden and verb == "create":
            return {}  # they exist; on SQLite the lock for checking would wait for the test's own transaction
        whole = database.partition(SEPARATOR)[0]
        found = {
            shard: tables
            for name, tables in self.homes.grouped(models, whole).items()
            for shard in self.profiles.every_shard(database if name == whole else name)
        }
        for name in found:
            settings = self.profiles.resolve(name).settings
            if verb == "drop":
                from dbconfig.config import protected_databases

                protected_databases.refuse_protected(self.profiles.get(), settings)
            self.profiles.refuse_elsewhere(settings, f"{verb} tables", destructive=verb == "drop")
        return found

    def drive(self, database: str, verb: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the asynchronous counterpart of a method in a separate event loop, for an asynchronous-only driver.

        Raises:
            RuntimeError: a loop is running in this thread, which would be blocked.
        """
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work())
        settings = self.profiles.resolve(database).settings
        raise RuntimeError(_unsuited(settings, f"{verb}()", f"await async_{verb}()"))

    def _leave_to_the_parent(self) -> None:
        self.reload.forget_callers()
        self.engines.forget_readers()
        if self.event_loops is not None:
            self.event_loops.leave_to_the_parent()


def _unsuited(settings: DatabaseSettings, verb: str, instead: str) -> str:
    return f"{settings.driver(asynchronous=True)} is an asynchronous driver: use {instead}, not {verb}"


def _import_event_loops() -> Any:
    try:
        from dbconfig.registry import event_loops
    except ImportError as error:
        if "greenlet" not in str(error):
            raise
        message = "asynchronous engines need greenlet, which is not installed"
        help = "pip install greenlet, or with a driver: pip install 'sqlmodel-dbconfig[asyncpg]'"
        raise ConfigError([Problem("missing-driver", message, help=help)]) from error
    return event_loops
