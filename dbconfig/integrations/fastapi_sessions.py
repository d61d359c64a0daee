"""The sessions of a FastAPI request: one of each kind, opened for the first dependency, and closed in time."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

import anyio
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi.requests import HTTPConnection
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session

from dbconfig.engine.pool import deadline
from dbconfig.engine.pool.timeout_errors import OVERLOADED
from dbconfig.integrations.admission import Admission, Place, Shed
from dbconfig.integrations.request_sessions import RequestSession, refuse_after_end
from dbconfig.registry.registry import Registry
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.shards import SEPARATOR

_KEY: Final = "dbconfig.sessions"  # in a request's scope, which its sub-applications share
_MOST_THREADS: Final = 40  # for closing sessions of a pool without a limit: as many as anyio has for everything else
_PLAIN: Final = (None, "READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT")


@dataclass(frozen=True, slots=True)
class RequestedSession:
    """The kind of session that a dependency provides."""

    database: str
    transaction: bool = False
    read_only: bool = False
    snapshot: bool = False
    asynchronous: bool = False

    def __post_init__(self) -> None:
        if self.transaction and self.reading:
            raise ValueError("transaction=True cannot be combined with read_only or snapshot")

    @property
    def reading(self) -> bool:
        return self.read_only or self.snapshot

    def open(self, registry: Registry) -> Any:
        """Return the context manager of a session."""
        if self.asynchronous:
            if self.transaction:
                return registry.async_transaction(self.database)
            return registry.async_session(self.database, read_only=self.read_only, snapshot=self.snapshot)
        if self.transaction:
            return registry.transaction(self.database)
        return registry.session(self.database, read_only=self.read_only, snapshot=self.snapshot)


@asynccontextmanager
async def one_for_each_request(
    connection: HTTPConnection, kind: RequestedSession, registry: Registry
) -> AsyncIterator[Any]:
    """Yield the request's session of a kind, shared by all dependencies, also by those of sub-applications."""
    if not kind.database.partition(SEPARATOR)[1]:  # a dependency may have chosen a shard for the whole request
        kind = replace(kind, database=registry.parts.profiles.shard_of(kind.database))
    known: dict[Any, Any] = connection.scope.setdefault(_KEY, {})
    key = (registry, astuple(kind))  # a module imported twice has two classes
    if key in known:
        yield known[key]
        return
    open_ = _async_opened if kind.asynchronous else _opened
    async with open_(connection, kind, registry) as found:
        known[key] = found
        try:
            yield found
        finally:
            del known[key]


@asynccontextmanager
async def _opened(connection: HTTPConnection, kind: RequestedSession, registry: Registry) -> AsyncIterator[Any]:
    async with _place(connection, kind, registry) as place:
        manager = kind.open(registry)
        limiter = _ending(registry.engine(kind.database), registry.profile.database(kind.database))
        found = manager.__enter__()  # connects to nothing yet
        stack = _rests_after(connection, kind, registry)
        watched = RequestSession(found, place.use, place.leave, statements=stack is not None)

        async def rest() -> None:
            with anyio.CancelScope(shield=True):
                await run_sync(watched.rest, limiter=limiter)

        if stack is not None:
            stack.push_async_callback(rest)
        try:
            try:
                yield found
            except BaseException as error:
                if not await _left(manager, error, limiter):
                    raise
            else:
                await _left(manager, None, limiter)
        finally:
            _end(found, connection, kind)


@asynccontextmanager
async def _async_opened(connection: HTTPConnection, kind: RequestedSession, registry: Registry) -> AsyncIterator[Any]:
    sync_session = None
    try:
        async with kind.open(registry) as found:
            sync_session = found.sync_session
            if (stack := _rests_after(connection, kind, registry)) is not None:
                watched = RequestSession(sync_session)

                async def rest() -> None:
                    with anyio.CancelScope(shield=True):
                        await found.run_sync(lambda _: watched.rest())

                stack.push_async_callback(rest)
            yield found
    finally:
        if sync_session is not None:
            _end(sync_session, connection, kind)


async def _left(manager: Any, error: BaseException | None, limiter: anyio.CapacityLimiter) -> bool:
    """Exit a session in a thread: it may commit, and must be closed even if the caller stops waiting."""
    details = (type(error), error, error.__traceback__) if error is not None else (None, None, None)
    with anyio.CancelScope(shield=True) as scope:
        handled = await run_sync(manager.__exit__, *details, limiter=limiter)
    return bool(handled) and not scope.cancelled_caught


def _rests_after(connection: HTTPConnection, kind: RequestedSession, registry: Registry) -> AsyncExitStack | None:
    """Return a context that ends with the endpoint, if a session that has only read may release its connection then.

    A slow client then holds no connection. Not if the session must keep its snapshot.
    """
    stack = connection.scope.get("fastapi_function_astack")  # FastAPI's own name; optional
    isolation = registry.profile.database(kind.database).isolation_level
    rests = not kind.transaction and not kind.snapshot and isolation in _PLAIN and connection.scope["type"] == "http"
    return stack if rests and isinstance(stack, AsyncExitStack) else None


def _end(session: Session, connection: HTTPConnection, kind: RequestedSession) -> None:
    scope = connection.scope
    route = getattr(scope.get("route"), "path", None) or scope["path"]
    route = f"{scope.get('method', 'WEBSOCKET')} {scope.get('root_path', '')}{route}"
    own = "one of its own: with db.session() as session"
    help = f"what outlives the request needs {own}"
    if kind.transaction:
        help = f"it committed before the response was sent; a stream or a background task needs SessionDep, or {own}"
    refuse_after_end(session, lambda: f"the session of {route} has ended: {help}")


# Admission of sessions. Read-only sessions have their own connections, and are counted separately.

_admissions: WeakKeyDictionary[Engine, dict[bool, Admission]] = WeakKeyDictionary()
_limiters: RunVar[WeakKeyDictionary[Engine, anyio.CapacityLimiter]] = RunVar("dbconfig.limiters")


@asynccontextmanager
async def _place(connection: HTTPConnection, kind: RequestedSession, registry: Registry) -> AsyncIterator[Place]:
    """Wait for a place; a websocket, which may be idle for hours, takes one only while it has a connection."""
    settings = registry.profile.database(kind.database)
    admission = _admission(registry.engine(kind.database), settings, kind.reading)
    if connection.scope["type"] != "http":
        place = admission.guest()
        try:
            yield place
        finally:
            place.leave()
        return
    async with AsyncExitStack() as stack:
        limit = deadline.current()
        patience = settings.pool_timeout if limit is None else min(settings.pool_timeout, limit.remaining())
        try:
            place = await stack.enter_async_context(admission.place(patience))
        except Shed:
            raise _overloaded(kind.database, settings) from None
        except TimeoutError:
            if limit is not None and not limit.remaining():
                raise limit.exceeded(f"{admission.limit} requests used database {kind.database!r}") from None
            raise PoolTimeout(
                f"{admission.limit} requests use database {kind.database!r}, and none of them ended in"
                f" {settings.pool_timeout:g} s (pool_timeout)"
            ) from None
        yield place


def _overloaded(database: str, settings: DatabaseSettings) -> PoolTimeout:
    target = settings.origin("pool_queue_target")
    error = PoolTimeout(f"the request was dropped: others wait longer for {database!r} than pool_queue_target")
    error.add_note(f"dbconfig[{OVERLOADED}]: pool_queue_target ({target}) is the wait that callers accept")
    return error


def _admission(engine: Engine, settings: DatabaseSettings, reading: bool) -> Admission:
    found = _admissions.setdefault(engine, {})
    if reading not in found:
        pools = max(1, len(settings.replicas)) if reading else 1
        limit = pools * most_connections(settings) or sys.maxsize
        found[reading] = Admission(
            limit, (lambda: 0) if reading else partial(_in_use, ref(engine)), settings.pool_queue_target
        )
    return found[reading]


def _in_use(engine: ref[Engine]) -> int:
    found = engine()
    pool: Any = found.pool if found is not None else None  # a new one after each `dispose`
    in_use: int = pool.checkedout() if pool is not None else 0
    return in_use


def _ending(engine: Engine, settings: DatabaseSettings) -> anyio.CapacityLimiter:
    """Return this event loop's threads for closing sessions, separate from those of the endpoints."""
    limiters = _limiters.get(WeakKeyDictionary())
    _limiters.set(limiters)
    if engine not in limiters:
        limiters[engine] = anyio.CapacityLimiter(most_connections(settings) or _MOST_THREADS)
    return limiters[engine]


def most_connections(settings: DatabaseSettings) -> int:
    """Return how many connections a pool may have, 0 for any number."""
    if settings.poolclass not in (None, "QueuePool") or settings.pool_size == 0 or settings.max_overflow < 0:
        return 0
    return settings.pool_size + settings.max_overflow
