"""The interface through which the parts of a thread pool use the pool they belong to."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool.base import _ConnDialect

from dbconfig.engine.pool.forks import Mark
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.record import Home, Record, Slot, Waiter
from dbconfig.engine.pool.refusal import Refusal


class Staff(Protocol):
    """Who connects."""

    failures: int  # in a row

    @property
    def free_helpers(self) -> int: ...

    def employ(self, slot: Slot) -> None: ...


class Owner(Home, Protocol):
    """A pool, as seen by what connects in it and what cares for its idle connections."""

    in_its_process: Mark
    options: LineOptions
    idle: deque[Record]
    waiters: OrderedDict[Waiter, None]
    open: int
    connecting: int
    limit: float
    trust: float
    disposed: bool

    @property
    def _dialect(self) -> _ConnDialect | Dialect: ...

    @property
    def connector(self) -> Staff: ...

    def new_slot(self) -> Slot: ...

    def reuse(self, slot: Slot) -> None: ...

    def new_record(self, slot: Slot, deadline: float, now: float) -> Record: ...

    def settle(self, slot: Slot) -> None: ...

    def serve_first(self, outcome: Record | Slot | BaseException | Refusal) -> None: ...

    def give_first(self, slot: Slot) -> None: ...

    def hand_over(self, record: Record, *, used: bool = True) -> None: ...

    def discard(self, record: Record, reason: str) -> None: ...

    def invalidate_all(self) -> None: ...
