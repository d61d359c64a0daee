"""The public object: one engine per profile and database, shared by threads, safe across forks, closed together."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session as PlainSession
from sqlmodel import Session

from dbconfig.engine import probes
from dbconfig.engine.pool.deadline import Deadline
from dbconfig.errors.printable import quoted
from dbconfig.registry import sharding
from dbconfig.registry.parts import Parts, TableVerb, on_tables
from dbconfig.registry.profiles import Profiles
from dbconfig.replicas import read_your_writes
from dbconfig.sessions import nesting, retry
from dbconfig.sessions.commit import tell_if_committed
from dbconfig.sessions.core import async_begun, begun
from dbconfig.sessions.execution_options import making, options, with_options
from dbconfig.sessions.model_databases import Home
from dbconfig.sessions.session_classes import SessionClasses
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import DEFAULT
from dbconfig.settings.password_providers import TIMEOUT

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from dbconfig.engine.create_tables import What
    from dbconfig.engine.pool import PoolStats
    from dbconfig.replicas.health import ReaderStats
    from dbconfig.settings.profile import Profile

T = TypeVar("T")


class Registry:
    """The engines of an application.

    Nothing is read or opened before the first use. One registry may be used by any number of threads and, after a
    fork, by the children: each process has its own connections.

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
        session_class: type[PlainSession] = Session,
        async_session_class: type[Any] | None = None,
    ) -> None:
        """Configure what to load; nothing is read before the first use.

        Args:
            path: the configuration folder; None searches for `config/`.
            profile: the profile; None takes `ENVIRONMENT`.
            environ: the environment variables; None uses the process's own.
            engine_options: arguments of `create_engine` that only code can express, for every engine.
            session_class: the class of sessions, such as `sqlalchemy.orm.Session` or a subclass of it.
            async_session_class: the class of asynchronous sessions; None is SQLModel's or SQLAlchemy's, as
                `session_class` is.
        """
        self._profiles = Profiles(path, profile, environ)
        classes = SessionClasses(session_class, async_session_class)
        self.parts: Parts = Parts(self._profiles, dict(engine_options or {}), classes)
        self._engines = self.parts.engines

    @classmethod
    def from_profile(cls, profile: Profile, **options: Any) -> Self:
        """Return a registry for a profile that was created in code, without files.

        Args:
            profile: the profile.
            options: `engine_options`, `session_class`, and `async_session_class`, as for the class itself.
        """
        registry = cls(profile=profile.name, **options)
        registry._profiles.give(profile)
        return registry

    def __repr__(self) -> str:
        known = self._profiles.loaded()
        return (
            f"<Registry of profile {quoted(known.name) if known else 'not loaded yet'}, {len(self._engines)} engines>"
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # copy, deepcopy, and pickle all call this. A partial copy would share locks and pools that it does not manage.
        if self is default:
            return "default"  # itself here; in another process, that process's own
        raise TypeError("a Registry cannot be copied or pickled: it owns connections. Share it, or make another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.async_dispose()
        self.dispose()

    @property
    def profile(self) -> Profile:
        """The profile, loaded on first use.

        Raises:
            ConfigError: the configuration is invalid.
        """
        return self._profiles.public()

    def deadline(self, seconds: float) -> Deadline:
        """Limit the time that a `with` block spends on databases.

        Waiting for a connection, connecting, each statement (it is cancelled on the server too), COMMIT, and the
        attempts of `run_in_transaction` with their pauses end with it. Of nested deadlines, the nearest counts.
        Coroutines, tasks, and threads that get a copy of the context inherit it.

        Args:
            seconds: the limit, from now; 0 or less expires immediately.

        Raises:
            DeadlineExceeded: the time is up; a `TimeoutError` that says what the time was spent on.
        """
        return Deadline(seconds)

    def engine(self, database: str = DEFAULT, *, profile: str | None = None, shard: str | None = None) -> Engine:
        """Return the engine of a database, always the same one. The first call creates it, without connecting.

        Args:
            database: a name under `databases:`, or the profile's own.
            profile: another profile than the registry's.
            shard: one of the `shards` of the database; None uses the one set by `on_shard`.

        Raises:
            ConfigError: the profile or the database does not exist or is invalid, or no shard was chosen.
        """
        return self._engines.factory(self._named(database, shard, profile), profile).engine

    def session(
        self,
        database: str = DEFAULT,
        *,
        profile: str | None = None,
        read_only: bool = False,
        snapshot: bool = False,
        schema: str | None = None,
        execution_options: Mapping[str, Any] | None = None,
        shard: str | None = None,
    ) -> Session:
        """Return a new SQLModel session. `with` closes it; call `commit()` to commit.

        Args:
            database: a name under `databases:`, or the profile's own.
            profile: another profile than the registry's.
            read_only: read from one of the `replicas`, or from the primary if there are none. Each statement costs
                one round trip, and sees what is committed when it begins; writes are rejected.
            snapshot: let all statements see the same state, at the cost of two more round trips; read-only too.
            schema: schema for tables that do not name one, such as a tenant's. All tenants share the pool.
            execution_options: execution options of the session's connections, such as `isolation_level`.
            shard: one of the `shards` of the database; None uses the one set by `on_shard`.
        """
        if profile is shard is schema is None and not (read_only or snapshot or execution_options):
            make: Callable[[], Session] | None = self._engines.sessions.get(database)  # for nearly every session
            if make is not None:
                return make()
        if shard is not None:
            database = self._named(database, shard, profile)
        if schema is not None or execution_options:
            found = options(schema, execution_options, read_only=read_only or snapshot)
            session = self.session(database, profile=profile, read_only=read_only, snapshot=snapshot)
            return with_options(session, found)
        if read_only or snapshot:
            readers = self._engines.readers(database, profile)
            return readers.snapshot() if snapshot else readers.plain()
        return self._engines.factory(database, profile).session()

    def transaction(
        self,
        database: str = DEFAULT,
        *,
        profile: str | None = None,
        schema: str | None = None,
        execution_options: Mapping[str, Any] | None = None,
        shard: str | None = None,
    ) -> AbstractContextManager[Session]:
        """Return a context manager for a session that commits at the end, or rolls back on an exception.

        On SQLite it takes the write lock when it begins, so that what was read is still true when it writes.
        `schema`, `execution_options`, and `shard` work as in `session`.
        """
        database = self._named(database, shard, profile)
        return self._engines.factory(database, profile).transaction(options(schema, execution_options))

    def connect(self, database: str = DEFAULT, *, read_only: bool = False) -> Connection:
        """Return a connection for SQLAlchemy Core; `with` closes it, and `commit()` commits.

        Args:
            database: a name under `databases:`, or the profile's own.
            read_only: read from one of the `replicas`, or from the primary if there are none. Each statement sees
                what is committed when it begins; writes are rejected.
        """
        engine = self._engines.readers(database).pick() if read_only else self.engine(database)
        return engine.connect()

    def begin(self, database: str = DEFAULT, *, read_only: bool = False) -> AbstractContextManager[Connection]:
        """Return a context manager for a Core connection whose transaction commits at the end, or rolls back. It has

        the guarantees of `transaction`: SQLite's write lock, and `CommitUncertain`. With `read_only` all
        statements see the same state, and writes are rejected.
        """
        return begun(self.session(database, snapshot=True) if read_only else self.transaction(database))

    def run_in_transaction(
        self,
        work: Callable[[Session], T],
        database: str = DEFAULT,
        *,
        attempts: int | None = None,
        timeout: float = 30.0,
        schema: str | None = None,
        execution_options: Mapping[str, Any] | None = None,
        shard: str | None = None,
    ) -> T:
        """Run a function in a transaction, and rerun it from the start after a transient error.

        Transient errors are a serialization failure, a deadlock, a lock that could not be acquired, a busy SQLite file,
        and a connection that was lost before COMMIT was sent. The function gets a fresh session each time, must not
        commit, and finds the number of the attempt in ``session.info["attempt"]``. A nested call joins its transaction.

        Args:
            work: the function; its result is returned.
            database: where.
            attempts: maximum number of attempts; None: until `timeout`. Waiting for a server that cannot be reached
                is not an attempt.
            timeout: seconds after which no further attempt begins.
            schema: schema for tables that do not name one; a nested call for another schema has its own transaction.
            execution_options: execution options of the session's connections.
            shard: one of the `shards` of the database; None uses the one set by `on_shard`.

        Raises:
            CommitUncertain: the connection was lost during COMMIT; this is never retried.
        """
        database = self._profiles.shard_of(self._named(database, shard))
        factory = self._engines.factory(database)
        make = making(factory.unit_of_work, options(schema, execution_options))
        tries = self.parts.attempts(database, factory.engine, attempts, timeout)
        unit = nesting.Unit()
        try:
            return retry.run(make, work, tries, (id(self), _place(database, schema), False), unit)
        except BaseException as error:
            tell_if_committed(error, unit.session)  # it may have been raised in the last instruction of `run`
            raise
        finally:
            unit.session = None  # contexts that were copied within it refer to the unit

    # Asynchronous counterparts. Engines are kept per event loop, and close with it.

    def async_engine(
        self, database: str = DEFAULT, *, profile: str | None = None, shard: str | None = None
    ) -> AsyncEngine:
        """Return the asynchronous engine of a database, always the same one in an event loop.

        The same profile serves both kinds of engine: without a `+driver` the installed asynchronous driver of the
        system is used here. An explicit `+driver` is kept.

        Raises:
            ConfigError: as for `engine`; or greenlet or an asynchronous driver is not installed.
            RuntimeError: no event loop is running.
        """
        return self.parts.loops.here().factory(self._named(database, shard, profile), profile).engine

    def async_session(
        self,
        database: str = DEFAULT,
        *,
        profile: str | None = None,
        read_only: bool = False,
        snapshot: bool = False,
        schema: str | None = None,
        execution_options: Mapping[str, Any] | None = None,
        shard: str | None = None,
    ) -> AsyncSession:
        """Return a new session: SQLModel's `AsyncSession`; `async with` closes it, and `commit()` commits.

        Its objects keep their attributes after a commit, unless the profile says `expire_on_commit: true`.
        The other arguments are those of `session`.
        """
        database = self._named(database, shard, profile)
        if schema is not None or execution_options:
            found = options(schema, execution_options, read_only=read_only or snapshot)
            session = self.async_session(database, profile=profile, read_only=read_only, snapshot=snapshot)
            return with_options(session, found)
        engines = self.parts.loops.here()
        if read_only or snapshot:
            readers = engines.readers(database, profile)
            return readers.snapshot() if snapshot else readers.plain()
        return engines.factory(database, profile).session()

    def async_transaction(
        self,
        database: str = DEFAULT,
        *,
        profile: str | None = None,
        schema: str | None = None,
        execution_options: Mapping[str, Any] | None = None,
        shard: str | None = None,
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a context manager for a session that commits at the end, or rolls back.

        A cancellation rolls back like an exception. On SQLite it takes the write lock when it begins.
        `schema`, `execution_options`, and `shard` work as in `session`.
        """
        database = self._named(database, shard, profile)
        return self.parts.loops.here().factory(database, profile).transaction(options(schema, execution_options))

    def async_connect(self, database: str = DEFAULT, *, read_only: bool = False) -> AsyncConnection:
        """Return a connection for SQLAlchemy Core in the running loop, as `connect` does; use it by `async with`."""
        if not read_only:
            return self.async_engine(database).connect()
        from sqlalchemy.ext.asyncio import AsyncEngine

        return AsyncEngine(self.parts.loops.here().readers(database).pick()).connect()

    def async_begin(
        self, database: str = DEFAULT, *, read_only: bool = False
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a context manager for a Core connection whose transaction commits at the end, as `begin` does."""
        opened = self.async_session(database, snapshot=True) if read_only else self.async_transaction(database)
        return async_begun(opened)

    async def async_run_in_transaction(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        database: str = DEFAULT,
        *,
        attempts: int | None = None,
        timeout: float = 30.0,
        schema: str | None = None,
        execution_options: Mapping[str, Any] | None = None,
        shard: str | None = None,
    ) -> T:
        """Await a function in a transaction, and rerun it from the start after a transient error.

        It works as `run_in_transaction` does. A nested call joins the transaction, unless it runs in a task that the
        function starts: two tasks cannot share a session.

        Raises:
            CommitUncertain: the connection was lost during COMMIT; this is never retried.
        """
        database = self._profiles.shard_of(self._named(database, shard))
        factory = self.parts.loops.here().factory(database)
        make = making(factory.unit_of_work, options(schema, execution_options))
        tries = self.parts.attempts(database, factory.engine, attempts, timeout)
        unit = nesting.Unit()
        try:
            result: T = await retry.async_run(make, work, tries, (id(self), _place(database, schema), True), unit)
        except BaseException as error:
            tell_if_committed(error, unit.session)
            raise
        finally:
            unit.session = None
        return result

    # Shards

    def shards(self, database: str = DEFAULT) -> tuple[str, ...]:
        """Return the names of the shards of a database; () if it has none."""
        return self.profile.shards(database)

    def on_shard(self, shard: str, database: str | None = None) -> AbstractContextManager[None]:
        """Select a shard for this thread or task: ``with db.on_shard("eu"): …``. An explicit `shard=` overrides it.

        Tasks started within the block inherit it; threads do not.

        Args:
            shard: its name, in every database that has a shard of this name.
            database: limit the selection to this database.

        Raises:
            ConfigError: no database has this shard.
        """
        return sharding.on(id(self._profiles), self.profile, shard, database)

    def _named(self, database: str, shard: str | None, profile: str | None = None) -> str:
        return database if shard is None else self._profiles.get(profile).shard(database, shard)

    # Tables

    def bind(self, **databases: Home) -> None:
        """Assign tables to databases: ``db.bind(analytics=AnalyticsBase.metadata)``.

        Without a database, `session()`, `transaction()`, and `run_in_transaction()` then serve all of them: each
        statement goes where its tables are, and `create_tables()` creates each table in its own database. A commit uses
        two phases if the servers support prepared transactions; otherwise, the databases commit one after another.

        Args:
            databases: by name, metadata, a base class with metadata of its own, a model, or a list of them.

        Raises:
            InvalidRequestError: a table is already bound to another database.
            ConfigError: the profile has no such database. If the profile is not loaded yet, the first statement raises
                this.
        """
        with self._profiles.lock:
            known = self._profiles.loaded()
            for name, found in databases.items():
                if known is not None and not known.shards(name):
                    known.database(name)
                for what in found if isinstance(found, Sequence) else (found,):
                    self.parts.homes.bind(name, what)
            self._engines.forget_sessions()
            if self.parts.event_loops is not None:
                self.parts.event_loops.forget_sessions()

    def create_tables(
        self, *models: What, database: str = DEFAULT, schema: str | None = None, shard: str | None = None
    ) -> list[str]:
        """Create the tables of the given models, or of all imported models. Existing tables are left unchanged.

        Safe when several processes start at the same time. Foreign keys decide the order.

        Args:
            models: models, tables, or table names; or MetaData or a declarative base for all of its tables. None means
                all tables of `SQLModel.metadata` and of everything passed to `bind`.
            database: the database; by default, the one to which `bind` assigned each table.
            schema: schema for tables that do not name one, such as a tenant's; it must exist.
            shard: the shard; None uses the one set by `on_shard`, or else all of them, one after another.

        Returns:
            The names of the tables that were created.

        Raises:
            ConfigError: a table does not exist, no model is imported, or another profile protects this database.
        """
        return self._on_tables(models, self._named(database, shard), "create", options(schema, None))

    async def async_create_tables(
        self, *models: What, database: str = DEFAULT, schema: str | None = None, shard: str | None = None
    ) -> list[str]:
        """Do the same in the running event loop."""
        return await self._async_on_tables(models, self._named(database, shard), "create", options(schema, None))

    def drop_tables(
        self, *models: What, database: str = DEFAULT, schema: str | None = None, shard: str | None = None
    ) -> list[str]:
        """Drop the tables of the given models, or of all imported models. The arguments are those of `create_tables`.

        Returns:
            The names of the tables that were dropped.

        Raises:
            ConfigError: the database is protected, by this profile or by another one that points at it.
        """
        return self._on_tables(models, self._named(database, shard), "drop", options(schema, None))

    async def async_drop_tables(
        self, *models: What, database: str = DEFAULT, schema: str | None = None, shard: str | None = None
    ) -> list[str]:
        """Do the same in the running event loop."""
        return await self._async_on_tables(models, self._named(database, shard), "drop", options(schema, None))

    def _on_tables(self, models: Sequence[Any], database: str, verb: TableVerb, how: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for name, tables in self.parts.tables(models, database, verb).items():
            if self._settings(name).only_asynchronous():
                work = partial(self._async_on_tables, tables, name, verb, how)
                found += self.parts.drive(name, f"{verb}_tables", work)
            else:
                found += on_tables(verb, _optioned(self.engine(name), how), tables)
        return found

    async def _async_on_tables(
        self, models: Sequence[Any], database: str, verb: TableVerb, how: Mapping[str, Any]
    ) -> list[str]:
        from sqlalchemy.util import greenlet_spawn

        found: list[str] = []
        for name, tables in self.parts.tables(models, database, verb).items():
            engine = _optioned(self.async_engine(name).sync_engine, how)
            found += await greenlet_spawn(on_tables, verb, engine, tables)
        return found

    def _settings(self, database: str) -> DatabaseSettings:
        return self._profiles.resolve(database).settings

    # Replicas

    def write_token(self, database: str = DEFAULT) -> str:
        """Return a token for what the current task or thread has committed, to put into a cookie, header, or message.

        Pass it to `read_after` in another request or process. "" means that there is nothing to wait for.
        """
        router = self._engines.readers(database).router
        mark = router.mark() if router is not None else None
        return read_your_writes.to_token({router.key: mark}) if router is not None and mark is not None else ""

    async def async_write_token(self, database: str = DEFAULT) -> str:
        """Return a token for what the current task has committed, as `write_token` does."""
        router = self.parts.loops.here().readers(database).router
        if router is None:
            return ""
        from sqlalchemy.util import greenlet_spawn

        mark = await greenlet_spawn(router.mark)
        return read_your_writes.to_token({router.key: mark}) if mark is not None else ""

    def read_after(self, token: str | None = None) -> AbstractContextManager[object]:
        """Let read-only sessions see the writes behind a token, and all writes made within the `with` block.

        Tasks and threads started within the block share it, so wrap the whole request.

        Raises:
            ValueError: the text is not a token.
        """
        return read_your_writes.scope(read_your_writes.from_token(token or ""))

    def readers(self, database: str = DEFAULT) -> list[ReaderStats]:
        """Return the state of each server that serves read-only sessions; [] without replicas."""
        router = self._engines.readers(database).router
        return router.stats() if router is not None else []

    def async_readers(self, database: str = DEFAULT) -> list[ReaderStats]:
        """Return the state of each server that serves read-only sessions in the running loop; [] without replicas."""
        router = self.parts.loops.here().readers(database).router
        return router.stats() if router is not None else []

    # Operations

    def stats(self, database: str = DEFAULT, *, shard: str | None = None) -> PoolStats:
        """Return the statistics of a database's pool: sizes, waiters, counters, histograms."""
        return self.parts.stats(self._named(database, shard))

    def all_stats(self) -> list[PoolStats]:
        """Return the statistics of every pool: for writes, for reads, of each replica, and of each event loop."""
        return self.parts.all_stats()

    def advice(self) -> list[str]:
        """Return advice about the size of each pool, with the figures behind it; [] if there is none."""
        from dbconfig.engine.pool.advice import advice

        return advice(self.all_stats())

    def tags(self, **tags: str) -> AbstractContextManager[None]:
        """Tag the statements of a `with` block: ``with db.tags(job="nightly"):``, if the profile sets `query_tags`.

        Threads and tasks started within the block share the tags.

        Raises:
            ValueError: a name is not in lowercase, or a value is not text.
        """
        from dbconfig.engine.query_tags import tagged

        return tagged(tags)

    def ping(self, database: str = DEFAULT, *, timeout: float = 5.0, shard: str | None = None) -> float:
        """Return how long the database takes to answer a query, in seconds.

        Raises:
            TimeoutError: it does not answer within the time.
            sqlalchemy.exc.DBAPIError: the database cannot be reached; the notes name the stage and the remedy.
        """
        database = self._named(database, shard)
        if self._settings(database).only_asynchronous():
            return self.parts.drive(database, "ping", lambda: self.async_ping(database, timeout=timeout))
        return probes.ping(self.engine(database), timeout)

    async def async_ping(self, database: str = DEFAULT, *, timeout: float = 5.0, shard: str | None = None) -> float:
        """Do the same in the running event loop."""
        database = self._named(database, shard)
        return await probes.async_ping(self.async_engine(database).sync_engine, timeout)

    def wait(self, database: str = DEFAULT, *, timeout: float = 30.0, shard: str | None = None) -> None:
        """Wait until the database, or each of its shards, answers. Call it first in a container.

        Raises:
            TimeoutError: it does not answer within the time.
            sqlalchemy.exc.DBAPIError: the error is permanent, such as a wrong password or a missing database.
        """
        left, end = timeout, time.monotonic() + timeout
        for name in self._profiles.every_shard(self._named(database, shard)):
            if self._settings(name).only_asynchronous():
                self.parts.drive(name, "wait", partial(self.async_wait, name, timeout=left))
            else:
                probes.wait(self.engine(name), self._settings(name), left)
            left = max(0.0, end - time.monotonic())

    async def async_wait(self, database: str = DEFAULT, *, timeout: float = 30.0, shard: str | None = None) -> None:
        """Do the same in the running event loop."""
        left, end = timeout, time.monotonic() + timeout
        for name in self._profiles.every_shard(self._named(database, shard)):
            await probes.async_wait(self.async_engine(name).sync_engine, self._settings(name), left)
            left = max(0.0, end - time.monotonic())

    def password_provider(
        self, name: str, function: Callable[[DatabaseSettings], str], *, timeout: float = TIMEOUT
    ) -> None:
        """Register a function that `password: {provider: NAME}` calls for each new connection.

        Register it before the first use. Installed packages do so by the entry points `dbconfig.password_providers`.

        Args:
            name: the name used in the profile.
            function: gets the settings of the database, `.address.host`, `.address.username` and so on, and returns
                the password. It runs on its own thread, and several calls may run at the same time.
            timeout: seconds after which the connection attempt fails.
        """
        self._profiles.providers.add(name, function, timeout)

    def reload(self) -> None:
        """Read the configuration again and switch to it without interrupting work in progress.

        Every engine in use is created again and tested with a connection; then all of them replace the old ones
        together. Replicas, and the engines of event loops, follow at their next use.
        Work in progress finishes on its old connection, which closes when it is returned; idle connections close now.
        An engine whose settings have not changed stays, but its connections are replaced, so a new password is in use
        everywhere afterward. A database in memory is left unchanged.

        Raises:
            ConfigError: the new configuration is invalid; nothing has changed.
            sqlalchemy.exc.DBAPIError: a database cannot be reached with it; nothing has changed.
        """
        self.parts.reload.run(lambda: self.parts.event_loops)

    def dispose(self, *, timeout: float | None = None) -> None:
        """Close every engine and forget the profile; the next use starts again.

        Connections in use close when they are returned.

        Args:
            timeout: seconds to wait for them; no new connections are handed out meanwhile. What is still in use then is
                cancelled on the server and closed, so no connection is left, and the old engines reject checkouts.
        """
        self.parts.dispose(timeout)

    async def async_dispose(self, *, timeout: float | None = None) -> None:
        """Close the asynchronous engines of the running loop; those of another loop close with it.

        Args:
            timeout: seconds to wait for connections in use; no new connections are handed out meanwhile. What is still
                in use then is cancelled on the server and closed, as in `dispose`.
        """
        if self.parts.event_loops is not None:
            await self.parts.event_loops.dispose(timeout)


def _optioned(engine: Engine, how: Mapping[str, Any]) -> Engine:
    return engine.execution_options(**how) if how else engine


def _place(database: str, schema: str | None) -> str:
    """Return the key that a nested unit of work must share with the outer one to join its transaction."""
    return database if schema is None else f"{database}\0{schema}"


default: Registry = Registry()  # `dbconfig.db`; it reads and opens nothing before its first use
