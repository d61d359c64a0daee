"""SQLAlchemy's connection record with its place in the queue, and what returns the place when the record is dropped."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.pool.base import _ConnectionRecord

from dbconfig.engine.pool.place import Place, State
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Look

if TYPE_CHECKING:
    import asyncio
    from threading import RLock
    from types import CodeType

    from dbconfig.engine.pool.line import Line
    from dbconfig.engine.pool.tally import Counters

REASON = "dbconfig.reason"  # in record.info of SQLAlchemy's own pools: why a connection is being closed


def is_held_here(lock: RLock) -> bool:
    """Return whether this very thread holds the lock."""
    held: bool = lock._is_owned()  # type: ignore[attr-defined]  # required by threading.Condition
    return held


class Leaks(Protocol):
    """Observes each checkout, with pool_leak_warning."""

    def taken(self, record: Record) -> None: ...

    def returned(self, record: Record) -> None: ...

    def forgotten(self, record: Record) -> None: ...


class Home(Protocol):
    """The interface through which a record uses its pool."""

    lock: RLock
    line: Line
    counters: Counters

    def take_back(self, place: Place) -> None: ...


class Slot:
    """Held by a record alone. Dropping the record, for any reason, returns its place.

    An interrupt can be raised between any two instructions, also inside SQLAlchemy, after the pool has released a
    connection and before anyone holds it. No ``try`` covers that. But then nothing refers to the record, hence nothing
    to its slot, and the end of the slot frees the place.
    """

    __slots__ = ("__weakref__", "home", "place")

    def __init__(self, home: Home, place: Place) -> None:
        self.home: Home = home
        self.place: Place = place

    def __del__(self) -> None:
        try:
            self._drop()
        except BaseException:
            # An exception from a signal handler: Python prints it here, and nothing else frees the place.
            self._drop()
            raise

    def _drop(self) -> None:
        if hasattr(self, "place") and self.place.state is not State.FREE:  # else interrupted before it was initialized
            self.home.take_back(self.place)


class Record(_ConnectionRecord):
    """A record that keeps its times in its place, where the queue reads them. They come from the monotonic clock."""

    __slots__ = (
        "_home",
        "deadline",
        "doubtful_at",
        "hold",
        "kept",
        "look",
        "place",
        "reason",
        "slot",
        "taken_at",
        "task",
        "thread",
        "waited",
    )

    def __init__(self, pool: Any, place: Place, deadline: float = NEVER) -> None:  # a Pool that is also a Home
        self._home: Any = pool
        self.place: Place = place
        self.slot: Slot | None = None  # as soon as there is a connection
        self.kept: weakref.ref[Slot] | None = None  # tells whether anyone has the record
        self.deadline: float = deadline  # of the caller who waits for this connect; read by the driver's time limits
        self.doubtful_at: float = NEVER  # from then on it is checked before it is handed out
        self.thread: int = 0
        self.task: weakref.ref[asyncio.Task[Any]] | None = None
        self.reason: str | None = None  # why it is being closed, for the statistics
        self.look: Look | None = None
        # When it was last handed to a caller that had to wait, and how long that took; for tracing.
        self.waited: tuple[float, float] | None = None
        self.taken_at: list[tuple[CodeType, int]] = []  # the lines that took it, with pool_leak_warning
        self.hold: Any = None  # once it was reported as a leak
        super().__init__(pool)

    def renewed(self) -> None:
        """SQLAlchemy has connected; perhaps once more, because a listener of the application asked for it."""
        self.look = None
        if self.place.state is not State.CONNECTING:
            self.place.generation = self._home.line.generation
            self.place.condemned = False

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        try:
            super().invalidate(e, soft)
        finally:
            if self.dbapi_connection is not None:  # softly, or interrupted
                self.place.condemned = True

    def count_closed(self) -> None:
        with self._home.lock:
            self._home.counters.count_closed(self.reason or "invalidated")
        self.reason = None

    def part(self, reason: str) -> None:
        """Close the connection. The place is kept: it is the caller's to use again or to release."""
        if self.dbapi_connection is not None:
            self.reason = reason
            self.close()

    @property
    def generation(self) -> int:
        return self.place.generation

    @property
    def lent_at(self) -> float:
        return self.place.lent_at

    @property
    def returned_at(self) -> float:
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
    def expires(self, when: float) -> None:
        self.place.expires = when
