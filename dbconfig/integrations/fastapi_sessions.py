"""The sessions of a FastAPI request: one of each kind, opened for the first dependency, and closed in time."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

import anyio
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi.requests import HTTPConnection
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session as PlainSession
from sqlmodel import Session

from dbconfig.engine import pool
from dbconfig.engine.pool import deadline
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.timeout_errors import OVERLOADED
from dbconfig.integrations.admission import Admission, Place, Shed
from dbconfig.integrations.request_sessions import RequestSession, follow_statements
from dbconfig.integrations.threads_in_use import when_unused
from dbconfig.registry.registry import Registry
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.shards import SEPARATOR

logger: logging.Logger = logging.getLogger(__name__)

_KEY: Final = "dbconfig.sessions"  # in a request's scope, which its sub-applications share
_MOST_THREADS: Final = 40  # for closing sessions of a pool without a limit: as many as anyio has for everything else
# Seconds that a cancelled request waits for a thread that works with its session: its statements are cancelled, and
# nothing can end what else it does.
_LEFT_BEHIND: Final = 60.0
_PLAIN: Final = (None, "READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT")


class RequestedSession:
    """The kind of session that a dependency provides."""

    __slots__ = ("asynchronous", "database", "divisible", "key", "read_only", "snapshot", "transaction")

    def __init__(
        self,
        database: str,
        transaction: bool = False,
        read_only: bool = False,
        snapshot: bool = False,
        asynchronous: bool = False,
    ) -> None:
        if transaction and (read_only or snapshot):
            raise ValueError("transaction=True cannot be combined with read_only or snapshot")
        self.database, self.transaction = database, transaction
        self.read_only, self.snapshot, self.asynchronous = read_only, snapshot, asynchronous
        self.divisible = not database.partition(SEPARATOR)[1]
        self.key = (database, transaction, read_only, snapshot, asynchronous)

    @property
    def reading(self) -> bool:
        return self.read_only or self.snapshot

    def here(self, registry: Registry) -> RequestedSession:
        """Return the same for the shard that a dependency has chosen for the whole request, if any."""
        if not self.divisible:
            return self
        shard = registry.parts.profiles.shard_of(self.database)
        return self if shard == self.database else RequestedSession(shard, *self.key[1:])

    def open(self, registry: Registry) -> Any:
        """Return the context manager of a session."""
        if self.asynchronous:
            if self.transaction:
                return registry.async_transaction(self.database)
            return registry.async_session(self.database, read_only=self.read_only, snapshot=self.snapshot)
        if self.transaction:
            return registry.transaction(self.database)
        return registry.session(self.database, read_only=self.read_only, snapshot=self.snapshot)


def dependency(kind: RequestedSession, registry: Registry) -> Callable[[HTTPConnection], AsyncIterator[Any]]:
    """Return a dependency that yields the request's session of a kind.

    All dependencies share it, also those of sub-applications.
    """
    follow_statements(registry)

    async def opened(connection: HTTPConnection) -> AsyncIterator[Any]:
        here = kind.here(registry)
        known: dict[Any, Any] = connection.scope.setdefault(_KEY, {})
        key = (registry, here.key)  # not the kind: a module imported twice has two classes
        if key in known:
            yield known[key]
            return
        opening = (_AsyncOpened if here.asynchronous else _Opened)(connection, here, registry)
        async with opening as found:
            known[key] = found
            try:
                yield found
            finally:
                del known[key]

    return opened


class _Opened:
    """A synchronous session, for an endpoint in a thread.

    A thread of its own costs more than all the rest: one is used only for what speaks to the server.
    """

    __slots__ = ("_connection", "_kind", "_manager", "_place", "_registry", "_watched", "found")

    def __init__(self, connection: HTTPConnection, kind: RequestedSession, registry: Registry) -> None:
        self._connection, self._kind, self._registry = connection, kind, registry

    async def __aenter__(self) -> Any:
        kind, registry = self._kind, self._registry
        settings = _settings(registry, kind)
        self._place = place = await _place(self._connection, kind, registry, settings)
        try:
            self._manager = kind.open(registry)
            self.found = found = self._manager.__enter__()  # connects to nothing yet
            stack = _rests_after(self._connection, kind, settings)
            self._watched = RequestSession(found, place.use, place.leave, statements=stack is not None)
            if stack is not None:
                stack.push_async_exit(self._rest)
        except BaseException:
            place.leave()
            raise
        return found

    async def _rest(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Return the connection after the endpoint, if nothing would be lost."""
        transaction = None if _interrupts(error) else self._watched.unneeded()
        if transaction is not None:
            await self._in_thread(transaction.close)

    async def __aexit__(self, *details: Any) -> bool:
        interrupted = _interrupts(details[1])
        try:
            if not self._kind.transaction and not interrupted and _closes_without_a_server(self.found):
                self.found.close()
                return False
            exit, interrupt = self._manager.__exit__, self._watched.interrupt
            end = partial(when_unused, self.found, interrupt, exit, *details, interrupted=interrupted)
            return await self._in_thread(end, interrupted=interrupted)
        finally:
            self._watched.why_not = _reason(self._connection, self._kind)
            self._place.leave()

    async def _in_thread(self, end: Callable[[], Any], *, interrupted: bool = False) -> bool:
        """Let a thread end something: it may commit, and must close the session even if the caller stops waiting."""
        settings, engine = _settings(self._registry, self._kind), self._registry.engine(self._kind.database)
        limiter, limit, handled = _ending(engine, settings), math.inf, False
        if interrupted:  # it may wait for a thread that waits for a connection, which the ends of others return
            limiter, limit = anyio.CapacityLimiter(1), _LEFT_BEHIND
        with anyio.move_on_after(limit, shield=True) as scope:
            handled = await run_sync(end, limiter=limiter, abandon_on_cancel=interrupted)
        if scope.cancelled_caught:
            name, words = pool.ledger(engine).name, "whose session ends with it"
            logger.warning("%s: a thread is left of a cancelled request, %s", name, words, extra=facts(name))
        return bool(handled)


def _interrupts(error: BaseException | None) -> bool:
    """Whether an error may have left behind a thread that works with the session."""
    return isinstance(error, TimeoutError) or not isinstance(error, Exception | None)


class _AsyncOpened:
    """An asynchronous session."""

    __slots__ = ("_connection", "_kind", "_manager", "_registry", "_watched", "found")

    def __init__(self, connection: HTTPConnection, kind: RequestedSession, registry: Registry) -> None:
        self._connection, self._kind, self._registry = connection, kind, registry

    async def __aenter__(self) -> Any:
        kind, registry = self._kind, self._registry
        self._manager = kind.open(registry)
        self.found = found = await self._manager.__aenter__()
        stack = _rests_after(self._connection, kind, _settings(registry, kind))
        self._watched = RequestSession(found.sync_session, statements=stack is not None)
        if stack is not None:
            stack.push_async_callback(self._rest)
        return found

    async def _rest(self) -> None:
        transaction = self._watched.unneeded()
        if transaction is not None and self._watched.connections == 1:  # as below
            with anyio.CancelScope(shield=True):
                await self.found.run_sync(lambda session: transaction.close())

    async def __aexit__(self, *details: Any) -> Any:
        found = self.found
        kind: Any = type(found)
        try:
            if self._manager is not found or not _is_closed_by_sqlalchemy(kind):
                return await self._manager.__aexit__(*details)
            if _closes_without_a_server(found.sync_session):
                found.sync_session.close()
            elif self._watched.connections > 1:  # if the end of one is cancelled, the others must end, too
                await found.__aexit__(*details)
            else:
                # In this task: the session's own exit creates another, and while that starts, the connection is idle.
                with anyio.CancelScope(shield=True):
                    await found.close()
            return None
        finally:
            self._watched.why_not = _reason(self._connection, self._kind)


def _closes_without_a_server(session: Session) -> bool:
    """Whether closing a session does not block: it has no transaction, and SQLAlchemy's way to close."""
    kind: Any = type(session)
    return session.get_transaction() is None and _is_closed_by_sqlalchemy(kind)


@lru_cache(maxsize=64)
def _is_closed_by_sqlalchemy(kind: Any) -> bool:
    if issubclass(kind, PlainSession):
        return kind.close is PlainSession.close and kind.__exit__ is PlainSession.__exit__
    from sqlalchemy.ext.asyncio import AsyncSession  # needs greenlet

    return kind.close is AsyncSession.close and kind.__aexit__ is AsyncSession.__aexit__


def _settings(registry: Registry, kind: RequestedSession) -> DatabaseSettings:
    # Not `registry.profile`, which for the application's sake is another object, with slower attributes.
    return registry.parts.profiles.get().database(kind.database)


def _rests_after(
    connection: HTTPConnection, kind: RequestedSession, settings: DatabaseSettings
) -> AsyncExitStack | None:
    """Return a context that ends with the endpoint, if a session that has only read may release its connection then.

    A slow client then holds no connection. Not if the session must keep its snapshot.
    """
    if (
        kind.transaction
        or kind.snapshot
        or settings.isolation_level not in _PLAIN
        or connection.scope["type"] != "http"
    ):
        return None
    stack = connection.scope.get("fastapi_function_astack")  # FastAPI's own name; optional
    return stack if isinstance(stack, AsyncExitStack) else None


def _reason(connection: HTTPConnection, kind: RequestedSession) -> Callable[[], str]:
    """Return the error of work that comes too late."""
    scope = connection.scope
    route, path, root = scope.get("route"), scope["path"], scope.get("root_path", "")
    method, committed = scope.get("method", "WEBSOCKET"), kind.transaction

    def reason() -> str:
        own = "one of its own: with db.session() as session"
        help = f"what outlives the request needs {own}"
        if committed:
            help = (
                f"it committed before the response was sent; a stream or a background task needs SessionDep, or {own}"
            )
        return f"the session of {method} {root}{getattr(route, 'path', None) or path} has ended: {help}"

    return reason


# Admission of sessions. Read-only sessions have their own connections, and are counted separately.

_admissions: WeakKeyDictionary[Engine, dict[bool, Admission]] = WeakKeyDictionary()
_limiters: RunVar[WeakKeyDictionary[Engine, anyio.CapacityLimiter]] = RunVar("dbconfig.limiters")


async def _place(
    connection: HTTPConnection, kind: RequestedSession, registry: Registry, settings: DatabaseSettings
) -> Place:
    """Wait for a place; a websocket, which may be idle for hours, takes one only while it has a connection."""
    admission = _admission(registry.engine(kind.database), settings, kind.reading)
    if connection.scope["type"] != "http":
        return admission.guest()
    place = admission.place_at_once()
    if place is not None:
        return place
    limit = deadline.current()
    patience = settings.pool_timeout if limit is None else min(settings.pool_timeout, limit.remaining())
    try:
        return await admission.place(patience)
    except Shed:
        raise _overloaded(kind.database, settings) from None
    except TimeoutError:
        if limit is not None and not limit.remaining():
            raise limit.exceeded(f"{admission.limit} requests used database {kind.database!r}") from None
        raise PoolTimeout(
            f"{admission.limit} requests use database {kind.database!r}, and none of them ended in"
            f" {settings.pool_timeout:g} s (pool_timeout)"
        ) from None


def _overloaded(database: str, settings: DatabaseSettings) -> PoolTimeout:
    target = settings.origin("pool_queue_target")
    error = PoolTimeout(f"the request was dropped: others wait longer for {database!r} than pool_queue_target")
    error.add_note(f"dbconfig[{OVERLOADED}]: pool_queue_target ({target}) is the wait that callers accept")
    return error


def _admission(engine: Engine, settings: DatabaseSettings, reading: bool) -> Admission:
    found = _admissions.get(engine)
    if found is None:
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
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = WeakKeyDictionary()
        _limiters.set(limiters)
    if engine not in limiters:
        limiters[engine] = anyio.CapacityLimiter(most_connections(settings) or _MOST_THREADS)
    return limiters[engine]


def most_connections(settings: DatabaseSettings) -> int:
    """Return how many connections a pool may have, 0 for any number."""
    if settings.poolclass not in (None, "QueuePool") or settings.pool_size == 0 or settings.max_overflow < 0:
        return 0
    return settings.pool_size + settings.max_overflow
