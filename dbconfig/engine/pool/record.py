"""The items of the queue: places for connections, connections, and waiting callers."""

from __future__ import annotations

import weakref
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.pool.base import _ConnectionRecord

from dbconfig.engine.pool.refusal import Refusal
from dbconfig.engine.pool.sockets import Look

if TYPE_CHECKING:
    import asyncio
    from threading import RLock
    from types import CodeType

    from sqlalchemy.pool import Pool

    from dbconfig.engine.pool.tally import Counters

NEVER = float("inf")
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
    """The interface through which a slot and its record use their pool."""

    lock: RLock
    counters: Counters
    generation: int

    def take_back(self, slot: Slot) -> None: ...


class Slot:
    """One of the places for a connection. Dropping the object, for any reason, returns the place.

    An interrupt can be raised between any two instructions, also inside SQLAlchemy, after the pool has released a
    connection and before anyone holds it. No ``try`` covers that. But then nothing refers to the record, hence nothing
    to its slot, and the end of the slot frees the place.
    """

    __slots__ = ("__weakref__", "cold", "connecting", "held", "line")

    def __init__(self, line: Home) -> None:
        self.line: Home = line
        self.held: bool = False  # until the line has counted it
        self.connecting: bool = False
        self.cold: bool = False  # the place in which the pool makes its very first connection

    def release(self) -> None:
        self.line.take_back(self)

    def __del__(self) -> None:
        try:
            self._drop()
        except BaseException:
            # An exception from a signal handler: Python prints it here, and nothing else frees the place.
            self._drop()
            raise

    def _drop(self) -> None:
        if hasattr(self, "line"):  # otherwise interrupted before it was initialized
            self.line.take_back(self)


class Record(_ConnectionRecord):
    """SQLAlchemy's connection record with its place in the queue and the times that decide what to do with it.

    All times come from the monotonic clock. They are plain attributes, because they are read at every checkout.
    """

    __slots__ = (
        "checked_at",
        "deadline",
        "doubtful_at",
        "expires",
        "generation",
        "hold",
        "lent_at",
        "look",
        "reason",
        "returned_at",
        "slot",
        "taken_at",
        "task",
        "thread",
        "waited",
    )

    def __init__(self, pool: Pool, slot: Slot, deadline: float, now: float) -> None:
        self.slot: Slot = slot
        self.generation: int = slot.line.generation
        self.deadline: float = deadline  # of the caller who waits for this connect; read by the driver's time limits
        self.expires: float = NEVER
        self.doubtful_at: float = NEVER  # from then on it is checked before it is handed out
        self.returned_at: float = now
        self.lent_at: float = now
        self.checked_at: float = now
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
        """SQLAlchemy has reconnected in this record, because a listener of the application asked for it."""
        self.generation = self.slot.line.generation
        self.look = None

    def count_closed(self) -> None:
        pool = self.slot.line
        with pool.lock:
            pool.counters.count_closed(self.reason or "invalidated")
        self.reason = None

    def part(self, reason: str) -> None:
        """Close the connection. The place is kept: it is the caller's to use again or to release."""
        if self.dbapi_connection is not None:
            self.reason = reason
            self.close()


class Waiter:
    """A caller in the queue. ``gate`` opens when ``outcome`` is set.

    The outcome is a connection, a place in which to connect, the error of the connect that was meant for it, or why it
    gets none.
    """

    __slots__ = ("arrived", "connects", "deadline", "gate", "outcome", "queued")

    def __init__(self, deadline: float, arrived: float, *, connects: bool = True) -> None:
        self.connects: bool = connects  # on its own thread, if need be, where only the driver's limits end it
        self.deadline: float = deadline
        self.arrived: float = arrived
        self.queued: bool = False  # it came while every connection was in use
        self.outcome: Record | Slot | BaseException | Refusal | None = None
        self.gate = Lock()
        self.gate.acquire()
