"""Cancel running statements on the server, over a separate connection and without blocking callers."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import deadline, driver, forks
from dbconfig.engine.pool.beside import connected
from dbconfig.engine.pool.call_watchdog import watch
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.driver import Left
from dbconfig.engine.pool.facts import facts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

logger: logging.Logger = logging.getLogger("dbconfig.pool.ending")

# Seconds for which a disposal waits until the server has accepted its cancel requests.
CANCEL_LIMIT = 2.0
# Seconds that a server has to accept a connection, and then the requests. The end of the process, and of an event loop,
# waits for as long.
LIMIT = 5.0
# Seconds before a request is repeated; each pause is twice as long as the one before. In all 51 s.
FIRST_PAUSE: Final = 0.1
REPETITIONS: Final = 9
# Seconds between two checks whether the process ends.
_LOOK: Final = 0.1
_NAME: Final = "dbconfig-cancel"  # of the threads


class Request(NamedTuple):
    """What a connection executes is to end on the server.

    A request may be lost, because both PostgreSQL and MySQL ignore one between two statements: also if the statement
    has been sent, and the server has not begun it.

    Attributes:
        number: the server's ID of the connection.
        left: what is known of it if its client has closed it: then nothing else can be executed on it, and all of it is
            to end. None while it may be used again.
        repeated: how often.
        at: when this was asked.
    """

    number: int
    left: Left | None = None
    repeated: int = 0
    at: float = 0.0


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
        if request.left is None:
            own.cancel(cursor, under, request.number)
        elif not own.end(cursor, under, request.number, request.left) and unsettled is not None:
            unsettled.append(request)


def spawn(engine: Engine | None, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task for which the end of the engine waits."""
    from dbconfig.engine.pool.task_places import TaskPlaces  # for callers with an event loop, who have loaded it

    loop = asyncio.get_running_loop()
    if engine is not None and isinstance(engine.pool, TaskPlaces) and engine.pool._loop is loop:
        return engine.pool._spawn(work, engine.pool._closes)
    return loop.create_task(work)  # also for what the pool's own loop has left behind


class _Process:
    """Whether the process only waits for requests to cancel, and until when it does."""

    def __init__(self) -> None:
        self._latest: float | None = None

    def latest(self) -> float | None:
        """Return when the process has to end; None while other threads work."""
        if any(thread.is_alive() and not thread.daemon and thread.name != _NAME for thread in threading.enumerate()):
            self._latest = None
        elif self._latest is None:
            self._latest = monotonic() + LIMIT
        return self._latest


_process = _Process()


class _Later:
    """Requests to repeat, and when: only of clients that have left, or the connection may have another user by then."""

    def __init__(self) -> None:
        self._due: list[tuple[float, Request, bool]] = []

    def add(self, requests: Iterable[Request], *, down: bool) -> None:
        """Note some; ``down``: because the server accepts none."""
        for request in requests:
            if request.left is not None and request.repeated < REPETITIONS:
                pause = FIRST_PAUSE * 2**request.repeated
                self._due.append((monotonic() + pause, request._replace(repeated=request.repeated + 1), down))

    def next_due(self, latest: float | None) -> float | None:
        """Return the time of the next one; None if there is none, or none in time for the end of the process or loop.

        At the end, a server that is down is not waited for.
        """
        if latest is not None:
            self._due = [each for each in self._due if not each[2] and each[0] < latest]
        return min((each[0] for each in self._due), default=None)

    def take(self) -> list[Request]:
        """Return those that are due now."""
        now = monotonic()
        found = [each[1] for each in self._due if each[0] <= now]
        self._due = [each for each in self._due if each[0] > now]
        return found


class Canceller:
    """Accepts requests to cancel what an engine's connections execute, and never blocks the caller.

    Requests that arrive while a connection is being opened share it: callers that time out at the same moment do not
    each connect.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._driver = driver.of(engine.dialect)
        self._is_async = engine.dialect.is_async
        self.forget()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        """Reset, for a forked child: what was asked is the parent's."""
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._thread: Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._bell: asyncio.Event | None = None

    def ask(self, request: Request) -> None:
        """End what a connection executes: by a thread, or by a task of the running event loop."""
        engine = self._engine()
        if engine is None:
            return
        request = request._replace(at=monotonic())
        if self._is_async:
            self._ask_task(engine, request)
            return
        self._requests.put(request)
        if self._thread is None or not self._thread.is_alive():
            # Not a daemon: the error that the caller gets often ends the process, which has this still to do.
            self._thread = thread = Thread(target=self._run, args=[engine], name=_NAME, daemon=False)
            try:
                thread.start()
            except RuntimeError as error:
                self._take()  # later, the connection may have another user
                logger.debug("cannot start a thread, so nothing is cancelled: %s", error)

    def abandon(self, connection: Any) -> None:
        """End all of a driver's connection that is closed, or about to be."""
        number = self._driver.known_number(connection)
        if number is not None:
            self.ask(Request(number, self._driver.leave(connection)))

    def _ask_task(self, engine: Engine, request: Request) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            logger.debug("nothing is cancelled: %s", error)
            return
        self._requests.put(request)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._bell = asyncio.Event()
            self._task = loop.create_task(self._run_in_loop(engine, self._bell))
        elif self._bell is not None:
            self._bell.set()

    # In a thread.

    def _run(self, engine: Engine) -> None:
        later = _Later()
        while True:
            latest = _process.latest()
            seconds = LIMIT if latest is None else latest - monotonic()
            if seconds <= 0:
                self._take()  # the process has waited for long enough
            else:
                with deadline.within(min(seconds, LIMIT)):
                    self._attempt(engine, deque(), later)
            if self._rest(later):
                continue
            if self._thread is current_thread():
                self._thread = None
            if self._requests.empty() or self._thread is not None:  # else a caller saw a thread that runs
                return

    def _rest(self, later: _Later) -> bool:
        """Wait for the next request; return False if there will be none."""
        while self._requests.empty():
            due = later.next_due(_process.latest())
            if due is None:
                return False
            if (wait := due - monotonic()) <= 0:
                self._put(later.take())
            else:
                try:
                    self._requests.put(self._requests.get(timeout=min(wait, _LOOK)))
                except Empty:
                    continue
        return True

    # In an event loop.

    async def _run_in_loop(self, engine: Engine, bell: asyncio.Event) -> None:
        deadline.lift()  # of the caller whose time is over
        latest: float | None = None  # set when the loop ends
        later = _Later()
        while latest is None or monotonic() < latest:
            asked: deque[Request] = deque()
            seconds = LIMIT if latest is None else latest - monotonic()
            try:
                if not self._requests.empty():
                    await self._attempt_in_loop(engine, asked, later, seconds, ending=latest is not None)
                if self._requests.empty():
                    due = later.next_due(latest)
                    if due is None:
                        return
                    bell.clear()
                    await _ring_or_time(bell, due - monotonic())
                    self._put(later.take())
            except asyncio.CancelledError:  # `asyncio.run` ends, often by the caller's error: it waits for this task
                latest = latest or monotonic() + LIMIT
                self._put(request for request in asked if request.left is not None)

    async def _attempt_in_loop(
        self, engine: Engine, asked: deque[Request], later: _Later, seconds: float, *, ending: bool
    ) -> None:
        try:
            async with asyncio.timeout(seconds):
                work = greenlet_spawn(self._attempt, engine, asked, later)
                await (work if ending else spawn(engine, work))
        except TimeoutError:
            later.add([*asked, *self._take()], down=True)
            asked.clear()
            logger.info("the server did not accept a cancel request within %g s", LIMIT, extra={"seconds": LIMIT})

    # In both.

    def _attempt(self, engine: Engine, asked: deque[Request], later: _Later) -> None:
        """Ask for all; in the caller's list is what has been taken from the queue, and not been carried out."""
        asked.extend(self._take())
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
            later.add([*asked, *self._take()], down=True)  # also those that came meanwhile: each attempt takes long
            asked.clear()
        finally:
            later.add(unsettled, down=False)

    def _one_by_one(self, asked: deque[Request]) -> Iterator[Request]:
        while asked:
            request = asked[0]
            if request.left is not None or monotonic() - request.at < LIMIT:  # later it may hit another statement
                yield request
            asked.popleft()  # it has been carried out
            asked.extend(self._take())

    def _take(self) -> list[Request]:
        found: list[Request] = []
        while True:
            try:
                found.append(self._requests.get_nowait())
            except Empty:
                return found

    def _put(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._requests.put(request)


async def _ring_or_time(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return
