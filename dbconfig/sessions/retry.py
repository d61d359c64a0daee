"""Which errors pass by themselves, and how a unit of work is run again after one."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session

from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import fate_of
from dbconfig.engine.pool.sockets import Look, Verdict
from dbconfig.sessions.session import CONNECTIONS

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

_log = logging.getLogger("dbconfig.retry")

T = TypeVar("T")

FIRST_PAUSE: Final = 0.02  # seconds; a deadlock's other side has usually finished by then
LONGEST_PAUSE: Final = 1.0  # seconds; a server that restarts is found again soon after it is up


class CommitUncertain(OperationalError):
    """The connection was lost while COMMIT was under way: the transaction may be committed, or not.

    It is never repeated by itself, since that could apply it twice. Look whether the work is there (a unique key of the
    work makes that easy), and only then run it again.
    """

    def __init__(self, cause: DBAPIError) -> None:
        super().__init__(cause.statement or "COMMIT", None, cause.orig or cause, connection_invalidated=True)
        self.add_note(
            "dbconfig: the outcome of this COMMIT is unknown. Look whether its work is there before you repeat it."
        )


def pauses(first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> Iterator[float]:
    """Yield how long to wait before each further attempt, in seconds: doubling, and anywhere from half to all of it.

    Two transactions that met once would meet again if both waited equally long.
    """
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, longest)


class Attempts:
    """Counts the attempts at one unit of work, and decides after each failure whether there is another one."""

    def __init__(self, limit: int, timeout: float, label: str) -> None:
        """Begin.

        Args:
            limit: attempts at the most.
            timeout: seconds from now; no attempt begins after it.
            label: names the database in log records.
        """
        if limit < 1:
            raise ValueError(f"attempts must be at least 1, not {limit}")
        self.number = 1
        self._limit = limit
        self._label = label
        self._deadline = time.monotonic() + timeout
        self._pauses = pauses()

    def pause_after(self, error: BaseException, *, committing: bool) -> float:
        """Return how long to wait before the next attempt.

        Raises:
            CommitUncertain: the connection was lost with COMMIT under way.
            BaseException: the error itself, if it is final or there is no attempt left.
        """
        fate = fate_of(error)
        if fate is Fate.FINAL or not isinstance(error, DBAPIError):
            raise error
        if committing and fate is not Fate.CONFLICT:
            raise CommitUncertain(error) from error
        pause = next(self._pauses)
        left = self._deadline - time.monotonic()
        # What never reached the server is no attempt at the work: it goes on until the time is up.
        if (fate is not Fate.ABSENT and self.number >= self._limit) or pause > left:
            error.add_note(f"dbconfig: given up after attempt {self.number} of {self._limit}: {fate.value}")
            raise error
        _log.info("%s: attempt %d of %d: %s; again in %.3f s", self._label, self.number, self._limit, fate.value, pause)
        self.number += fate is not Fate.ABSENT
        return pause


def refuse_dead(session: Session) -> None:
    """Raise while it is still certain that nothing was committed, if the connection is known to be dead.

    The look costs no round trip, and makes of most uncertain COMMITs after a restart a mere repetition.
    """
    for connection in session.info.get(CONNECTIONS, ()):
        if connection.closed or connection.invalidated:
            continue
        look = Look.at(connection.connection.driver_connection)
        if look is not None and look.verdict() is Verdict.DEAD:
            cause = ConnectionError("the connection was closed by the other side before COMMIT was sent")
            connection.invalidate(cause)
            raise OperationalError("COMMIT", None, cause, connection_invalidated=True)


# The session of the unit of work that runs in this thread or task, by registry and database: a nested call joins it.
Running = Mapping[tuple[int, str], Session]
running: ContextVar[Running] = ContextVar("dbconfig.running", default={})  # noqa: B039  # never written into
if hasattr(os, "register_at_fork"):
    # A child that is forked within a unit of work cannot join it: the connection is its parent's.
    os.register_at_fork(after_in_child=lambda: running.set({}))


def run(
    open_session: Callable[[], Session], work: Callable[[Session], T], attempts: Attempts, key: tuple[int, str]
) -> T:
    """Run `work` in a transaction of a fresh session, again after an error that passes by itself."""
    outer = running.get()
    if key in outer:
        return work(outer[key])  # part of the outer unit: that one is run again as a whole
    while True:
        committing = False
        session = open_session()
        session.info["attempt"] = attempts.number
        token = running.set({**outer, key: session})
        try:
            with session:
                result = work(session)
                session.flush()  # what the flush runs into is not yet a question of the COMMIT
                refuse_dead(session)
                committing = session.in_transaction()
                Session.commit(session)  # the unit's own commit() is refused: it is not for `work` to call
                return result
        except DBAPIError as error:
            pause = attempts.pause_after(error, committing=committing)
        finally:
            running.reset(token)
        time.sleep(pause)


# The session of the unit of work that runs in this task, by registry and database: a nested call joins it.
AsyncRunning = Mapping[tuple[int, str], "tuple[AsyncSession, object]"]


_running: ContextVar[AsyncRunning] = ContextVar("dbconfig.async_running", default={})  # noqa: B039  # never written into


async def async_run(
    open_session: Callable[[], AsyncSession],
    work: Callable[[AsyncSession], Awaitable[T]],
    attempts: Attempts,
    key: tuple[int, str],
) -> T:
    """Run `work` in a transaction of a fresh session, again after an error that passes by itself."""
    outer, task = _running.get(), asyncio.current_task()
    # A task that was started within the unit inherits its context, but may not use its session at the same time.
    if key in outer and outer[key][1] is task:
        return await work(outer[key][0])
    while True:
        committing = False
        session = open_session()
        session.info["attempt"] = attempts.number
        token = _running.set({**outer, key: (session, task)})
        try:
            async with session:
                result = await work(session)
                await session.flush()  # what the flush runs into is not yet a question of the COMMIT
                await greenlet_spawn(refuse_dead, session.sync_session)
                committing = session.in_transaction()
                await greenlet_spawn(Session.commit, session.sync_session)  # the unit's own commit() is refused
                return result
        except DBAPIError as error:
            pause = attempts.pause_after(error, committing=committing)
        finally:
            _running.reset(token)
        await asyncio.sleep(pause)
