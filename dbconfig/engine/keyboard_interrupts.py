"""Ctrl-C cancels a statement of psycopg2, which blocks in C: Python's handler runs only after the statement returns.

Nothing is attached to a statement or a checkout. `faulthandler` writes into a pipe when the signal arrives, before it
passes it on. A thread at the other end checks a moment later whether the main thread still waits for the server, and
then cancels the statement on the server.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Final

from sqlalchemy import Engine, event

from dbconfig.engine import pool
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool import forks
from dbconfig.engine.pool.facts import facts

_log = logging.getLogger("dbconfig.interrupts")

# Seconds that Python's own handler has to run, as it does everywhere except in a C driver.
PATIENCE: Final = 0.25
# Seconds between the requests to cancel: the server ignores one that arrives before it has begun the statement.
PAUSES: Final = (PATIENCE, 0.5, 1.0, 2.0, 4.0, 8.0)


class Ears:
    """Watches for Ctrl-C in this process, once a driver is used that is deaf to signals."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        """Reset in a forked child: the pipe belongs to the parent, which would take the child's signal for its own."""
        if self._pipe is not None:
            faulthandler.unregister(signal.SIGINT)
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None

    def open(self) -> None:
        """Listen from now on, unless the application has its own handler, which may not want to interrupt."""
        forks.notice()
        if self._pipe is not None or not hasattr(faulthandler, "register") or not _interrupts():
            return
        self._pipe = pipe = os.pipe()
        os.set_blocking(pipe[1], False)
        faulthandler.register(signal.SIGINT, file=pipe[1], all_threads=False, chain=True)
        try:
            threading.Thread(target=_listen, args=(pipe[0],), name="dbconfig-interrupts", daemon=True).start()
        except RuntimeError as error:  # the interpreter is shutting down
            _log.debug("cannot start a thread: %s", error)


_ears = Ears()


def attach(engine: Engine) -> None:
    """Make Ctrl-C cancel the statements of an engine whose driver is deaf to signals."""
    if driver_protocol.of(engine.dialect).deaf:
        event.listen(engine, "connect", lambda connection, record: _ears.open())


def _interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _listen(descriptor: int) -> None:
    while os.read(descriptor, 65536):
        if not _interrupts():
            continue
        _end_what_waits()


def _end_what_waits() -> None:
    before = _where()
    for pause in PAUSES:
        time.sleep(pause)
        if before is None or before != _where() or not _interrupts():
            return
        _cancel()


def _where() -> tuple[FrameType, int] | None:
    """Return the main thread's current frame and instruction, which do not change while it waits in C."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return None if frame is None else (frame, frame.f_lasti)  # the frame itself: an ID would be used again


def _cancel() -> None:
    """Cancel what the main thread waits for."""
    main = threading.main_thread().ident
    for engine in pool.engines():
        driver = driver_protocol.of(engine.dialect)
        if not driver.deaf:
            continue
        for record in pool.ledger(engine).live():
            connection: Any = record.driver_connection
            if getattr(record, "thread", main) == main and connection is not None and driver.awaits_answer(connection):
                try:
                    driver.cancel_aside(connection)
                except Exception as error:  # the server is down, and the statement with it
                    _log.info(
                        "%s: the statement under Ctrl-C could not be cancelled: %s",
                        pool.ledger(engine).name,
                        type(error).__name__,
                        extra=facts(pool.ledger(engine).name, error=type(error).__name__),
                    )
