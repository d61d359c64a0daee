"""The pool: a fair queue on top of SQLAlchemy's QueuePool, and behaviors attached through its events."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy.pool
from sqlalchemy import event
from sqlalchemy.pool import QueuePool, SingletonThreadPool

from dbconfig.engine.pool import (
    beside,
    deadline_limit,
    failover,
    forks,
    interrupted,
    lifetime,
    ping,
    retiring,
    sockets,
    statement_limit,
)
from dbconfig.engine.pool.both import Ours
from dbconfig.engine.pool.call_watchdog import watch
from dbconfig.engine.pool.connect_limit import limit_connect_time
from dbconfig.engine.pool.diagnostics import call_sites, counters, leaks, timeout_report
from dbconfig.engine.pool.driver import Driver, introduce
from dbconfig.engine.pool.maintenance import caretaker
from dbconfig.engine.pool.options import SYSTEM_ERRORS, Judge, LineOptions
from dbconfig.engine.pool.ours import is_ours
from dbconfig.engine.pool.retiring import close_on_return, dispose, interrupt, retire
from dbconfig.engine.pool.sockets import descriptor
from dbconfig.engine.pool.threads import FairPool

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from dbconfig.engine.pool.diagnostics.stats import Histogram, PoolStats
    from dbconfig.engine.pool.tasks import TaskPool

__all__ = [
    "FairPool",
    "Histogram",
    "PoolSettings",
    "PoolStats",
    "TaskPool",
    "attach",
    "caretaker",
    "close_on_return",
    "connect_beside",
    "descriptor",
    "dispose",
    "drain",
    "engines",
    "inspect_each_loan",
    "interrupt",
    "ledger",
    "ledger_if_any",
    "limit_by_deadlines",
    "pin_in_flight",
    "pool_arguments",
    "retire",
    "stats",
    "watch",
]


class PoolSettings(Protocol):
    """What the pool reads from the settings of a database; everything is validated before."""

    @property
    def pool_size(self) -> int: ...  # 0: unlimited
    @property
    def max_overflow(self) -> int: ...  # -1: unlimited
    @property
    def pool_timeout(self) -> float: ...
    @property
    def pool_recycle(self) -> float: ...  # -1: never
    @property
    def pool_pre_ping(self) -> bool | float: ...
    @property
    def pool_use_lifo(self) -> bool: ...
    @property
    def pool_min_idle(self) -> int: ...
    @property
    def pool_idle_timeout(self) -> float | None: ...
    @property
    def pool_keepalive(self) -> float | None: ...
    @property
    def pool_max_waiting(self) -> int | None: ...
    @property
    def pool_queue_target(self) -> float | None: ...
    @property
    def pool_leak_warning(self) -> float | None: ...
    @property
    def poolclass(self) -> str | None: ...  # None: ours
    @property
    def connect_timeout(self) -> float: ...
    @property
    def statement_timeout(self) -> float | None: ...
    def origin(self, key: str) -> object: ...  # str() of it: where the value was written


def pool_arguments(
    settings: PoolSettings,
    *,
    name: str,
    patient: bool,
    is_async: bool = False,
    judge: Judge = SYSTEM_ERRORS,
) -> dict[str, Any]:
    """Return what to add to the keywords of ``create_engine``, or, with ``is_async``, of ``create_async_engine``.

    ``patient``: callers wait for a server that cannot be reached, until their deadline; or fail immediately.
    ``judge``: says which failed connects are worth another attempt.
    """
    poolclass = _poolclass(settings, is_async)
    # SQLAlchemy's own ping and recycling stay off, as they are by default: ours are attached to every kind of pool.
    arguments: dict[str, Any] = {"poolclass": poolclass}
    if issubclass(poolclass, QueuePool):
        arguments |= {
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_timeout": settings.pool_timeout,
            "pool_use_lifo": settings.pool_use_lifo,
        }
    elif issubclass(poolclass, SingletonThreadPool):
        arguments["pool_size"] = settings.pool_size
    if issubclass(poolclass, Ours):
        arguments["line"] = LineOptions(
            name=name,
            max_waiting=settings.pool_max_waiting,
            queue_target=settings.pool_queue_target,
            check=_check(settings),
            min_idle=settings.pool_min_idle,
            idle_timeout=settings.pool_idle_timeout,
            keepalive=settings.pool_keepalive,
            judge=judge,
            patient=patient,
        )
    return arguments


def attach(
    engine: Engine,
    settings: PoolSettings,
    *,
    name: str,
    read_only: bool = False,
    judge: Judge = SYSTEM_ERRORS,
    driver: Driver,
) -> None:
    """Attach the behaviors to an engine; for an async one pass its ``sync_engine``. Off means not attached."""
    introduce(engine.dialect, driver)
    call_sites.skip(driver.package)
    ours = is_ours(engine.pool)
    sockets.attach(engine)
    interrupted.attach(engine)
    limit_connect_time(engine, settings.connect_timeout, driver)
    if settings.statement_timeout is not None:
        statement_limit.attach(engine, settings.statement_timeout)
    if settings.pool_recycle >= 0:
        (lifetime.attach_to_line if ours else lifetime.attach)(engine, settings.pool_recycle)
    check = _check(settings)
    if check is not None and not ours:
        ping.attach(engine, check, settings.pool_timeout)
    ledger = counters.attach(engine, name)
    _ledgers[engine] = ledger
    failover.attach(engine, name, judge, ledger.count_failover, read_only=read_only)
    holders = None
    if settings.pool_leak_warning is not None:
        holders = leaks.attach(engine, name, settings.pool_leak_warning, ledger, driver)
    if is_ours(engine.pool):
        engine.pool.explain = timeout_report.explainer(weakref.ref(engine), ledger, settings, holders)
        engine.pool.server, engine.pool.disown = _server(engine), ledger.disown
        engine.pool.at_dispose = holders.rest if holders is not None else None


def inspect_each_loan(engine: Engine, inspect: Callable[[Any, ConnectionPoolEntry], None]) -> None:
    """Call a function with each connection to be handed out; a DisconnectionError replaces the connection.

    It does what a `checkout` listener does, at a tenth of the cost, because SQLAlchemy's listener loops are skipped.
    """
    pool = engine.pool
    if is_ours(pool):
        pool.inspections = (*pool.inspections, inspect)
    else:
        event.listen(engine, "checkout", lambda connection, record, proxy: inspect(connection, record))


def limit_by_deadlines(engine: Engine) -> None:
    """Let an engine's statements end with the deadline of the caller that executes them; after all other behaviors."""
    deadline_limit.attach(engine)


def stats(engine: Engine) -> PoolStats:
    """Return the gauges and counters of an engine that ``attach`` has seen."""
    return _ledgers[getattr(engine, "_proxied", engine)].stats(engine.pool)


def pin_in_flight(engine: Engine) -> None:
    """In a forked child, before ``engine.dispose(close=False)``: leave the parent's connections untouched."""
    in_use = _ledgers[engine].records()
    _ledgers[engine].disown()
    forks.pin(in_use)


def ledger(engine: Engine) -> counters.Ledger:
    """Return the books of an engine that ``attach`` has seen."""
    return _ledgers[engine]


def ledger_if_any(engine: Any) -> counters.Ledger | None:
    """Return the books of an engine of either kind, which the application may have created."""
    engine = getattr(engine, "sync_engine", engine)
    return _ledgers.get(getattr(engine, "_proxied", engine))


def connect_beside(engine: Engine) -> None:
    """Open a connection outside the pool and close it, to check that connecting is possible now."""
    with beside.connected(engine.pool):
        pass


def drain(engine: Engine) -> retiring.Drain:
    """Start draining an engine: from now on it hands out no connections."""
    return retiring.Drain(engine, _ledgers[engine])


# Keyed weakly: the counters of an engine are dropped with it.
_ledgers: weakref.WeakKeyDictionary[Engine, counters.Ledger] = weakref.WeakKeyDictionary()


def _server(engine: Engine) -> str:
    """Return the name of an engine's server for error messages."""
    url = engine.url
    if url.host is None:
        return "the server"
    return f"the server {url.host}" if url.port is None else f"the server {url.host}:{url.port}"


def engines() -> list[Engine]:
    """Return every engine of the process that is in use, of all registries."""
    while True:
        try:
            return list(_ledgers)
        except RuntimeError:  # another thread has attached to one meanwhile
            continue


def _leave_to_the_parent() -> None:
    """In a forked child: give up the connections of every engine, which belong to the parent."""
    for engine in engines():
        # The child shares our sockets: forget the pool, do not close it, or the parent loses its connections.
        # Detach what open sessions hold, or their rollback would end the parent's transaction.
        pin_in_flight(engine)
        if engine.dialect.is_async:
            forks.keep(engine.pool)
        engine.dispose(close=False)


forks.after_locks_in_child(_leave_to_the_parent)


def _poolclass(settings: PoolSettings, is_async: bool) -> type[Pool]:
    if settings.poolclass is not None:
        poolclass: type[Pool] = getattr(sqlalchemy.pool, settings.poolclass)
        return poolclass
    if not is_async:
        return FairPool
    from dbconfig.engine.pool.tasks import TaskPool

    return TaskPool


# Loaded on demand: most processes have no asynchronous engine, and read no statistics at startup.
_LATE = {"Histogram": "diagnostics.stats", "PoolStats": "diagnostics.stats", "TaskPool": "tasks"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


def _check(settings: PoolSettings) -> ping.Check | None:
    wish = settings.pool_pre_ping
    if wish is False:
        return None
    return ping.Check(rest=0.0 if wish is True else float(wish))
