"""What a registry is made of; the integrations use it, an application does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbconfig.engine.pool import forks
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.registry.engines import Engines, Key, Plan, ProcessEngines, Threads
from dbconfig.registry.profiles import Profiles
from dbconfig.registry.reloading import Reload

if TYPE_CHECKING:
    from dbconfig.registry.event_loops import EventLoops


class Parts:
    """The profiles, the engines of the process, and those of each event loop."""

    def __init__(self, profiles: Profiles, options: Mapping[str, Any]) -> None:
        self.profiles = profiles
        self.plan = Plan(profiles, options)
        self.homes = self.plan.homes
        self.engines: ProcessEngines = Engines(self.plan, Threads())
        self.reload = Reload(profiles, self.engines)
        self.event_loops: EventLoops | None = None  # until the first of them asks
        profiles.forgetting = self._leave_to_the_parent
        forks.guard(profiles)

    @property
    def loops(self) -> EventLoops:
        """The engines of event loops; nothing asynchronous is imported before.

        Raises:
            ConfigError: greenlet is not installed.
        """
        if self.event_loops is None:
            self.event_loops = _import_event_loops().EventLoops(self.plan, self.engines)
        return self.event_loops

    @contextmanager
    def join(self, makers: Mapping[str, Callable[[Any], tuple[Any, Any]]]) -> Iterator[None]:
        """Make the asynchronous sessions of some databases with something else for a while, in every event loop.

        Args:
            makers: by database; of a loop's factory they make another one, and what reading sessions are made with.
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

    def _leave_to_the_parent(self) -> None:
        self.reload.forget_callers()
        self.engines.forget_readers()
        if self.event_loops is not None:
            self.event_loops.leave_to_the_parent()


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
