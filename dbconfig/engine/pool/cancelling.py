"""Cancel running statements on the server, over a separate connection and without blocking callers."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread, Timer
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import deadline, driver
from dbconfig.engine.pool.beside import connected
from dbconfig.engine.pool.call_watchdog import watch
from dbconfig.engine.pool.facts import facts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

logger: logging.Logger = logging.getLogger("dbconfig.pool.ending")

# Seconds for which a disposal waits until the server has accepted its cancel requests.
CANCEL_LIMIT = 2.0
# Seconds that a server has to accept a connection, and then the requests. For these the end of the process waits.
LIMIT = 5.0
# Seconds before a request is repeated; each pause is twice as long as the one before. In all 51 s.
FIRST_PAUSE: Final = 0.1
REPETITIONS: Final = 9
# The longest of them that the end of the process waits for.
EXIT_PAUSE: Final = 1.0


class Request(NamedTuple):
    """What a connection executes is to end on the server.

    Attributes:
        number: the server's ID of the connection.
        left: its client has shut the connection, so that nothing else can be executed on it. A request for one that is
            still used may be lost, because both PostgreSQL and MySQL ignore it between two statements: also if the
            statement has been sent, and the server has not begun it.
        statement: what its client sent last, at least the beginning.
        repeated: how often.
    """

    number: int
    left: bool = False
    statement: str = ""
    repeated: int = 0


def cancel_beside(
    pool: Pool, own: driver.Driver, requests: Iterable[Request], unsettled: list[Request] | None = None
) -> None:
    """Ask by a new connection; for asynchronous drivers where SQLAlchemy can await.

    Args:
        unsettled: gets those that have to be repeated, because the statement may not have begun.
    """
    # Not the driver's own cancel(): it opens a connection without a time limit, and holds the GIL.
    with connected(pool) as beside:
        try:
            if pool._dialect.is_async:  # which the caller limits
                _ask(beside, own, requests, unsettled)
            else:
                fd = own.socket(beside.driver_connection)
                watch.call(fd, LIMIT, _ask, beside, own, requests, unsettled)
        finally:
            beside.invalidate()  # nothing is rolled back at a server that may not answer


def _ask(beside: Any, own: driver.Driver, requests: Iterable[Request], unsettled: list[Request] | None) -> None:
    cursor, under = beside.cursor(), beside.driver_connection
    for request in requests:
        if not request.left:
            own.cancel(cursor, under, request.number)
        elif not own.end(cursor, under, request.number, request.statement) and unsettled is not None:
            unsettled.append(request)


def spawn(engine: Engine | None, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task for which the end of the engine waits."""
    from dbconfig.engine.pool.task_places import TaskPlaces  # for callers with an event loop, who have loaded it

    loop = asyncio.get_running_loop()
    if engine is not None and isinstance(engine.pool, TaskPlaces) and engine.pool._loop is loop:
        return engine.pool._spawn(work, engine.pool._closes)
    return loop.create_task(work)  # also for what the pool's own loop has left behind


class Canceller:
    """Accepts requests to cancel what an engine's connections execute, and never blocks the caller.

    Requests that arrive while a connection is being opened share it: callers that time out at the same moment do not
    each connect.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._driver = driver.of(engine.dialect)
        self._is_async = engine.dialect.is_async
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._thread: Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._latest: float | None = None  # when the task must be over, once its loop is ending

    def ask(self, request: Request) -> None:
        """End what a connection executes: by a thread, or by a task of the running event loop."""
        engine = self._engine()
        if engine is None:
            return
        self._requests.put(request)
        if self._is_async:
            if self._task is None or self._task.done():
                self._task = spawn(engine, self._run_in_loop(engine))
        elif self._thread is None or not self._thread.is_alive():  # in a forked child it is not
            # Not a daemon: the error that the caller gets often ends the process, which has this still to do.
            self._thread = thread = Thread(target=self._run, args=[engine], name="dbconfig-cancel", daemon=False)
            _start(thread)

    def _run(self, engine: Engine) -> None:
        while True:
            with deadline.within(LIMIT):
                self._attempt(engine, deque())
            self._thread = None
            if self._requests.empty():  # else a caller came at this moment, and may have seen a running thread
                return

    async def _run_in_loop(self, engine: Engine) -> None:
        deadline.lift()  # of the caller whose time is over
        loop = asyncio.get_running_loop()
        self._latest = None
        while not self._requests.empty() and (self._latest is None or loop.time() < self._latest):
            asked: deque[Request] = deque()
            try:
                async with asyncio.timeout_at(self._latest or loop.time() + LIMIT):
                    if self._latest is not None:
                        await asyncio.sleep(FIRST_PAUSE)
                    await greenlet_spawn(self._attempt, engine, asked)
            except TimeoutError:
                self._repeat(engine, asked, down=True)
                logger.info(
                    "the server did not accept a cancel request within %g s",
                    LIMIT,
                    extra={"seconds": LIMIT},
                )
            except asyncio.CancelledError:  # `asyncio.run` ends, often by the caller's error: it waits for this task
                self._latest = self._latest or loop.time() + LIMIT
                for request in asked:
                    self._requests.put(request)

    def _attempt(self, engine: Engine, asked: deque[Request]) -> None:
        """Ask for all; in the caller's list is what has been taken from the queue, and not been carried out."""
        asked.extend(self._waiting())
        if not asked:
            return
        unsettled: list[Request] = []
        try:
            cancel_beside(engine.pool, self._driver, self._one_by_one(asked), unsettled)
        except Exception as error:  # the server is down, or accepts no further connection
            logger.info(
                "%s: statements could not be cancelled on the server: %s",
                engine.logging_name or engine.url.database,
                error,
                extra=facts(engine.logging_name or ""),
            )
            self._repeat(engine, asked, down=True)
        finally:
            self._repeat(engine, unsettled, down=False)

    def _one_by_one(self, asked: deque[Request]) -> Iterator[Request]:
        while asked:
            yield asked[0]
            asked.popleft()  # it has been carried out
            asked.extend(self._waiting())

    def _waiting(self) -> Iterator[Request]:
        while True:
            try:
                yield self._requests.get_nowait()
            except Empty:
                return

    def _repeat(self, engine: Engine, requests: Iterable[Request], *, down: bool) -> None:
        """Ask again later, if the client has left: otherwise the connection may have another user then."""
        again = [request for request in requests if request.left and request.repeated < REPETITIONS]
        if not again:
            return
        pause = FIRST_PAUSE * 2 ** max(request.repeated for request in again)
        repeated = [request._replace(repeated=request.repeated + 1) for request in again]
        if self._is_async and self._latest is not None:
            for request in repeated if not down else ():
                self._requests.put(request)
        elif self._is_async:
            asyncio.get_running_loop().call_later(pause, self._ask_all, repeated, engine)
        else:
            timer = Timer(pause, self._ask_all, [repeated, engine])
            timer.name, timer.daemon = "dbconfig-cancel-again", down or pause > EXIT_PAUSE
            _start(timer)

    def _ask_all(self, requests: Iterable[Request], engine: Engine) -> None:
        """Ask again; the engine is passed on so that it exists until then."""
        for request in requests:
            self.ask(request)


def _start(thread: Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        logger.debug("cannot start a thread, so nothing is cancelled: %s", error)
