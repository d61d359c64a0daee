"""Counters of one engine: its connections, and how many were opened, used, and closed for which reason."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Callable
from threading import RLock, get_ident
from time import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool import forks
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.ours import is_ours
from dbconfig.engine.pool.record import REASON, Record
from dbconfig.engine.pool.tally import Counters

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

    from dbconfig.engine.pool.diagnostics.stats import PoolStats

# In record.info of SQLAlchemy's own pools: when the use began, and who holds the connection.
LENT = "dbconfig.lent"
BY = "dbconfig.by"
MOST_PLACES = 100  # call sites that are counted; an application has few
UNKNOWN = "an unknown place"
OTHERS = "other places"


class Holder(NamedTuple):
    """Who has a connection at this moment."""

    record: Any
    seconds: float
    thread: int
    task: asyncio.Task[Any] | None


class Reader(Protocol):
    """How the server of an engine serves read-only sessions."""

    reads: int
    asked: bool
    lag: float | None
    out: str


_numbers = itertools.count(1)


class Ledger:
    """The books of one engine, across all the pools that ``dispose`` makes it have."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number: int = next(_numbers)
        self.counters: Counters = Counters()  # of SQLAlchemy's own pools; ours count in their line
        self.known: WeakSet[Any] = WeakSet()
        self.role = "primary"
        # What serves read-only sessions by this engine, where there are replicas. Weakly: it refers to the engine.
        self.reader: Callable[[], Reader | None] = lambda: None
        self.leaks: int = 0
        self.held_at: dict[str, int] = {}
        self.idle_at: dict[str, int] = {}
        self.failovers: int = 0
        self.uncertain_commits: int = 0
        self.retries: dict[str, int] = {}
        self._unlock()
        forks.after_fork_in_child(self._unlock)

    def _unlock(self) -> None:
        self.lock: RLock = RLock()  # re-entrant: the garbage collector may check a connection in at any time

    def count_leak(self, place: str | None, *, idle: bool) -> None:
        """Count a connection that was held for too long, and where; `idle` in its transaction."""
        with self.lock:
            self.leaks += 1
            for counts in (self.held_at, self.idle_at) if idle else (self.held_at,):
                where = UNKNOWN if place is None else place
                if where not in counts and len(counts) >= MOST_PLACES:
                    where = OTHERS
                counts[where] = counts.get(where, 0) + 1

    def count_failover(self) -> None:
        with self.lock:
            self.failovers += 1

    def count_uncertain_commit(self) -> None:
        with self.lock:
            self.uncertain_commits += 1

    def count_retry(self, reason: str) -> None:
        with self.lock:
            self.retries[reason] = self.retries.get(reason, 0) + 1

    def records(self) -> list[Any]:
        """Return the records of connections in use."""
        with self.lock:
            known = list(self.known)
        return [record for record in known if record.fairy_ref is not None]

    def disown(self) -> list[Any]:
        """In a forked child: the connections that exist are the parent's, and nothing here may end them."""
        known, self.known = self.known, WeakSet()
        return [record for record in known if record.dbapi_connection is not None]

    def live(self) -> list[Any]:
        """Return the records that have a connection, in use or idle."""
        with self.lock:
            known = list(self.known)
        return [record for record in known if record.dbapi_connection is not None]

    def holders(self) -> list[Holder]:
        now = monotonic()
        found = []
        for record in self.records():
            if isinstance(record, Record):
                task = record.task() if record.task is not None else None
                found.append(Holder(record, now - record.lent_at, record.thread, task))
            elif LENT in record.info:
                thread, task = record.info.get(BY, (0, None))
                found.append(Holder(record, now - record.info[LENT], thread, task and task()))
        return found

    def stats(self, pool: Pool) -> PoolStats:
        from dbconfig.engine.pool.diagnostics.stats import PoolStats, counted

        if is_ours(pool):
            every = (*pool.past.counters(), pool.counters)
            connecting, idle, waiting = pool.connecting, len(pool.idle), len(pool.waiters)
            used = max(0, pool.open - connecting - idle)
        else:
            every = (self.counters,)
            used, connecting, waiting = len(self.records()), 0, 0
            with self.lock:
                idle = sum(record.dbapi_connection is not None and not record.in_use for record in self.known)
        size, most = _sizes(pool)
        reader = self.reader()
        return PoolStats(
            name=self.name,
            size=size,
            max=most,
            idle=idle,
            used=used,
            connecting=connecting,
            waiting=waiting,
            **counted(every),
            leaks=self.leaks,
            held_at=MappingProxyType(dict(self.held_at)),
            idle_at=MappingProxyType(dict(self.idle_at)),
            server_full=pool.options.judge.full if is_ours(pool) else 0,
            failovers=self.failovers,
            retries=MappingProxyType(dict(self.retries)),
            uncertain_commits=self.uncertain_commits,
            role=self.role,
            reads=0 if reader is None else reader.reads,
            lag=None if reader is None else reader.lag,
            out="" if reader is None else reader.out,
            min_idle=pool.options.min_idle if is_ours(pool) else 0,
            number=self.number,
        )


def _sizes(pool: Pool) -> tuple[int, int | None]:
    if not isinstance(pool, QueuePool):
        return 0, None
    size, overflow = pool.size(), pool._max_overflow
    return size, None if overflow < 0 else size + overflow


def attach(engine: Engine, name: str) -> Ledger:
    """Begin to keep the books of an engine."""
    ledger = Ledger(name)

    def connect(connection: Any, record: Any) -> None:
        if isinstance(record, Record):
            record.renewed()
        with ledger.lock:
            ledger.known.add(record)

    event.listen(engine, "connect", connect)
    if is_ours(engine.pool):
        _count_closing(engine)
    else:
        _count_everything(engine, ledger)
    return ledger


def _count_closing(engine: Engine) -> None:
    """Our queue counts its own actions, and what SQLAlchemy closes, for which it gives no reason, as invalidated."""

    def close(connection: Any, record: Any) -> None:
        if isinstance(record, Record):
            record.count_closed()

    event.listen(engine, "close", close)


def _count_everything(engine: Engine, ledger: Ledger) -> None:
    counters = ledger.counters

    def created(connection: Any, record: Any) -> None:
        with ledger.lock:
            # SQLAlchemy records the start of the connect with the wall clock only.
            counters.create.observe(max(0.0, time() - record.last_connect_time))

    def lent(connection: Any, record: Any, fairy: Any) -> None:
        record.info[LENT] = monotonic()
        record.info[BY] = (get_ident(), None)

    def lent_to_task(connection: Any, record: Any, fairy: Any) -> None:
        task = asyncio.current_task()
        record.info[LENT] = monotonic()
        record.info[BY] = (get_ident(), None if task is None else weakref.ref(task))

    def returned(connection: Any, record: Any) -> None:
        since = record.info.get(LENT)
        if since is not None:
            with ledger.lock:
                counters.use.observe(monotonic() - since)

    def invalidate(connection: Any, record: Any, error: BaseException | None) -> None:
        record.info.setdefault(REASON, "invalidated")

    def close(connection: Any, record: Any) -> None:
        reason = record.info.pop(REASON, "closed")
        with ledger.lock:
            counters.count_closed(reason)

    listeners: list[tuple[str, Callable[..., None]]] = [
        ("connect", created),
        ("checkout", lent_to_task if engine.dialect.is_async else lent),
        ("checkin", returned),
        ("invalidate", invalidate),
        ("close", close),
    ]
    for name, listener in listeners:
        event.listen(engine, name, listener)
