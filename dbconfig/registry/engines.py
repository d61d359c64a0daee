"""The engines of one owner (the process or an event loop), and their session factories."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Engine, event
from sqlmodel import Session

from dbconfig.engine import create, draining, pool
from dbconfig.registry.profiles import Resolved
from dbconfig.registry.styles import E, F, Key, Plan, R, Style
from dbconfig.replicas import read_your_writes
from dbconfig.sessions.sessionmaker import Readers, SessionFactory, Several
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import DEFAULT
from dbconfig.settings.shards import SEPARATOR

if TYPE_CHECKING:
    from dbconfig.registry.idle_engines import IdleDatabase

M = TypeVar("M")


class Engines(Generic[E, F, R]):
    """One engine per database, created at first use, and a dictionary look-up from then on."""

    def __init__(
        self, plan: Plan, style: Style[E, F, R], memory: Engines[Engine, SessionFactory, Readers[Session]] | None = None
    ) -> None:
        """Start without engines.

        Args:
            plan: what they are created from.
            style: for threads or for an event loop.
            memory: whose databases in memory these engines share; None is their own.
        """
        # Sessions of the registry's own profile by database, the hottest path. Read without the lock, like the two
        # below: an entry is complete when it is added, and never changes.
        self.sessions: dict[str, Callable[[], Any]] = {}
        self._factories: dict[Key, F] = {}
        self._readers: dict[Key, R] = {}
        self._plan = plan
        self._style = style
        self._memory = memory
        self._engines: dict[Key, E] = {}  # by the names of profile and database, as the next
        self._servers: dict[Key, R] = {}  # the read-only session factories of each single database
        self._reading: list[E] = []
        self._memories: dict[Key, Engine] = {}  # of databases that have only asynchronous engines
        # Every engine created here that is still in use, with the database that it was created for; None for read-only
        # ones.
        self._made: weakref.WeakKeyDictionary[Any, Resolved | None] = weakref.WeakKeyDictionary()
        self._overrides: dict[Key, tuple[F, R]] = {}
        self._idle: dict[Key, IdleDatabase] = {}

    def factory(self, database: str, profile: str | None = None) -> F:
        """Return the session factory of a database."""
        found = self._factories.get((profile, database))
        return self._make_factory(database, profile) if found is None else found

    def readers(self, database: str, profile: str | None = None) -> R:
        """Return its factory of read-only sessions."""
        found = self._readers.get((profile, database))
        return self._make_readers(database, profile) if found is None else found

    def _make_factory(self, database: str, profile: str | None) -> F:
        if (shard := self._plan.profiles.shard_of(database, profile)) != database:
            return self.factory(shard, profile)  # nothing is kept under the name of the whole
        with self._plan.profiles.lock:
            found = self._plan.profiles.resolve(database, profile)
            made = self._factories.get(found.key)
            if made is None:
                engine = self._engine(found)

                def open_(name: str) -> Engine:
                    other = engine if name == DEFAULT else self.factory(name, found.key[0]).engine
                    return self._style.bare(other)

                made = self._style.factory(engine, found.settings, self._several(database, open_), self._plan.classes)
                if joined := self._joined(found):
                    made = joined[0]
                self._factories[found.key] = made
            self._factories[profile, database] = made
            if profile is None:
                self.sessions[database] = made.session
            return made

    def _make_readers(self, database: str, profile: str | None) -> R:
        if (shard := self._plan.profiles.shard_of(database, profile)) != database:
            return self.readers(shard, profile)
        with self._plan.profiles.lock:
            found = self._plan.profiles.resolve(database, profile)
            made = self._readers.get(found.key)
            if made is None:
                joined = self._joined(found)
                made = joined[1] if joined else self._over_several(self._server(found), found)
                self._readers[found.key] = made
            self._readers[profile, database] = made
            return made

    def _joined(self, found: Resolved) -> tuple[F, R] | None:
        join = self._plan.joining.get(found.key) if self._style.asynchronous else None
        if join is None:
            return None
        return join(self._style.factory(self._engine(found), found.settings, None, self._plan.classes))

    def _several(self, database: str, open_: Callable[[str], Engine]) -> Several | None:
        homes = self._plan.homes
        return Several(homes, open_) if homes and database.partition(SEPARATOR)[0] == DEFAULT else None

    def _over_several(self, server: R, found: Resolved) -> R:
        def open_(name: str) -> Engine:
            return (server if name == DEFAULT else self.readers(name, found.key[0])).pick()

        several = self._several(found.key[1], open_)
        if several is None:
            return server
        return self._style.readers_over_several(server, found.settings, several, self._plan.classes)

    def _engine(self, found: Resolved) -> E:
        if found.key not in self._engines:
            self._engines[found.key] = self._still_in_use(found) or self.build(found)
            self.look_after(found)
        return self._engines[found.key]

    def _still_in_use(self, found: Resolved) -> E | None:
        """Return a kept engine from before a `dispose`, if any, so that a database has one pool, not two."""
        if found.settings.in_memory:
            return None  # its contents must not depend on which engines were kept
        for engine, made in list(self._made.items()):
            same = made is not None and made.key == found.key and made.settings.means_the_same(found.settings)
            if same and not draining.is_over(self._style.bare(engine)):
                kept: E = engine
                return kept
        return None

    def build(self, found: Resolved) -> E:
        """Return a new engine of a database, not yet handed out."""
        shared = self._memory if found.settings.in_memory else None
        beside = shared.of_memory(found) if shared is not None else None
        engine = create.build(
            found.settings, found.label, self._plan.options, asynchronous=self._style.asynchronous, beside=beside
        )
        read_your_writes.attach(engine, found.settings, found.label)
        adopted = self._adopt(engine, found)
        if found.settings.engine_idle_timeout is not None:
            from dbconfig.registry.idle_engines import Reminder

            # Also for one that the application has kept, or in a forked child, whose threads and timers do not exist.
            event.listen(engine, "connect", Reminder(self, adopted))
        return adopted

    def of_memory(self, found: Resolved) -> Engine:
        """Return the engine whose database in memory others share."""
        if found.settings.serves(asynchronous=self._style.asynchronous):
            return self._style.bare(self.factory(found.key[1], found.key[0]).engine)
        with self._plan.profiles.lock:
            if found.key not in self._memories:
                self._memories[found.key] = create.hold_memory(found.settings)
            return self._memories[found.key]

    def _adopt(self, engine: Engine, found: Resolved | None) -> E:
        adopted = self._style.adopt(engine)
        with self._plan.profiles.lock:
            self._made[adopted] = found
            watchers = self._plan.watchers
        for look in watchers:
            look(engine)
        return adopted

    def _server(self, found: Resolved) -> R:
        if found.key not in self._servers:
            owner: Any = self._memory or self
            beside = owner.of_memory(found) if found.settings.in_memory else None
            open_reader = self._writer_of(found) if found.settings.is_generic else self._open_reader
            self._servers[found.key] = self._style.readers(
                found.settings, found.label, open_reader, beside, self._plan.classes
            )
            self.look_after(found)
        return self._servers[found.key]

    def _writer_of(self, found: Resolved) -> Callable[..., E]:
        # How such a server enforces read-only mode is unknown; a flush is rejected anyway.
        return lambda settings, label, **how: self._engine(found)

    def _open_reader(self, settings: DatabaseSettings, label: str, **how: Any) -> E:
        from dbconfig.engine import read_only  # for read-only sessions

        engine = read_only.open_engine(
            settings, label, self._plan.options, asynchronous=self._style.asynchronous, **how
        )
        pool.ledger(engine).role = "reads"
        adopted = self._adopt(engine, None)
        self._reading.append(adopted)
        return adopted

    # Existing engines

    def opened(self) -> dict[Key, E]:
        """Return the engines that write, by the names of profile and database."""
        return dict(self._engines)

    def __len__(self) -> int:
        return len(self._engines) + len(self._reading)

    def alive(self) -> list[E]:
        """Return every engine created here that is still in use, including those from before a `dispose`."""
        with self._plan.profiles.lock:
            return list(self._made)

    def stats(self) -> list[pool.PoolStats]:
        """Return the statistics of the pools that are in use here, or have connections open."""
        current = {id(engine) for engine in (*self._engines.values(), *self._reading)}
        found = [(engine, pool.stats(self._style.bare(engine))) for engine in self.alive()]
        return [each for engine, each in found if id(engine) in current or each.idle + each.used + each.connecting]

    # Unused databases

    def look_after(self, found: Resolved) -> None:
        """Close a database that has been unused for `engine_idle_timeout`."""
        if found.settings.engine_idle_timeout is None or found.settings.in_memory:
            return
        from dbconfig.registry.idle_engines import IdleDatabase

        watch = self._idle.get(found.key)
        if watch is None:
            watch = self._idle[found.key] = IdleDatabase(self, found, self._style.later)
        watch.begin()

    def looks_after(self, watch: IdleDatabase) -> bool:
        """Return whether this watcher is still current: its database may have been disposed of, or reloaded."""
        return self._idle.get(watch.key) is watch

    def of_database(self, key: Key) -> list[Engine]:
        """Return every engine of a database that is in use, for writing and for reading."""
        with self._plan.profiles.lock:
            bare = self._style.bare
            writers = [bare(each) for each, made in list(self._made.items()) if made is not None and made.key == key]
            server = self._servers.get(key)
            readers = server.engines() if server is not None else []
        return [each for each in dict.fromkeys([*writers, *readers]) if not draining.is_over(each)]

    def close_database(self, key: Key, unused: Callable[[Sequence[Engine]], bool]) -> bool:
        """Close the engines of a database, which the next use recreates; return whether that was done."""
        with self._plan.profiles.lock:
            found = self.of_database(key)
            if self._plan.overridden or self._plan.profiles.exchanged or not unused(found):
                return False
            self._idle.pop(key, None)
            self._engines.pop(key, None)
            server = self._servers.pop(key, None)
            if server is not None and server.router is not None:
                server.router.rest()
            self._reading = [each for each in self._reading if self._style.bare(each) not in found]
            self._let_go(self._readers, key)
            factory = self._let_go(self._factories, key)
            if factory is not None and self.sessions.get(key[1]) is factory.session:
                del self.sessions[key[1]]
        self._style.close(found)
        return True

    @staticmethod
    def _let_go(makers: dict[Key, M], key: Key) -> M | None:
        """Remove the session factories, under each name by which they were requested."""
        made = makers.get(key)
        for name in [name for name, each in list(makers.items()) if each is made]:
            del makers[name]
        return made

    # Changes

    def forget(self) -> None:
        """Let the next use recreate everything; the caller closes the existing engines."""
        with self._plan.profiles.lock:
            self._engines, self._memories, self._idle = {}, {}, {}
            self.forget_readers()

    def forget_readers(self) -> list[E]:
        """Let the next read-only session recreate its engines; return the old ones."""
        with self._plan.profiles.lock:
            for server in self._servers.values():
                if server.router is not None:
                    server.router.rest()
            found, self._reading, self._servers = self._reading, [], {}
            self.forget_sessions()
            return found

    def forget_sessions(self) -> None:
        """Recreate the session factories at next use, on the same engines: the location of tables has changed."""
        with self._plan.profiles.lock:
            self._readers = {key: readers for key, (_, readers) in self._overrides.items()}
            self._factories = {key: factory for key, (factory, _) in self._overrides.items()}
            self.sessions = {key[1]: made.session for key, made in self._factories.items() if key[0] is None}

    def replace(self, engines: Mapping[Key, E]) -> list[E]:
        """Use other engines from now on; return those for reading, which are recreated at next use."""
        with self._plan.profiles.lock:
            self._engines, self._idle = dict(engines), {}
            for engine in engines.values():
                self.remind(engine)
            return self.forget_readers()

    def remind(self, engine: E) -> None:
        """Watch the database of an engine, unless another one serves it, as during and after a reload."""
        found = self._made.get(engine)
        if found is not None and self._engines.get(found.key, engine) is engine:
            self.look_after(found)

    def retire(self, engine: E) -> None:
        """Do not reuse this engine, even if the application has kept it."""
        with self._plan.profiles.lock:
            self._made[engine] = None

    @contextmanager
    def override(self, makers: Mapping[str, tuple[F, R]]) -> Iterator[None]:
        """Temporarily replace the session factories of some databases, for tests."""
        plan, before = self._plan, self._overrides
        names: tuple[str | None, ...] = (None, plan.profiles.get().name)
        self._override({**before, **{(each, name): made for name, made in makers.items() for each in names}}, 1)
        try:
            yield
        finally:
            self._override(before, -1)

    def _override(self, overrides: dict[Key, tuple[F, R]], change: int) -> None:
        with self._plan.profiles.lock:
            self._plan.overridden += change
            self._overrides = overrides
            self.forget_sessions()


ProcessEngines = Engines[Engine, SessionFactory, Readers[Session]]


@atexit.register
def _say_goodbye() -> None:
    # Otherwise servers log connections that were lost, and Python 3.13 warns of databases that were not closed.
    for engine in pool.engines():
        if not engine.dialect.is_async:
            engine.dispose()
