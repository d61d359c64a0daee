"""The data types of the queue: places, callers, rules, and the commands for its driver."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from . import judgements
from .refusal import NEVER, Refusal


class State(enum.Enum):
    """What a place is used for."""

    CONNECTING = enum.auto()
    IDLE = enum.auto()
    LENT = enum.auto()
    CHECKING = enum.auto()  # the driver pings an idle connection
    CLOSING = enum.auto()
    FREE = enum.auto()  # the place no longer counts


class Place:
    """One of the places for a connection; ``connection`` is what the driver keeps in it."""

    __slots__ = (
        "by_caller",
        "checked_at",
        "condemned",
        "connection",
        "expires",
        "generation",
        "keeper",
        "lent_at",
        "returned_at",
        "started_at",
        "state",
    )

    def __init__(self, now: float, generation: int) -> None:
        self.connection: Any = None
        self.keeper: Any = None  # belongs to the driver: who is at work on it
        self.by_caller: bool = False  # a caller connects in it, on its own thread
        self.state: State = State.CONNECTING
        self.generation: int = generation
        self.condemned: bool = False  # closes instead of being handed out again
        self.expires: float = NEVER
        self.started_at: float = now
        self.returned_at: float = now
        self.checked_at: float = now
        self.lent_at: float = now


class Caller:
    """A caller that waits for a connection until ``deadline``.

    Exactly one of ``place`` and ``error`` is set when the line has decided; ``key`` belongs to the driver. In a place
    without a connection the caller connects.
    """

    __slots__ = ("arrived", "connects", "deadline", "error", "half", "key", "place", "queued", "until")

    def __init__(self, deadline: float, arrived: float, key: Any = None, *, connects: bool = True) -> None:
        self.connects: bool = connects  # on its own thread, if need be, where only the driver's limits end it
        self.deadline: float = deadline
        self.until: float = NEVER  # belongs to the driver: when this wait ends
        self.half: float = NEVER  # this too: when half of it is over
        self.arrived: float = arrived
        self.key: Any = key
        self.queued: bool = False  # it came while every connection was in use
        self.place: Place | None = None
        self.error: BaseException | Refusal | None = None


@dataclass(frozen=True)
class Rules:
    """The rules of a queue. Durations are in seconds."""

    size: float = 5.0  # infinite: unlimited
    limit: float = 15.0
    lifo: bool = False
    max_waiting: int | None = None
    min_idle: int = 0
    idle_timeout: float | None = None
    keepalive: float | None = None
    patient: bool = True  # wait for a server that cannot be reached, until the deadline; or fail immediately
    callers_connect: bool = False  # each on its own thread: opening a local file needs no helper
    # The very first connect runs on its caller's thread, so that a wrong host or password ends in a plain traceback.
    first_by_caller: bool = False
    connects_at_once: int = judgements.CONNECTS_AT_ONCE
    connect_stalls: float = 1.0
    retry_first: float = judgements.RETRY_FIRST
    retry_longest: float = judgements.RETRY_LONGEST
    retry_refused: float = judgements.RETRY_REFUSED
    queue_target: float | None = None  # shed load while no caller is served sooner

    def retry_pause(self, failures: int, *, transient: bool) -> float:
        """Return the seconds until the next attempt, after so many failed ones in a row."""
        return judgements.retry_pause(
            failures,
            transient=transient,
            first=self.retry_first,
            longest=self.retry_longest,
            refused=self.retry_refused,
        )


# Commands. A driver carries them out in this order, each once. Not frozen: a frozen one takes three times as long to
# make, and each hand-off makes one.


@dataclass(slots=True)
class Serve:
    """The decision about this caller has been made: wake it up."""

    caller: Caller


@dataclass(slots=True)
class Connect:
    """Open a connection in this place, then call ``connected`` or ``connect_failed``; or ``entrust``, if you cannot."""

    place: Place


@dataclass(slots=True)
class Close:
    """Close the connection in this place, then call ``closed``."""

    place: Place
    reason: str
    polite: bool = True  # else silently, for its last answer may still be under way


@dataclass(slots=True)
class Ping:
    """Check with the server that this idle connection is alive, then call ``checked``."""

    place: Place


@dataclass(slots=True)
class WakeAt:
    """Call ``tick`` at this time, instead of at the time given before."""

    when: float


Command = Serve | Connect | Close | Ping | WakeAt
