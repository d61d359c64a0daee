"""What a registry does with replicas: reading sessions, and the tokens that make them see what was written."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlmodel import Session

from dbconfig.engine import read_only
from dbconfig.replicas import read_your_writes
from dbconfig.replicas.health import ReaderStats
from dbconfig.replicas.routing import RoutedSession, RoutedSnapshot, Router
from dbconfig.sessions import session
from dbconfig.sessions.sessionmaker import Readers, session_arguments
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.profile import DEFAULT, Profile

if TYPE_CHECKING:
    from dbconfig.sessions.model_databases import Homes
    from dbconfig.sessions.sessionmaker import SessionFactory


class Replication:
    """Reading sessions of a registry."""

    _lock: threading.RLock
    _engine_options: dict[str, Any]
    _homes: Homes
    # By (profile, database), as the factories.
    _readers: dict[tuple[str | None, str], Readers]

    def write_token(self, database: str = DEFAULT) -> str:
        """Return what the present task or thread has committed, as text for a cookie, a header or a message.

        `read_after` takes it, in another request or process. "" is nothing to wait for: no commit, or no replicas.
        """
        router = self._router(database)
        mark = router.mark() if router is not None else None
        return read_your_writes.to_token({router.key: mark}) if router is not None and mark is not None else ""

    def read_after(self, token: str | None = None) -> AbstractContextManager[object]:
        """Let reading sessions see what a token stands for, and what anybody writes within the `with`.

        Tasks and threads that are started within it share it; so it belongs around a whole request.

        Raises:
            ValueError: it is no token.
        """
        return read_your_writes.scope(read_your_writes.from_token(token or ""))

    def readers(self, database: str = DEFAULT) -> list[ReaderStats]:
        """Return how each server of a database has served its reading sessions; [] without replicas."""
        router = self._router(database)
        return router.stats() if router is not None else []

    def _router(self, database: str) -> Router | None:
        found = self._readers_of(database, None).router
        return found if isinstance(found, Router) else None

    def _reading_session(self, database: str, profile: str | None, *, snapshot: bool) -> Session:
        readers = self._readers.get((profile, database)) or self._readers_of(database, profile)
        return readers.snapshot() if snapshot else readers.plain()

    def _readers_of(self, database: str, name: str | None) -> Readers:
        found = self._readers.get((name, database))
        if found is not None:
            return found
        with self._lock:
            profile = self._profile(name)
            found = self._readers.get((profile.name, database))
            if found is None:
                settings = self._settings(profile, database)
                label = profile.name if database == DEFAULT else f"{profile.name}/{database}"
                found = self._open_readers(settings, label, self._factory(database, name).engine)
                if self._homes and database == DEFAULT:
                    found = self._bound_readers(found, session_arguments(settings), profile.name)
                self._readers[profile.name, database] = found
            self._readers[name, database] = found
            return found

    def _open_readers(self, settings: DatabaseSettings, label: str, primary: Engine) -> Readers:
        arguments = session_arguments(settings)
        if settings.replicas:
            router = Router(settings, label, partial(self._open_reader, patient=False))
            plain = partial(RoutedSession, router=router, **arguments)
            snapshot = partial(RoutedSnapshot, router=router, **arguments)
            return Readers(plain, snapshot, router.choose, router.engines, router)
        beside = primary if settings.in_memory else None
        engine = self._open_reader(settings, f"{label}/reads", beside=beside)
        return Readers(
            partial(session.ReadOnlySession, engine, **arguments),
            partial(session.SnapshotSession, engine, **arguments),
            lambda: engine,
            lambda: [engine],
        )

    def _open_reader(self, settings: DatabaseSettings, label: str, **how: Any) -> Engine:
        return read_only.open_engine(settings, label, self._engine_options, **how)

    def _reading_engines(self) -> list[Engine]:
        return [engine for readers in list(self._readers.values()) for engine in readers.engines()]

    def _stop_routing(self) -> None:
        for readers in self._readers.values():
            if isinstance(readers.router, Router):
                readers.router.rest()

    # What the registry has.

    if TYPE_CHECKING:

        def _profile(self, name: str | None) -> Profile: ...
        def _settings(self, profile: Profile, database: str) -> DatabaseSettings: ...
        def _factory(self, database: str, name: str | None) -> SessionFactory: ...
        def _bound_readers(self, readers: Readers, arguments: Mapping[str, Any], profile: str | None) -> Readers: ...
