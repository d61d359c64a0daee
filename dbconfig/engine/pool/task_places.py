"""The places of an asynchronous pool: carries out what the queue commands, in tasks of one event loop."""

from __future__ import annotations

import asyncio
import logging
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_only, greenlet_spawn

from dbconfig.engine.pool import deadline, farewell
from dbconfig.engine.pool.both import Ours
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.mending import REVIEW, mend
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.ping import PING_LIMIT
from dbconfig.engine.pool.place import Caller, Close, Command, Connect, Ping, Place, Serve, State
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import Past
from dbconfig.engine.pool.task_record import TaskRecord, is_held

if TYPE_CHECKING:
    from collections import OrderedDict, deque
    from collections.abc import Callable, Coroutine

logger: logging.Logger = logging.getLogger("dbconfig.pool.line")

LAST_LOOKS = 1.0  # seconds between two checks for connections that were not returned to a disposed pool


class TaskPlaces(AsyncAdaptedQueuePool, Ours):
    """The base of `TaskPool`, without the checkout itself.

    Each connect is a separate task: its waiter may be cancelled at any moment, and the connection then goes to the next
    caller, or becomes idle. So is each close: a cancelled caller does not stop it, and it has a time limit.

    A signal handler may raise at any point. Between two events each place is idle, or a task, a caller, or a loan that
    is alive has it. While callers wait, and in each round of care, the pool reclaims all other places.
    """

    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"  # the name that logging is configured for

    def __init__(
        self, creator: Any, line: LineOptions | None = None, past: Past | None = None, **arguments: Any
    ) -> None:
        super().__init__(creator, line, past, **arguments)
        self.line: Line = Line(self.rules(), self.counters)
        self._loop: Any = None  # of the first use
        self.thread = 0
        self._timers: tuple[asyncio.TimerHandle, ...] = ()  # of the next round
        self._next_end = NEVER  # when the first wait ends; or sooner
        self._asking: set[Caller] = set()  # in the course of a checkout
        self._connects: set[asyncio.Task[None]] = set()
        self._closes: set[asyncio.Task[None]] = set()
        self._abruptly = False  # what is being closed now is closed without notifying the server

    def _lost(self, place: Place) -> None:
        self.line.lost(place, monotonic())
        self._run()

    def _run(self) -> None:
        """Carry out the queue's commands."""
        line = self.line
        while line.commands:
            commands, line.commands = line.commands, []
            for command in commands:
                self._obey(command)

    def _obey(self, command: Command) -> None:
        if isinstance(command, Serve):
            key = command.caller.key
            if key is not None and not key.done():  # None: it was interrupted before it could wait
                key.set_result(None)
        elif isinstance(command, Connect):
            self._spawn(self._connect(command.place), self._connects, command.place)
        elif isinstance(command, Close):
            self._close(command.place, command.reason, command.polite)
        elif isinstance(command, Ping):
            self._spawn(self._ping(command.place), self._closes, command.place)
        else:
            left = max(0.0, command.when - monotonic())
            self._wake_in(min(left, REVIEW) if self.line.callers else left)

    def _wake_in(self, seconds: float) -> None:
        if self.line.callers:
            seconds = max(0.0, min(seconds, self._next_end - monotonic()))
        loop, known, before = self._loop, weakref.ref(self), self._timers
        # Twice: asyncio does not come back to a function that an exception has kept from beginning.
        self._timers = (loop.call_later(seconds, _tick, known), loop.call_later(seconds + REVIEW, _tick, known))
        for timer in before:  # afterwards: one of them is always to come
            timer.cancel()

    def _see_to_a_review(self, until: float) -> None:
        """Schedule a round soon, because a caller waits; at the latest at the end of its wait."""
        sooner = until < self._next_end
        if sooner:
            self._next_end = until
        timers = self._timers
        if (
            not timers
            or not 0 < timers[-1].when() - (now := self._loop.time()) <= 3 * REVIEW
            or (sooner and until - monotonic() < timers[0].when() - now)
        ):
            self._wake_in(REVIEW)

    def _stop_timers(self) -> None:
        before, self._timers = self._timers, ()
        for timer in before:
            timer.cancel()

    def _spawn(
        self, work: Coroutine[Any, Any, None], known: set[asyncio.Task[None]], place: Place | None = None
    ) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        if place is not None:
            place.keeper = task
        task.add_done_callback(known.discard)  # first: interrupted, it is in there with its end to come, or not at all
        known.add(task)
        return task

    async def _connect(self, place: Place) -> None:
        if not self._begins(place, State.CONNECTING):
            return
        deadline.lift()  # the caller may give up, and the connection goes to the next one
        try:
            record = await greenlet_spawn(TaskRecord, self, place)
        except BaseException as error:
            await self._connect_failed(place, error)
            if not isinstance(error, Exception):
                raise
            return
        now = monotonic()
        record.doubtful_at = min(now + self.trust, place.expires)
        self.line.connected(place, now, place.expires)
        self._run()

    async def _connect_failed(self, place: Place, error: BaseException) -> None:
        transient = True
        try:
            if isinstance(error, Exception):
                # In a thread: it may have to query the network for what the driver does not report.
                transient = await asyncio.to_thread(self.options.judge.connects_again, error)
            else:  # the loop ends, and cancels its tasks; that does not cancel the waiters
                error = ConnectionAbortedError("the connect was cancelled, together with its event loop's tasks")
        finally:
            self.line.connect_failed(place, error, transient=transient, now=monotonic())
            self._run()

    async def _ping(self, place: Place) -> None:
        """Ask an idle connection."""
        if not self._begins(place, State.CHECKING):
            return
        verdict = Verdict.SILENT
        try:
            now = monotonic()
            verdict = await greenlet_spawn(self._ask_or_look, place.connection, now, now + PING_LIMIT)
        finally:
            self.line.checked(place, alive=verdict is Verdict.ALIVE, now=monotonic())
            if verdict is not Verdict.ALIVE:
                logger.info(
                    "%s: an idle connection died; replacing it",
                    self.options.name,
                    extra=facts(self.options.name),
                )
            if verdict is Verdict.SILENT:
                self.line.invalidate(monotonic())
            self._run()

    def _close(self, place: Place, reason: str, polite: bool) -> None:
        place.connection.reason = reason
        if not polite or reason == "ping" or self._loop.is_closed():
            self._abruptly = True  # the server does not answer
            try:
                place.connection.close()
            finally:
                self._abruptly = False
                self._closed(place)
        else:
            parting = self._spawn(self._part(place), self._closes, place)
            parting.add_done_callback(lambda task: self._closed(place) if task.cancelled() else None)

    async def _part(self, place: Place) -> None:
        if not self._begins(place, State.CLOSING):
            return
        try:
            await greenlet_spawn(place.connection.close)
        finally:
            self._closed(place)
            self._run()

    def _closed(self, place: Place) -> None:
        left = place.connection.dbapi_connection
        if left is not None:  # SQLAlchemy was interrupted before it could close it
            self.cut(left)
        self.line.closed(place, monotonic())

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        """Close a driver's connection within a time limit, even if the caller is cancelled meanwhile."""
        self.logger.debug("%s connection %r", "Hard-closing" if terminate else "Closing", connection)
        here = get_ident() == self.thread and not self._loop.is_closed()
        from sqlalchemy.util.concurrency import in_greenlet  # below 2.0.58, only threads are supported

        if not in_greenlet() and (here or self._loop is None or self._loop.is_closed()):
            farewell.cut(self._dialect, connection)
        elif not here:
            self._loop.call_soon_threadsafe(farewell.cut, self._dialect, connection)
        elif self._abruptly:
            self._loop.call_soon(farewell.cut, self._dialect, connection)
        else:
            good_bye = self._spawn(farewell.close(self._dialect, connection, terminate=terminate), self._closes)
            farewell.ensure(good_bye, self._dialect, connection)
            await_only(asyncio.shield(good_bye))

    def cut(self, connection: Any) -> None:
        """Close a driver's connection immediately, from any thread."""
        if self._loop is None or self._loop.is_closed():
            farewell.cut(self._dialect, connection)
        else:
            self._loop.call_soon_threadsafe(farewell.cut, self._dialect, connection)

    def _ask_or_look(self, record: TaskRecord, now: float, deadline: float) -> Verdict:
        if record.transport is not None and record.transport.is_closing():
            return Verdict.DEAD  # the loop has closed it, and its descriptor may have been reused
        assert self._check is not None
        return self._check.of_record(self._dialect, record, now, deadline)

    def _review(self) -> None:
        """Do what is due, and repair what an interrupt has left."""
        timers, now = self._timers, monotonic()
        next_end = NEVER
        for caller in list(self._asking):
            if now >= caller.until:
                self._expire(caller)
            elif caller.key is not None and not caller.key.done():
                next_end = min(next_end, caller.until)
                if now >= caller.half:
                    caller.half = NEVER
                    self._collect(caller.until - now)
        self._next_end = next_end
        self._mend(now)
        self.line.tick(now)
        self._run()
        nothing_due = self._timers is timers
        if self.line.callers:
            self._wake_in(REVIEW) if nothing_due else self._see_to_a_review(next_end)  # and then cancel the old timers
        elif nothing_due:
            self._stop_timers()
        self._watch_the_rest()

    def _watch_the_rest(self) -> None:
        """Schedule reviews of the connections that are in use after a disposal."""
        here = get_ident() == self.thread and not self._loop.is_closed()
        if self.line.disposed and self.line.places and not self._timers and here:
            self._wake_in(LAST_LOOKS)

    def _mend(self, now: float) -> None:
        handed = {caller.place for caller in self._asking}
        waiting = [caller for caller in self._asking if caller.key is not None and not caller.key.done()]
        mend(self.line, waiting, lambda place: place in handed or is_held(place), now)

    def _expire(self, caller: Caller) -> None:
        raise NotImplementedError

    def _collect(self, left: float) -> None:
        raise NotImplementedError

    def _begins(self, place: Place, state: State) -> bool:
        """Begin a task's work on a place, unless the place was reclaimed meanwhile."""
        place.keeper = asyncio.current_task()
        return place.state is state

    def invalidate_all(self) -> None:
        """Hand out no existing connection again; those in use close when they are returned."""
        self.line.invalidate(monotonic())
        self._run()

    def _discard_idle(self, condemned: Callable[[Any], bool], reason: str) -> None:
        self.line.close_idle(lambda place: condemned(place.connection), reason)
        self._run()

    def is_over(self) -> bool:
        return self.line.disposed and not self.line.open and not self.line.callers

    @property
    def generation(self) -> int:  # type: ignore[override]
        return self.line.generation

    @property
    def open(self) -> int:  # type: ignore[override]
        return self.line.open

    @property
    def connecting(self) -> int:
        return self.line.connecting

    @property
    def idle(self) -> deque[Place]:  # type: ignore[override]
        return self.line.idle

    @property
    def waiters(self) -> OrderedDict[Caller, None]:
        return self.line.callers

    def checkedout(self) -> int:
        return self.line.in_use - len(self.line.idle)


def _tick(known: weakref.ref[TaskPlaces]) -> None:
    pool = known()  # weakly: a timer must not keep a pool alive
    if pool is not None:
        pool._review()
