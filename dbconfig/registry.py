"""One engine per profile and database: made once, shared by threads, left alone by forks, closed together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

from sqlalchemy import Engine
from sqlmodel import Session, SQLModel

from dbconfig import draining, engines, pool, processes, reloading, retry, tables
from dbconfig.errors import ConfigError, Problem, quoted
from dbconfig.loader import load
from dbconfig.pool import PoolStats
from dbconfig.profile import DEFAULT, Profile
from dbconfig.protection import protected_elsewhere
from dbconfig.providers import TIMEOUT, Providers
from dbconfig.sessions import SessionFactory
from dbconfig.settings import DatabaseSettings

T = TypeVar("T")


class Registry:
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
        self._lock = threading.RLock()
        self._reloading = threading.Lock()
        self._profiles: dict[str | None, Profile] = {}
        # By (profile, database); (None, database) is the registry's own profile. Read without the lock: an entry is
        # complete before it is put in, and is never changed.
        self._factories: dict[tuple[str | None, str], SessionFactory] = {}
        # The same for the hottest of calls: sessions of the registry's own profile.
        self._sessions: dict[str, Callable[[], Session]] = {}
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

    def session(self, database: str = DEFAULT, *, profile: str | None = None) -> Session:
        """Return a new session: SQLModel's own, which closes at the end of a `with`, and never commits by itself."""
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

    def create_tables(self, *models: type[SQLModel] | str, database: str = DEFAULT) -> list[str]:
        """Create the tables of models, or of all that are imported; those that exist are left alone.

        Safe when several processes start at once. Foreign keys decide the order.

        Args:
            models: SQLModel classes or table names; none of them is all.
            database: where.

        Returns:
            The names of the tables that were created.

        Raises:
            ConfigError: a name is no table's, or another profile protects this database.
        """
        self._refuse_foreign(database, "create tables", destructive=False)
        return tables.create(self.engine(database), models)

    def drop_tables(self, *models: type[SQLModel] | str, database: str = DEFAULT) -> list[str]:
        """Drop the tables of models, or of all that are imported.

        Returns:
            The names of the tables that were dropped.

        Raises:
            ConfigError: the database is protected, by this profile or by another one that points at it.
        """
        settings = self._settings(self.profile, database)
        if settings.protected:
            message = f"profile {quoted(self.profile.name)} is protected: dropping tables is refused"
            help = "a profile that may lose its tables says `protected: false`"
            raise ConfigError([Problem("protected", message, settings.origin("protected"), "protected", help)])
        self._refuse_foreign(database, "drop tables", destructive=True)
        return tables.drop(self.engine(database), models)

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

        Every engine in use is made anew and proved by a connection, then all take the place of the old ones at once.
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
                renewal = reloading.prepare((profiles, factories), self._read_again(profiles), self._build)
                with self._lock:
                    unchanged = self._factories.keys() == factories.keys()  # else somebody has asked for one more
                    if unchanged:
                        self._profiles, self._factories = renewal.profiles, renewal.factories
                        self._sessions = {key[1]: made.session for key, made in self._factories.items() if not key[0]}
                if unchanged:
                    renewal.finish()
                    return
                renewal.abandon()

    def _read_again(self, profiles: Mapping[str | None, Profile]) -> dict[str | None, Profile]:
        if self._given is not None:
            return dict(profiles)
        again = {known.name: self._load(known.name if name else None) for name, known in profiles.items()}
        return {name: again[known.name] for name, known in profiles.items()}

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

    def _forget(self) -> None:
        self._factories = {}
        self._sessions = {}
        self._profiles = {} if self._given is None else {None: self._given, self._given.name: self._given}

    def _engines(self) -> list[Engine]:
        return list({id(factory.engine): factory.engine for factory in list(self._factories.values())}.values())

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
            profile = self._profile(name)
            found = self._factories.get((profile.name, database))
            if found is None:
                found = self._factories[profile.name, database] = self._build(profile, database)
            self._factories[name, database] = found
            if name is None:
                self._sessions[database] = found.session
            return found

    def _build(self, profile: Profile, database: str) -> SessionFactory:
        settings = self._settings(profile, database)
        label = profile.name if database == DEFAULT else f"{profile.name}/{database}"
        return SessionFactory.of(engines.build(settings, label, self._engine_options), settings)

    def _settings(self, profile: Profile, database: str) -> DatabaseSettings:
        return profile.database(database).provided_by(self._providers)

    def _refuse_foreign(self, database: str, what: str, *, destructive: bool) -> None:
        profile = self.profile
        if self._given is not None:
            return  # made in code: there are no other profiles beside it
        settings = self._settings(profile, database)
        owner = protected_elsewhere(
            profile, settings, destructive=destructive, path=self._path, environ=self._environ()
        )
        if owner:
            message = (
                f"refused to {what}: profile {quoted(profile.name)} points at the same database as {quoted(owner)}, "
                "which is protected"
            )
            help = f"give {quoted(profile.name)} a database of its own, or run with ENVIRONMENT={owner}"
            raise ConfigError([Problem("database-elsewhere", message, help=help)])


default = Registry()  # `dbconfig.db`; it reads and opens nothing before its first use
