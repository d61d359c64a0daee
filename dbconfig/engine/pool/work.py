"""Who is at work on a place of the pool of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbconfig.engine.pool.place import State

if TYPE_CHECKING:
    from collections.abc import Collection
    from threading import RLock

    from dbconfig.engine.pool.place import Place


class Work:
    """One thread's work on places, for as long as it lasts. Its end is a plain assignment, which no signal prevents."""

    __slots__ = ("lasts",)

    def __init__(self) -> None:
        self.lasts: bool = True


class Order(Work):
    """A place that a helper thread is to connect in.

    It belongs either to the starter, which can withdraw the order until the thread has begun, or to the thread.
    """

    __slots__ = ("_lock", "place")

    def __init__(self, place: Place, lock: RLock) -> None:
        super().__init__()
        self._lock = lock
        self.place: Place | None = place

    def begin(self) -> Place | None:
        with self._lock:
            place, self.place = self.place, None
        return place

    def withdraw(self) -> bool:
        """Take the order back, unless the thread has begun."""
        with self._lock:
            withdrawn = self.place is not None
            if withdrawn:
                self.place, self.lasts = None, False
        return withdrawn


def is_held(place: Place, handed: Collection[Place | None]) -> bool:
    """Return whether a caller, a thread at work, or a record that is alive has a place that is not idle."""
    if place in handed:
        return True
    keeper = place.keeper
    if isinstance(keeper, Work):
        return keeper.lasts
    # What holds the record of a connection in use is unknown, but without a holder it dies, and its slot with it.
    return place.state is State.LENT and place.connection is None and keeper is not None and keeper() is not None
