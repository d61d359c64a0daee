"""Cancel running statements on the server, over a separate connection and without blocking callers."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import deadline, driver
from dbconfig.engine.pool.beside import connected
from dbconfig.engine.pool.facts import facts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

logger: logging.Logger = logging.getLogger("dbconfig.pool.ending")

# Seconds that a server has to accept a cancel request; a dead one must not block the thread indefinitely.
CANCEL_LIMIT = 2.0


def cancel_beside(pool: Pool, own: driver.Driver, numbers: Iterable[int]) -> None:
    """Ask by a new connection; for asynchronous drivers where SQLAlchemy can await."""
    # Not the driver's own cancel(): it opens a connection without a time limit, and holds the GIL.
    with connected(pool) as beside:
        try:
            cursor = beside.cursor()
            for number in numbers:
                own.cancel(cursor, beside.driver_connection, number)
        finally:
            beside.invalidate()  # nothing is rolled back at a server that may not answer


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
        self._numbers: SimpleQueue[int] = SimpleQueue()
        self._thread: Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, number: int) -> None:
        """End what this connection executes, as the server numbers it; by a thread."""
        self._numbers.put(number)
        if self._thread is None or not self._thread.is_alive():  # in a forked child it is not
            self._thread = thread = Thread(target=self._run, name="dbconfig-cancel", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                logger.debug("cannot start a thread, so nothing is cancelled: %s", error)

    def _run(self) -> None:
        while True:
            self._cancel_all()
            self._thread = None
            if self._numbers.empty():  # else a caller came at this moment, and may have seen a running thread
                return

    def ask_in_loop(self, number: int) -> None:
        """Do so by a task of the running event loop."""
        self._numbers.put(number)
        if self._task is None or self._task.done():
            self._task = spawn(self._engine(), self._run_in_loop())

    async def _run_in_loop(self) -> None:
        deadline.lift()  # of the caller whose time is over
        while not self._numbers.empty():
            try:
                async with asyncio.timeout(CANCEL_LIMIT):
                    await greenlet_spawn(self._cancel_all)
            except TimeoutError:
                logger.info(
                    "the server did not accept a cancel request within %g s",
                    CANCEL_LIMIT,
                    extra={"seconds": CANCEL_LIMIT},
                )

    def _cancel_all(self) -> None:
        engine = self._engine()
        numbers = list(self._waiting())
        if engine is None or not numbers:
            return
        try:
            cancel_beside(engine.pool, self._driver, self._with_those_who_come(numbers))
        except Exception as error:  # the server is down, or accepts no further connection
            logger.info(
                "%s: statements could not be cancelled on the server: %s",
                engine.url.database,
                error,
                extra=facts(engine.logging_name or ""),
            )

    def _with_those_who_come(self, numbers: Iterable[int]) -> Iterable[int]:
        yield from numbers
        yield from self._waiting()

    def _waiting(self) -> Iterable[int]:
        while True:
            try:
                yield self._numbers.get_nowait()
            except Empty:
                return
