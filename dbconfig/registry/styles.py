"""How a registry creates engines, and the differences between those for threads and those for an event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine

from dbconfig.engine import pool
from dbconfig.errors.light_dataclass import dataclass, field
from dbconfig.registry.profiles import Profiles
from dbconfig.replicas import open_readers
from dbconfig.sessions.model_databases import Homes
from dbconfig.sessions.session_classes import SQLMODEL, SessionClasses
from dbconfig.sessions.sessionmaker import Readers, SessionFactory, Several, readers_over_several
from dbconfig.settings.database import DatabaseSettings

Key = tuple[str | None, str]  # profile and database; a profile of None is the registry's own


@dataclass(slots=True)
class Plan:
    """What all engines of a registry are created from."""

    profiles: Profiles
    options: Mapping[str, Any]  # arguments of create_engine that only code can express
    classes: SessionClasses = SQLMODEL
    homes: Homes = field(default_factory=Homes)
    overridden: int = 0  # number of active overrides
    watchers: tuple[Callable[[Engine], None], ...] = ()  # called with each new engine
    around: Callable[[Any], AbstractContextManager[object]] | None = None  # what units of work run within
    # In tests, by the names of profile and database: turns the session factories of every event loop into others.
    joining: Mapping[Key, Callable[[Any], tuple[Any, Any]]] = field(default_factory=dict)


E = TypeVar("E")  # Engine or AsyncEngine
E_co = TypeVar("E_co", covariant=True)


class Factory(Protocol[E_co]):
    """The session factories of one engine."""

    @property
    def engine(self) -> E_co: ...

    @property
    def session(self) -> Callable[[], Any]: ...


F = TypeVar("F", bound=Factory[Any])
F_co = TypeVar("F_co", bound=Factory[Any], covariant=True)
R = TypeVar("R", bound=Readers[Any])


class Style(Protocol[E, F_co, R]):
    """The differences between engines and sessions for threads and those for an event loop."""

    asynchronous: bool

    def later(self, key: object, job: Callable[[], float | None], seconds: float) -> None: ...

    def close(self, engines: Sequence[Engine]) -> None: ...

    def adopt(self, engine: Engine) -> E: ...

    def bare(self, engine: E) -> Engine: ...

    def factory(
        self, engine: E, settings: DatabaseSettings, several: Several | None, classes: SessionClasses
    ) -> F_co: ...

    def readers(
        self,
        settings: DatabaseSettings,
        label: str,
        open_engine: Callable[..., E],
        beside: Engine | None,
        classes: SessionClasses,
    ) -> R: ...

    def readers_over_several(
        self, found: R, settings: DatabaseSettings, several: Several, classes: SessionClasses
    ) -> R: ...


class Threads:
    """The style of the process: any thread may use its engines."""

    asynchronous = False

    def later(self, key: object, job: Callable[[], float | None], seconds: float) -> None:
        """Call a function after some seconds, and again after the seconds that it returns."""
        pool.caretaker.add(key, job, seconds)

    def close(self, engines: Sequence[Engine]) -> None:
        """Close idle connections; the engines stay usable."""
        for engine in engines:
            engine.dispose()

    def adopt(self, engine: Engine) -> Engine:
        return engine

    def bare(self, engine: Engine) -> Engine:
        return engine

    factory = staticmethod(SessionFactory.of)
    readers = staticmethod(open_readers)
    readers_over_several = staticmethod(readers_over_several)
