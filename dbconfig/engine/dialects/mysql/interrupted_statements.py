"""Cancels on the server a statement whose caller was interrupted: a cancelled task, a thread under Ctrl-C.

The driver closes the socket, which the server does not notice before it sends something. A long statement, or one that
waits for a lock, would run to its end, and its transaction would keep its locks until then.
"""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import cancelling, deadline, farewell
from dbconfig.engine.pool.facts import facts

logger: logging.Logger = logging.getLogger("dbconfig.interrupts")

LIMIT: Final = 2.0  # seconds that a task has for it
_COMPARED: Final = 200  # characters
_HIDDEN: Final = re.compile(r"[^\x21-\x7e]")  # what a server may display differently


def attach(engine: Engine) -> None:
    """Let each connection of an engine report an interrupted statement; its class has to call `interrupted`."""
    dialect: Any = engine.dialect
    statements = Statements(engine)

    @event.listens_for(engine, "connect")
    def introduce(connection: Any, record: Any) -> None:
        under = dialect.get_driver_connection(connection)
        own = getattr(under, "__wrapped__", under)  # of a tracer's proxy
        if hasattr(own, "interrupted"):
            own.interrupted = statements.reporter(int(own.thread_id()))


class Statements:
    """The interrupted statements of one engine; those that are reported at the same time share a connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._reported: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._thread: Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def reporter(self, number: int) -> Callable[[Any], None]:
        """Return the function to which the connection with this ID reports its interrupted statement."""

        def report(statement: Any) -> None:
            engine = self._engine()
            if engine is None:
                return
            self._reported.put((number, _beginning(statement)))
            if engine.dialect.is_async:
                self._begin_task(engine)
            else:
                self._begin_thread()

        return report

    def _begin_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():  # in a forked child it is not
            return
        # Not a daemon: Ctrl-C usually ends the process, which has this still to do.
        self._thread = thread = Thread(target=self._run, name="dbconfig-cancel")
        try:
            thread.start()
        except RuntimeError as error:
            logger.debug("cannot start a thread, so the statement is not cancelled: %s", error)

    def _run(self) -> None:
        while True:
            engine = self._engine()
            if engine is not None:
                try:
                    connection = _connect(engine)
                    try:
                        self._kill(connection)
                    finally:
                        engine.dialect.do_close(connection)
                except Exception as error:
                    self._give_up(engine, error)
            self._thread = None
            if engine is None or self._reported.empty():  # else a caller came now, and may have seen a running thread
                return

    def _begin_task(self, engine: Engine) -> None:
        if self._task is not None and not self._task.done():
            return
        self._task = cancelling.spawn(engine, self._run_in_loop(engine))

    async def _run_in_loop(self, engine: Engine) -> None:
        deadline.lift()  # of the caller
        loop = asyncio.get_running_loop()
        end = loop.time() + LIMIT
        while not self._reported.empty():
            try:
                async with asyncio.timeout_at(end):
                    connection = await greenlet_spawn(_connect, engine)
                    try:
                        await greenlet_spawn(self._kill, connection)
                    finally:
                        await farewell.close(engine.dialect, connection, terminate=False)
            except asyncio.CancelledError:  # `asyncio.run` ends, often by the same Ctrl-C: it waits for this task
                continue
            except Exception as error:
                self._give_up(engine, error)

    def _kill(self, connection: Any) -> None:
        cursor = connection.cursor()
        while (reported := self._next()) is not None:
            number, statement = reported
            try:
                cursor.execute("SHOW FULL PROCESSLIST")
                # A load balancer may have led to another server, where the ID is another client's.
                if any(row[0] == number and _beginning(row[7]) == statement for row in cursor.fetchall()):
                    cursor.execute(f"KILL QUERY {number:d}")
            except BaseException:
                self._reported.put(reported)  # for the next attempt, if there is one
                raise
        cursor.close()

    def _next(self) -> tuple[int, str] | None:
        try:
            return self._reported.get_nowait()
        except Empty:
            return None

    def _give_up(self, engine: Engine, error: Exception) -> None:
        while self._next() is not None:
            continue
        name = engine.logging_name or ""
        words = "an interrupted statement could not be cancelled on the server"
        logger.info("%s: %s: %s", name, words, str(error) or type(error).__name__, extra=facts(name))


def _connect(engine: Engine) -> Any:
    """Connect as the pool does, but outside it."""
    nobodys: Any = SimpleNamespace(info={})
    return engine.pool._invoke_creator(nobodys)


def _beginning(statement: Any) -> str:
    """Return the beginning of a statement, in a form in which two can be compared."""
    text = statement[: 4 * _COMPARED]
    text = text.decode("ascii", "replace") if isinstance(text, (bytes, bytearray)) else str(text)
    return _HIDDEN.sub("", text)[:_COMPARED]
