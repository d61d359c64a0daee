"""FastAPI and Starlette: sessions as dependencies, a lifespan, a readiness check, 503 and 504 instead of waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session

from dbconfig.engine.pool.deadline import DeadlineExceeded
from dbconfig.errors import ConfigError
from dbconfig.integrations.fastapi_deadlines import DeadlineMiddleware, too_late
from dbconfig.integrations.fastapi_routes import RouteMiddleware
from dbconfig.integrations.fastapi_sessions import RequestedSession, dependency, most_connections
from dbconfig.integrations.request_deadlines import RequestDeadline
from dbconfig.registry.registry import Registry
from dbconfig.registry.registry import default as _application
from dbconfig.settings.loaded_profile import DEFAULT

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

    AsyncSessionDep = Annotated[AsyncSession, ...]
    AsyncTransactionDep = Annotated[AsyncSession, ...]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

HEALTH_LIFETIME: Final = 1.0  # seconds that an answer is cached: probes of a whole cluster cost one query per second
HEALTH_TIMEOUT: Final = 1.0  # seconds; a probe's own time-out is usually one
RETRY_AFTER: Final = 1  # seconds


# Dependencies. A session that commits has `scope="function"`: a COMMIT that may fail comes before the response, and
# not, as FastAPI has it otherwise, after the client has read 200. Any other one is available until the response has
# been sent and the background tasks have run, like FastAPI's own.


def session(
    database: str = DEFAULT,
    *,
    transaction: bool = False,
    read_only: bool = False,
    snapshot: bool = False,
    registry: Registry | None = None,
) -> Any:
    """Return a dependency that provides a session: `Annotated[Session, session("analytics")]`.

    Args:
        database: a name of the profile.
        transaction: commit when the endpoint returns, or roll back when it raises.
        read_only: a read-only session, from a replica if there is one: see `Registry.session`.
        snapshot: a read-only session whose statements all see the same state.
        registry: another registry than `dbconfig.db`.

    Raises:
        ValueError: `transaction` is combined with `read_only` or `snapshot`.
    """
    kind = RequestedSession(database, transaction, read_only, snapshot)
    return Depends(dependency(kind, registry or _application), scope="function" if transaction else "request")


def async_session(
    database: str = DEFAULT,
    *,
    transaction: bool = False,
    read_only: bool = False,
    snapshot: bool = False,
    registry: Registry | None = None,
) -> Any:
    """Return a dependency that provides an asynchronous session; see `session`."""
    kind = RequestedSession(database, transaction, read_only, snapshot, asynchronous=True)
    return Depends(dependency(kind, registry or _application), scope="function" if transaction else "request")


def on_shard(choose: Callable[..., Any], database: str | None = None, *, registry: Registry | None = None) -> Any:
    """Return a dependency that selects the shard of a request, chosen by another dependency.

    For `dependencies=[on_shard(region_of)]` of a route, a router or the application: those come before the sessions.

    Args:
        choose: a dependency that returns the name of the shard, from the path, a header, or the user's record. A
            parameter of it that may be missing needs a default: FastAPI opens the sessions before it answers 422.
        database: apply it to this database only; None: to every database that has a shard of this name.
        registry: another registry than `dbconfig.db`.

    Raises:
        HTTPException: 404, the shard does not exist.
    """

    named = Depends(choose)

    async def chosen(shard: Any = named) -> AsyncIterator[None]:
        source = registry or _application
        try:
            block = source.on_shard(shard, database)
            block.__enter__()
        except ConfigError as error:
            if error.problems[0].slug != "unknown-shard":
                raise
            raise HTTPException(404, "unknown shard") from None
        try:
            yield
        finally:
            block.__exit__(None, None, None)

    return Depends(chosen)


SessionDep = Annotated[Session, session()]
TransactionDep = Annotated[Session, session(transaction=True)]


def __getattr__(name: str) -> Any:
    # AsyncSession needs greenlet, which a synchronous application does not have.
    if name in ("AsyncSessionDep", "AsyncTransactionDep"):
        from sqlmodel.ext.asyncio.session import AsyncSession

        made = Annotated[AsyncSession, async_session(transaction=name == "AsyncTransactionDep")]
        return globals().setdefault(name, made)  # always the same object: `dependency_overrides` compares
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Start and end.


def lifespan(
    app: Any = None,
    *,
    around: Lifespan | None = None,
    verify: Sequence[str] = (DEFAULT,),
    asynchronous: bool | None = None,
    registry: Registry | None = None,
) -> Any:
    """Connect once at startup, so that a wrong password stops the deployment, not a user; dispose at shutdown.

    `FastAPI(lifespan=lifespan)`, or around the application's own: `FastAPI(lifespan=lifespan(around=own))`.

    Args:
        app: passed by the framework.
        around: the application's own lifespan; the databases are available from before it starts until it has ended.
        verify: the databases that must answer.
        asynchronous: use the asynchronous engines; None does so if only an asynchronous driver is installed.
        registry: another registry than `dbconfig.db`.
    """

    @asynccontextmanager
    async def living(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        source = registry or _application
        try:
            for database in verify:
                await _ping(source, database, asynchronous)
            if around is None:
                yield None
            else:
                async with around(app) as state:
                    yield state
        finally:
            with anyio.CancelScope(shield=True):
                if _runs_asyncio():
                    await source.async_dispose()
                await run_sync(source.dispose)

    return living if app is None else living(app)


def _runs_asyncio() -> bool:
    """Whether asynchronous engines are possible here: not with Trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _ping(registry: Registry, database: str, asynchronous: bool | None) -> None:
    if _is_asynchronous(registry, database, asynchronous):
        async with registry.async_engine(database).connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
        return

    def ping() -> None:
        with registry.engine(database).connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    await run_sync(ping, abandon_on_cancel=True, limiter=_probes())


def _is_asynchronous(registry: Registry, database: str, wanted: bool | None) -> bool:
    return registry.profile.database(database).only_asynchronous() if wanted is None else wanted


def _probes() -> anyio.CapacityLimiter:
    # Separate from the endpoints' threads, which may all be waiting for the pool: the probe must not wait for them.
    return anyio.CapacityLimiter(1)


# Readiness.


def health(
    databases: Sequence[str] = (DEFAULT,),
    *,
    path: str = "/health/db",
    asynchronous: bool | None = None,
    registry: Registry | None = None,
) -> APIRouter:
    """Return a router that answers whether the databases do: 200 `ok` or `degraded`, 503 `unavailable`.

    For readiness, not for liveness: restarting a process does not repair a database that is down. `degraded` is a pool
    whose connections are all in use: taking such a process out of service would only burden the others. The answer
    names neither host nor user nor error, and is cached for a second.
    """
    probe = _Probe(registry or _application, databases, asynchronous)
    router = APIRouter(tags=["health"])

    @router.get(path)
    async def database_health(response: Response) -> dict[str, Any]:
        states = await probe.states()
        worst = max(states.values(), key=_ORDER.index)
        response.status_code = 503 if worst == "unavailable" else 200
        response.headers["Cache-Control"] = "no-store"
        return {"status": worst, "databases": states}

    return router


_ORDER: Final = ("ok", "degraded", "unavailable")


class _Probe:
    """Queries the databases, one query at a time, and caches the answers briefly."""

    def __init__(self, registry: Registry, databases: Sequence[str], asynchronous: bool | None) -> None:
        self._registry, self._databases, self._asynchronous = registry, databases, asynchronous
        self._answer: dict[str, str] = {}
        self._until = 0.0
        self._lock: anyio.Lock | None = None

    async def states(self) -> dict[str, str]:
        if time.monotonic() >= self._until:
            self._lock = self._lock or anyio.Lock()
            async with self._lock:
                if time.monotonic() >= self._until:  # not answered while we waited
                    self._answer = {name: await self._state(name) for name in self._databases}
                    self._until = time.monotonic() + HEALTH_LIFETIME
        return self._answer

    async def _state(self, database: str) -> str:
        if self._saturated(database):
            return "degraded"
        try:
            with anyio.fail_after(HEALTH_TIMEOUT):
                await _ping(self._registry, database, self._asynchronous)
        except TimeoutError:
            return "degraded" if self._saturated(database) else "unavailable"
        except PoolTimeout:
            return "degraded"
        except (SQLAlchemyError, OSError):
            return "unavailable"
        return "ok"

    def _saturated(self, database: str) -> bool:
        """Whether a pool with a limit has all its connections in use."""
        registry, settings = self._registry, self._registry.profile.database(database)
        asynchronous = _is_asynchronous(registry, database, self._asynchronous)
        pool: Any = registry.async_engine(database).pool if asynchronous else registry.engine(database).pool
        in_use: int = pool.checkedout()
        return 0 < most_connections(settings) <= in_use


# Exhaustion.


async def _too_busy(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER)}
    return JSONResponse({"detail": "the service is busy"}, status_code=503, headers=headers)


def install(
    app: FastAPI,
    *,
    databases: Sequence[str] = (DEFAULT,),
    asynchronous: bool | None = None,
    registry: Registry | None = None,
    deadline: float | str | None = None,
    deadline_header: bool = False,
) -> None:
    """Answer 503 with `Retry-After` if no connection became free, and 504 after a deadline; add `GET /health/db`.

    If the profile has `query_tags: [route]`, the statements of a request are tagged with its route.

    Args:
        app: the application.
        databases: the databases that the readiness check queries.
        asynchronous: use their asynchronous engines; None does so if only an asynchronous driver is installed.
        registry: another registry than `dbconfig.db`.
        deadline: limit for a request's work with databases, as in `Registry.deadline`: seconds, or `2s`.
        deadline_header: whether a client may ask for less with `X-Request-Deadline`.
    """
    app.add_middleware(RouteMiddleware)
    app.add_exception_handler(PoolTimeout, _too_busy)
    app.exception_handlers.setdefault(DeadlineExceeded, too_late)  # the application's own stays
    app.include_router(health(databases, asynchronous=asynchronous, registry=registry))
    if deadline is not None:
        app.add_middleware(DeadlineMiddleware, limit=RequestDeadline(deadline, header=deadline_header))
    elif deadline_header:
        raise ValueError("deadline_header needs a deadline, which bounds what clients ask for")
