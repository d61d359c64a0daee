"""One engine per profile and database: made once, shared by threads, left alone by forks, closed together."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import Any, Self, TypeVar

from sqlalchemy import Engine
from sqlmodel import Session

from dbconfig import engines, health, pool, retry
from dbconfig.asynchronous import AsyncTwins
from dbconfig.binding import Binding, Homes
from dbconfig.errors import ConfigError, Problem, quoted
from dbconfig.loader import load
from dbconfig.pool import PoolStats
from dbconfig.profile import DEFAULT, Profile
from dbconfig.replication import Replication
from dbconfig.sessions import SessionFactory
from dbconfig.settings import DatabaseSettings

T = TypeVar("T")


class Registry(AsyncTwins, Binding, Replication):
    """The engines of an application.

    Nothing is read or opened before the first use. One registry may be used by any number of threads and, after a
    fork, by the children: each process has connections of its own.

    >>> with Registry.from_profile(Profile(name="doc", url="sqlite://")) as db:
    ...     with db.session() as session:
    ...         session.exec(select(1)).one()
    1
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        environ: Mapping[str, str] | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what to load at first use.

        Args:
            path: the configuration folder; None looks for `config/`.
            profile: the profile; None takes `ENVIRONMENT`.
            environ: the environment variables; None is the process's own.
            engine_options: arguments of `create_engine` that only code can express, for every engine.
        """
        self._path = path
        self._name = profile
        # A function, so that debuggers and crash reporters, which print attributes, print no secret out of it.
        self._environ: Callable[[], Mapping[str, str] | None] = lambda: environ
        self._engine_options = dict(engine_options or {})
        self._given: Profile | None = None
        self._pinned = False  # by tests, whose database outlives the `dispose` of the application under test
        self._lock = threading.RLock()
        self._profiles: dict[str | None, Profile] = {}
        # By (profile, database); (None, database) is the registry's own profile. Read without the lock: an entry is
        # complete before it is put in, and is never changed.
        self._factories: dict[tuple[str | None, str], SessionFactory] = {}
        # The same for the hottest of calls: sessions of the registry's own profile.
        self._sessions: dict[str, Callable[[], Session]] = {}
        self._readers = {}
        self._homes = Homes()
        _registries.add(self)

    @classmethod
    def from_profile(cls, profile: Profile) -> Self:
        """Return a registry of a profile that was made in code; it needs no file."""
        registry = cls(profile=profile.name)
        registry._given = profile
        registry._forget()
        return registry

    def __repr__(self) -> str:
        known = self._profiles.get(None)
        return (
            f"<Registry of profile {quoted(known.name) if known else 'not loaded yet'}, {len(self._engines())} engines>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    @property
    def profile(self) -> Profile:
        """The profile; it is loaded on first use.

        Raises:
            ConfigError: it cannot be used.
        """
        return self._profile(None)

    def engine(self, database: str = DEFAULT, *, profile: str | None = None) -> Engine:
        """Return the engine of a database, always the same one; the first call makes it, and connects to nothing.

        Args:
            database: a name under `databases:`, or the profile's own.
            profile: another profile than the registry's.

        Raises:
            ConfigError: the profile or the database does not exist or cannot be used.
        """
        return self._factory(database, profile).engine

    def session(
        self,
        database: str = DEFAULT,
        *,
        profile: str | None = None,
        read_only: bool = False,
        snapshot: bool = False,
    ) -> Session:
        """Return a new session: SQLModel's own, which closes at the end of a `with`, and never commits by itself.

        Args:
            database: a name under `databases:`, or the profile's own.
            profile: another profile than the registry's.
            read_only: read from one of the `replicas`, or from the primary where there is none. Each statement costs
                one round trip, and sees what is committed when it begins; writes are refused.
            snapshot: let all statements see the same state, for two round trips more; it is read-only too.
        """
        if read_only or snapshot:
            return self._reading_session(database, profile, snapshot=snapshot)
        make = self._sessions.get(database) if profile is None else None
        return make() if make is not None else self._factory(database, profile).session()

    def transaction(self, database: str = DEFAULT, *, profile: str | None = None) -> AbstractContextManager[Session]:
        """Return a context manager of a session that commits at the end, or rolls back on an exception.

        On SQLite it takes the write lock when it begins, so that what was read is still true when it writes.
        """
        return self._factory(database, profile).transaction()

    def run_in_transaction(
        self,
        work: Callable[[Session], T],
        database: str = DEFAULT,
        *,
        attempts: int = 3,
        timeout: float = 30.0,
    ) -> T:
        """Run a function in a transaction, again as a whole after an error that passes by itself.

        Those are a serialization failure, a deadlock, a lock that was not to be had, a busy SQLite file, and a
        connection that was lost before COMMIT was sent. The function gets a fresh session each time, must not commit,
        and may see its attempt's number as ``session.info["attempt"]``. A call within it joins its transaction.

        Args:
            work: what to do; what it returns is returned.
            database: where.
            attempts: how often at the most; waiting for a server that cannot be reached is no attempt.
            timeout: seconds after which no attempt begins.

        Raises:
            CommitUncertain: the connection was lost while COMMIT was under way; this is never repeated.
        """
        factory = self._factory(database, None)
        tries = retry.Attempts(attempts, timeout, f"{self.profile.name}/{database}")
        return retry.run(factory.unit_of_work, work, tries, (id(self), database))

    def stats(self, database: str = DEFAULT) -> PoolStats:
        """Return what the pool of a database has done and how it is: sizes, line, counters, histograms."""
        return pool.stats(self.engine(database))

    def ping(self, database: str = DEFAULT, *, timeout: float = 5.0) -> float:
        """Return how long the database takes to answer a query, in seconds.

        Raises:
            TimeoutError: it does not answer within the time.
            sqlalchemy.exc.DBAPIError: it cannot be reached; the notes say at which stage, and what to do.
        """
        return health.ping(self.engine(database), timeout)

    def wait(self, database: str = DEFAULT, *, timeout: float = 30.0) -> None:
        """Return when the database answers, as the first thing in a container.

        Raises:
            TimeoutError: it does not answer within the time.
            sqlalchemy.exc.DBAPIError: waiting cannot help: a wrong password, a database that does not exist.
        """
        health.wait(self.engine(database), self._settings(self.profile, database), timeout)

    def dispose(self) -> None:
        """Close every engine and forget the profile; the next use begins anew."""
        with self._lock:
            found = self._engines()
            self._stop_routing()
            if not self._pinned:
                self._forget()
        for engine in found:
            engine.dispose()

    def _forget(self) -> None:
        self._factories = {}
        self._sessions = {}
        self._readers = {}
        self._profiles = {} if self._given is None else {None: self._given, self._given.name: self._given}

    def _engines(self) -> list[Engine]:
        found = [factory.engine for factory in list(self._factories.values())]
        return list({id(engine): engine for engine in [*found, *self._reading_engines()]}.values())

    def _profile(self, name: str | None) -> Profile:
        found = self._profiles.get(name)
        if found is not None:
            return found
        with self._lock:
            found = self._profiles.get(name)
            if found is None:
                found = load(self._name if name is None else name, path=self._path, environ=self._environ())
                self._profiles[name] = found
                self._profiles.setdefault(found.name, found)
            return found

    def _factory(self, database: str, name: str | None) -> SessionFactory:
        found = self._factories.get((name, database))
        if found is not None:
            return found
        with self._lock:
            own, settings, label = self._resolved(database, name)
            found = self._factories.get(own)
            if found is None:
                found = SessionFactory.of(engines.build(settings, label, self._engine_options), settings)
                if self._homes and database == DEFAULT:
                    found = self._bound(found, own[0])
                self._factories[own] = found
            self._factories[name, database] = found
            if name is None:
                self._sessions[database] = found.session
            return found

    def _resolved(self, database: str, name: str | None) -> tuple[tuple[str, str], DatabaseSettings, str]:
        """Return the name under which a database's engine is kept, its settings, and its name in logs."""
        profile = self._profile(name)
        label = profile.name if database == DEFAULT else f"{profile.name}/{database}"
        return (profile.name, database), self._settings(profile, database), label

    def _settings(self, profile: Profile, database: str) -> DatabaseSettings:
        found = profile.databases.get(database)
        if found is not None:
            return found
        known = ", ".join(profile.databases)
        near = get_close_matches(database, profile.databases, 1, 0.6)
        help = f"did you mean {near[0]!r}?" if near else "name it under `databases:`"
        raise ConfigError(
            [
                Problem(
                    "unknown-database",
                    f"profile {quoted(profile.name)} has no database {quoted(database)}",
                    help=help,
                    notes=(f"databases: {known}",),
                )
            ]
        )


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()
_inherited: list[object] = []  # asynchronous engines of the parent process


_forking = threading.RLock()  # one fork at a time, so that two of them do not wait for each other's registries
_held: list[Registry] = []  # those whose lock was taken before the fork; others may appear meanwhile


def _before_fork() -> None:
    # A lock that another thread holds at the fork would stay locked in the child, and what it guards half done.
    _forking.acquire()
    for registry in list(_registries):
        registry._lock.acquire()
        _held.append(registry)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    _held.clear()
    _forking.release()
    for registry in list(_registries):
        registry._lock = threading.RLock()
        for engine in registry._engines():
            # The child shares our sockets: forget the pool, do not close it, or the parent loses its connections.
            # What a session holds now is put out of its reach, or its rollback would end the parent's transaction.
            pool.pin_in_flight(engine)
            engine.dispose(close=False)
        registry._readers = {}
        if registry._loops is not None:
            # The parent's event loop does not run here. Kept, not collected: a driver that is collected says good-bye
            # to the server over the socket that the parent goes on using.
            _inherited.append(registry._loops)
            registry._loops = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _say_goodbye() -> None:
    # Otherwise servers log connections that were lost, and Python 3.13 warns of databases that were not closed.
    for registry in list(_registries):
        registry.dispose()


default = Registry()  # `dbconfig.db`; it reads and opens nothing before its first use
