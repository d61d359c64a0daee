"""Watchdog for driver calls: shuts the socket down when a call takes too long, which wakes the driver up."""

from __future__ import annotations

import logging
from _thread import allocate_lock
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from time import sleep
from typing import Any, TypeVar

from dbconfig.engine.pool import forks, sockets
from dbconfig.engine.pool.clock import monotonic

logger: logging.Logger = logging.getLogger("dbconfig.pool.watch")

T = TypeVar("T")

# Maximum seconds between two rounds. A guard that is not due before the next round need not wake the thread, which
# would cost each ping two thread switches.
TICK = 0.1
# Seconds without a call after which the thread ends; it starts again with the next one.
LINGER = 10.0


class Watch:
    """At most one thread per process, apart from the maintenance thread: it must never be blocked by what it watches.

    An exception from a signal handler may interrupt a caller after each call that it makes. So no lock exists here that
    an interrupted caller could keep, and no guard that it could leave behind: each guard is a separate lock, and the
    first to acquire it decides: the caller when it finishes, or the watchdog when the time is over.
    """

    def __init__(self) -> None:
        self.forget()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        """Reset, for a forked child, in which the thread does not run and its guards are void."""
        self._guards: dict[Lock, tuple[float, Callable[[], object]]] = {}
        self._bell: SimpleQueue[None] = SimpleQueue()  # wakes the thread; written in C, no lock that could be left
        self._round_at = 0.0  # when the thread checks again
        self._thread: Thread | None = None  # set by the thread itself, since its start may be interrupted

    def call(
        self, fd: int | None, limit: float, function: Callable[..., T], *arguments: Any, **keywords: Any
    ) -> tuple[T, bool]:
        """Call a function, and shut this socket down when that takes longer than ``limit`` seconds.

        Returns:
            What the function returns, and whether it was in time: if not, the socket has been shut down.
        """
        if fd is None:
            return function(*arguments, **keywords), True
        return self.guard(partial(sockets.shut, fd), limit, function, *arguments, **keywords)

    def guard(
        self, late: Callable[[], object], limit: float, function: Callable[..., T], *arguments: Any, **keywords: Any
    ) -> tuple[T, bool]:
        """Call a function, and `late`, which must not block, in the watch's thread when that takes too long."""
        in_time = True
        guard, entry = allocate_lock(), (monotonic() + limit, late)
        # No call from here to `try`, so that no interrupt is raised in between.
        self._guards[guard] = entry
        try:
            if self._thread is None:
                self._start()
            elif entry[0] < self._round_at:
                self._bell.put(None)
            result = function(*arguments, **keywords)
        finally:
            if guard.acquire(False):
                self._guards.pop(guard, None)
            else:
                in_time = False
                self._await_the_end_of(guard)
        return result, in_time

    def _await_the_end_of(self, guard: Lock) -> None:
        """Wait for a shutdown in progress: afterward the descriptor may be reused."""
        while guard in self._guards and self._thread is not None:
            sleep(0.001)

    def _start(self) -> None:
        try:
            Thread(target=self._run, name="dbconfig-watch", daemon=True).start()
        except RuntimeError as error:
            logger.debug("cannot start a thread, so calls are not watched: %s", error)

    def _run(self) -> None:
        guards, me = self._guards, current_thread()
        self._thread = me
        last_needed = monotonic()
        while self._thread is me:  # of two that were started at the same time, the later one stays
            now = monotonic()
            for guard, (due, late) in list(guards.items()):
                if guard.locked():
                    guards.pop(guard, None)  # its caller was interrupted between the two steps of leaving
                elif now >= due and guard.acquire(False):
                    late()
                    guards.pop(guard, None)
            if guards:
                last_needed = now
            elif now - last_needed > LINGER:
                self._thread = None
                if not guards:
                    return
                self._thread = me  # a caller came at this moment, and may have seen a running thread
            self._rest(now)

    def _rest(self, now: float) -> None:
        """Wait for the next that is due, or for the bell."""
        self._round_at = now + TICK  # first: a caller that comes after the others were checked sees it, and rings
        self._round_at = min([self._round_at, *(due for due, _ in list(self._guards.values()))])
        try:
            self._bell.get(timeout=max(0.0, self._round_at - monotonic()))
        except Empty:
            return


watch: Watch = Watch()
