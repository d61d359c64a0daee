"""The interface through which the parts of a thread pool use the pool they belong to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool.base import _ConnDialect

from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.place import Caller, Place
from dbconfig.engine.pool.record import Home, Record
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.work import Order


class Owner(Home, Protocol):
    """A pool, as seen by what connects in it and what cares for its idle connections."""

    options: LineOptions
    waiters: OrderedDict[Caller, None]
    torn: bool

    @property
    def _dialect(self) -> _ConnDialect | Dialect: ...

    def tell(self, event: Callable[..., None], *arguments: Any, helper: Order | None = None) -> None: ...

    def repair(self) -> None: ...

    def connected(self, place: Place, record: Record) -> None: ...

    def asked(self, place: Place, verdict: Verdict) -> None: ...

    def connect_failed(self, place: Place, error: BaseException, transient: bool) -> None: ...
