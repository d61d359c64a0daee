"""One engine per profile and database: made once, shared by threads, left alone by forks, closed together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

from sqlalchemy import Engine
from sqlmodel import Session

from dbconfig.config.loader import load
from dbconfig.engine import create, draining, pool, probes
from dbconfig.engine.pool import PoolStats
from dbconfig.errors.printable import quoted
from dbconfig.registry import processes
from dbconfig.registry.asynchronous import AsyncTwins
from dbconfig.registry.binding import Binding
from dbconfig.registry.reloading import Reloading
from dbconfig.registry.replication import Replication
from dbconfig.replicas import read_your_writes
from dbconfig.sessions import retry
from dbconfig.sessions.model_databases import Homes
from dbconfig.sessions.sessionmaker import SessionFactory
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.password_providers import Providers
from dbconfig.settings.profile import DEFAULT, Profile

T = TypeVar("T")


class Registry(AsyncTwins, Binding, Replication, Reloading):
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
        self._providers = Providers()
        self._pinned = False  # by tests, whose database outlives the `dispose` of the application under test
        self._lock = threading.RLock()
        self._reloading = threading.Lock()
        self._profiles: dict[str | None, Profile] = {}
        # By (profile, database); (None, database) is the registry's own profile. Read without the lock: an entry is
        # complete before it is put in, and is never changed.
        self._factories: dict[tuple[str | None, str], SessionFactory] = {}
        # The same for the hottest of calls: sessions of the registry's own profile.
        self._sessions: dict[str, Callable[[], Session]] = {}
        self._readers = {}
        self._homes = Homes()
        processes.enroll(self)

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
        attempts: int | None = None,
        timeout: float = 30.0,
    ) -> T:
        """Run a function in a transaction, again as a whole after an error that passes by itself.

        Those are a serialization failure, a deadlock, a lock that was not to be had, a busy SQLite file, and a
        connection that was lost before COMMIT was sent. The function gets a fresh session each time, must not commit,
        and may see its attempt's number as ``session.info["attempt"]``. A call within it joins its transaction.

        Args:
            work: what to do; what it returns is returned.
            database: where.
            attempts: maximum number of attempts; None: until `timeout`. Waiting for a server that cannot be reached
                is not an attempt.
            timeout: seconds after which no attempt begins.

        Raises:
            CommitUncertain: the connection was lost while COMMIT was under way; this is never repeated.
        """
        factory = self._factory(database, None)
        tries = retry.Attempts(attempts, timeout, f"{self.profile.name}/{database}")
        return retry.run(factory.unit_of_work, work, tries, (id(self), database, False))

    def stats(self, database: str = DEFAULT) -> PoolStats:
        """Return what the pool of a database has done and how it is: sizes, line, counters, histograms."""
        return pool.stats(self.engine(database))

    def ping(self, database: str = DEFAULT, *, timeout: float = 5.0) -> float:
        """Return how long the database takes to answer a query, in seconds.

        Raises:
            TimeoutError: it does not answer within the time.
            sqlalchemy.exc.DBAPIError: it cannot be reached; the notes say at which stage, and what to do.
        """
        return probes.ping(self.engine(database), timeout)

    def wait(self, database: str = DEFAULT, *, timeout: float = 30.0) -> None:
        """Return when the database answers, as the first thing in a container.

        Raises:
            TimeoutError: it does not answer within the time.
            sqlalchemy.exc.DBAPIError: waiting cannot help: a wrong password, a database that does not exist.
        """
        probes.wait(self.engine(database), self._settings(self.profile, database), timeout)

    def dispose(self, *, timeout: float | None = None) -> None:
        """Close every engine and forget the profile; the next use begins anew.

        Connections in use close when they come back.

        Args:
            timeout: seconds to wait for them, while nobody gets a new one. What is then still in use is cancelled on
                the server and closed: afterwards no connection is left, and the old engines refuse to lend one.
        """
        if timeout is not None:
            draining.drain(self._engines(), timeout)
        with self._lock:
            found = self._engines()
            self._stop_routing()
            if not self._pinned:
                self._forget()
        for engine in found:
            engine.dispose()

    def _after_fork(self) -> None:
        """In the child: the parent's locks and connections are not ours."""
        self._lock = threading.RLock()
        self._reloading = threading.Lock()
        self._providers.forget_hanging()
        for engine in self._engines():
            # The child shares our sockets: forget the pool, do not close it, or the parent loses its connections.
            # What a session holds now is put out of its reach, or its rollback would end the parent's transaction.
            pool.pin_in_flight(engine)
            engine.dispose(close=False)
        self._readers = {}
        if self._loops is not None:
            # The parent's event loop does not run here. Kept, not collected: a driver that is collected says good-bye
            # to the server over the socket that the parent goes on using.
            processes.inherited.append(self._loops)
            self._loops = None

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
                found = self._load(name)
                self._profiles[name] = found
                self._profiles.setdefault(found.name, found)
            return found

    def _load(self, name: str | None) -> Profile:
        return load(self._name if name is None else name, path=self._path, environ=self._environ())

    def _factory(self, database: str, name: str | None) -> SessionFactory:
        found = self._factories.get((name, database))
        if found is not None:
            return found
        with self._lock:
            own, settings, label = self._resolved(database, name)
            found = self._factories.get(own)
            if found is None:
                found = self._factories[own] = self._build(own[0], database, settings, label)
            self._factories[name, database] = found
            if name is None:
                self._sessions[database] = found.session
            return found

    def _build(self, profile: str, database: str, settings: DatabaseSettings, label: str) -> SessionFactory:
        engine = create.build(settings, label, self._engine_options)
        read_your_writes.attach(engine, settings, label)
        found = SessionFactory.of(engine, settings)
        return self._bound(found, profile) if self._homes and database == DEFAULT else found

    def _resolved(self, database: str, name: str | None) -> tuple[tuple[str, str], DatabaseSettings, str]:
        """Return the name under which a database's engine is kept, its settings, and its name in logs."""
        return self._resolved_in(self._profile(name), database)

    def _resolved_in(self, profile: Profile, database: str) -> tuple[tuple[str, str], DatabaseSettings, str]:
        label = profile.name if database == DEFAULT else f"{profile.name}/{database}"
        return (profile.name, database), self._settings(profile, database), label

    def _settings(self, profile: Profile, database: str) -> DatabaseSettings:
        return profile.database(database).provided_by(self._providers)


default = Registry()  # `dbconfig.db`; it reads and opens nothing before its first use
