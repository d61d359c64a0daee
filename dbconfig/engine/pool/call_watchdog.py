"""A watch over pings: when one takes too long, its socket is shut down, and the driver that hangs in it wakes up."""

from __future__ import annotations

import itertools
import logging
from threading import Condition, Thread
from time import monotonic

from dbconfig.engine.pool import forks, sockets

logger = logging.getLogger("dbconfig.pool.watch")

# Seconds between two rounds. A new guard need not wake the watch, which would cost each ping two thread switches.
TICK = 0.1
# Seconds without a ping after which the thread ends; it starts again with the next one.
LINGER = 10.0


class Watch:
    """At most one thread per process, apart from the caretaker: it must never be blocked by what it watches."""

    def __init__(self) -> None:
        self.forget()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        """Start afresh; in a forked child neither the thread nor the state of its lock is worth anything."""
        self._round = Condition()
        self._guards: dict[int, tuple[float, int]] = {}
        self._numbers = itertools.count()
        self._running = False

    def enter(self, fd: int, limit: float) -> int:
        with self._round:
            number = next(self._numbers)
            self._guards[number] = (monotonic() + limit, fd)
            if not self._running:
                self._start()
        return number

    def leave(self, number: int) -> bool:
        """Stop guarding. Return whether it was in time: if not, the socket has been shut down."""
        with self._round:
            return self._guards.pop(number, None) is not None

    def _start(self) -> None:
        try:
            Thread(target=self._run, name="dbconfig-watch", daemon=True).start()
        except RuntimeError as error:
            logger.debug("the interpreter starts no thread any more, pings are not watched: %s", error)
        else:
            self._running = True

    def _run(self) -> None:
        round_ = self._round
        last_needed = monotonic()
        with round_:
            while True:
                now = monotonic()
                for number, (due, fd) in list(self._guards.items()):
                    if now >= due:
                        # Under the lock: once the guard has left, this descriptor may be somebody else's.
                        del self._guards[number]
                        sockets.shut(fd)
                if self._guards:
                    last_needed = now
                elif now - last_needed > LINGER:
                    self._running = False
                    return
                round_.wait(TICK)


watch = Watch()
