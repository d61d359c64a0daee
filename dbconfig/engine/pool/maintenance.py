"""One daemon thread per process for what has to happen while nobody asks: idle care and leak reports."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic

from dbconfig.engine.pool import forks

logger = logging.getLogger("dbconfig.pool.caretaker")

Job = Callable[[], float | None]  # returns the seconds until it wants to run again, or None when it is done

# Seconds until a job that failed is tried again: whatever it was, the next round should find a calmer world.
AFTER_ERROR = 5.0


class Caretaker:
    """Starts with the first job and ends with the last. A forked child has none until it has a job of its own."""

    def __init__(self) -> None:
        self.forget()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        self._changed = Condition()
        self._jobs: dict[object, Job] = {}
        self._due: list[tuple[float, int, object, Job]] = []
        self._numbers = itertools.count()
        self._running = False

    def add(self, key: object, job: Job, delay: float = 0.0) -> None:
        """Run a job after ``delay`` seconds and then as often as it wants; one job per key."""
        with self._changed:
            self._jobs[key] = job
            heapq.heappush(self._due, (monotonic() + delay, next(self._numbers), key, job))
            if not self._running:
                self._start()
            self._changed.notify()

    def remove(self, key: object) -> None:
        with self._changed:
            if self._jobs.pop(key, None) is not None:
                self._changed.notify()

    def _start(self) -> None:
        try:
            Thread(target=self._run, name="dbconfig-caretaker", daemon=True).start()
        except RuntimeError as error:
            # The interpreter is going down: there will be nothing left to care for.
            logger.debug("no caretaker any more: %s", error)
        else:
            self._running = True

    def _run(self) -> None:
        while (found := self._next()) is not None:
            key, job = found
            try:
                delay = job()
            except Exception:
                logger.exception("the caretaker of the connection pools failed in one of its jobs")
                delay = AFTER_ERROR
            with self._changed:
                if self._jobs.get(key) is not job:
                    continue  # removed, or replaced, while it ran
                if delay is None:
                    del self._jobs[key]
                else:
                    heapq.heappush(self._due, (monotonic() + delay, next(self._numbers), key, job))
            del found, job  # a job that is done must not live on in this frame

    def _next(self) -> tuple[object, Job] | None:
        """Wait for the next job that is due; ``None`` when there is none left."""
        with self._changed:
            while self._jobs:
                # By the job, not by the key: a key that is an identity may belong to somebody else by now.
                while self._due and self._jobs.get(self._due[0][2]) is not self._due[0][3]:
                    heapq.heappop(self._due)
                if not self._due:
                    break
                wait = self._due[0][0] - monotonic()
                if wait <= 0:
                    return heapq.heappop(self._due)[2:]
                self._changed.wait(wait)
            self._jobs.clear()
            self._due.clear()
            self._running = False
            return None


caretaker = Caretaker()
