"""One daemon thread per process for background work: idle maintenance and leak reports."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from time import sleep

from dbconfig.engine.pool import forks
from dbconfig.engine.pool.clock import monotonic

logger: logging.Logger = logging.getLogger("dbconfig.pool.caretaker")

Job = Callable[[], float | None]  # returns the seconds until its next run, or None when it is done

# Seconds until a failed job is retried; long enough for most causes to pass.
AFTER_ERROR = 5.0
# Seconds after which the thread checks whether any job is left: a caller that removed the last one may have been
# interrupted before it could notify the thread.
LONGEST_WAIT = 10.0


class Caretaker:
    """Starts with the first job and ends with the last. A forked child starts one with its own first job.

    Jobs arrive in a queue written in C: neither an exception from a signal handler nor the garbage collector, which
    may call from anywhere, can leave a lock held here that the thread then waits for.
    """

    def __init__(self) -> None:
        self.forget()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        self._jobs: dict[object, Job] = {}
        self._inbox: SimpleQueue[tuple[float, object, Job] | None] = SimpleQueue()
        self._numbers = itertools.count()
        self._thread: Thread | None = None  # set by the thread itself, since its start may be interrupted

    def add(self, key: object, job: Job, delay: float = 0.0) -> None:
        """Run a job after ``delay`` seconds, and then after the seconds that it returns; one job per key."""
        forks.notice()
        self._jobs[key] = job
        self._inbox.put((monotonic() + delay, key, job))
        if self._thread is None:
            self._start()

    def remove(self, key: object) -> None:
        if self._jobs.pop(key, None) is not None:
            self._inbox.put(None)  # wakes the thread, which may have nothing left to do

    def _start(self) -> None:
        thread = Thread(target=self._run, name="dbconfig-caretaker", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The interpreter is shutting down: there will be nothing left to maintain.
            logger.debug("cannot start the maintenance thread: %s", error)
            return
        while self._thread is None and thread.is_alive():
            sleep(0.0001)  # it is about to begin; the next job need not start another

    def _run(self) -> None:
        me = current_thread()
        self._thread = me
        round_ = _Round(self._jobs, self._inbox, self._numbers)
        while self._thread is me:  # of two started at the same time, the later one stays; they share the inbox
            if self._jobs:
                round_.run()
                continue
            self._thread = None
            if not self._jobs:
                return
            self._thread = me  # a caller came at this moment, and may have seen a running thread
        round_.hand_over()


class _Round:
    """The thread's own view: which job is due when."""

    def __init__(
        self,
        jobs: dict[object, Job],
        inbox: SimpleQueue[tuple[float, object, Job] | None],
        numbers: itertools.count[int],
    ) -> None:
        self._jobs = jobs
        self._inbox = inbox
        self._numbers = numbers
        self._due: list[tuple[float, int, object, Job]] = []

    def hand_over(self) -> None:
        for when, _, key, job in self._due:
            self._inbox.put((when, key, job))

    def run(self) -> None:
        """Wait for the next job that is due or for a message, and run what is due."""
        # By the job, not by the key: a key that is an `id()` may belong to another object by now.
        while self._due and self._jobs.get(self._due[0][2]) is not self._due[0][3]:
            heapq.heappop(self._due)
        wait = max(0.0, self._due[0][0] - monotonic()) if self._due else LONGEST_WAIT
        try:
            message = self._inbox.get(timeout=min(wait, LONGEST_WAIT))
        except Empty:
            message = None
        if message is not None:
            when, key, job = message
            heapq.heappush(self._due, (when, next(self._numbers), key, job))
        elif self._due and self._due[0][0] <= monotonic():
            self._run(*heapq.heappop(self._due)[2:])

    def _run(self, key: object, job: Job) -> None:
        if self._jobs.get(key) is not job:
            return
        try:
            delay = job()
        except Exception:
            logger.exception("a maintenance job of the connection pools failed", extra={"seconds": AFTER_ERROR})
            delay = AFTER_ERROR
        if self._jobs.get(key) is not job:
            return  # removed, or replaced, while it ran
        if delay is None:
            self._jobs.pop(key, None)
        else:
            heapq.heappush(self._due, (monotonic() + delay, next(self._numbers), key, job))


caretaker: Caretaker = Caretaker()
