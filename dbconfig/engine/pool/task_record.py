"""SQLAlchemy's connection record with its place in the queue, for pools of asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.pool.base import _ConnectionRecord

from dbconfig.engine.pool import driver
from dbconfig.engine.pool.record import NEVER, Record

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine.interfaces import Dialect

    from dbconfig.engine.pool.line import Line
    from dbconfig.engine.pool.place import Place
    from dbconfig.engine.pool.tally import Counters


class TaskHome(Protocol):
    """The interface through which a record uses its pool."""

    line: Line
    counters: Counters
    thread: int

    @property
    def _dialect(self) -> Dialect: ...


class TaskRecord(Record):
    """A record that keeps its times in its place, where the queue reads them."""

    __slots__ = ("_home", "place", "transport")

    def __init__(self, pool: Any, place: Place) -> None:  # a Pool that is also a TaskHome: not expressible as a type
        self._home: TaskHome = pool
        self.place: Place = place
        self.transport: asyncio.WriteTransport | None = None
        self.deadline = NEVER  # no caller's: it has its own task
        self.doubtful_at = NEVER
        self.thread: Any = pool.thread
        self.task = None
        self.reason = None
        self.look = None
        self.waited = None
        _ConnectionRecord.__init__(self, pool)

    def renewed(self) -> None:
        self.look = None
        self.transport = driver.of(self._home._dialect).transport(self.driver_connection)
        if self.place.connection is self:  # a second time, because a listener of the application asked for it
            self.place.generation = self._home.line.generation
            self.place.condemned = False

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        super().invalidate(e, soft)
        if soft:
            self.place.condemned = True

    def count_closed(self) -> None:
        self._home.counters.count_closed(self.reason or "invalidated")
        self.reason = None

    @property
    def lent_at(self) -> float:  # type: ignore[override]  # a plain attribute above
        return self.place.lent_at

    @property
    def returned_at(self) -> float:  # type: ignore[override]
        return self.place.returned_at

    @property
    def checked_at(self) -> float:
        return self.place.checked_at

    @checked_at.setter
    def checked_at(self, when: float) -> None:
        self.place.checked_at = when

    @property
    def expires(self) -> float:
        return self.place.expires

    @expires.setter
    def expires(self, when: Any) -> None:
        self.place.expires = when
