"""Which errors pass by themselves, and how a unit of work is run again after one."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session

from dbconfig.pool.sockets import Look, Verdict

_log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE: Final = 0.02  # seconds; a deadlock's other side has usually finished by then
CONNECTIONS: Final = "dbconfig.connections"  # in session.info of a unit of work: those of its transaction
LONGEST_PAUSE: Final = 1.0  # seconds; a server that restarts is found again soon after it is up


class Fate(Enum):
    """What an error says about the work that it ended."""

    CONFLICT = "conflict"  # rolled back by the server in favour of another transaction
    LOST = "lost connection"  # the connection is gone, and with it whatever was not committed
    ABSENT = "no connection"  # there was none: nothing was sent
    FINAL = "final"  # trying again would fail again


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final[Mapping[str, Fate]] = {
    "40001": Fate.CONFLICT,  # serialization_failure
    "40P01": Fate.CONFLICT,  # deadlock_detected
    "55P03": Fate.CONFLICT,  # lock_not_available: lock_timeout, NOWAIT
    "25006": Fate.LOST,  # read_only_sql_transaction: this was the primary once; the pool leaves it
    "57P01": Fate.LOST,  # admin_shutdown, pg_terminate_backend
    "57P02": Fate.LOST,  # crash_shutdown
    "57P03": Fate.ABSENT,  # cannot_connect_now: starting up, in recovery
    "57P05": Fate.LOST,  # idle_session_timeout
    "25P03": Fate.LOST,  # idle_in_transaction_session_timeout
    "53300": Fate.ABSENT,  # too_many_connections
}
# https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
# https://mariadb.com/kb/en/mariadb-error-code-reference/
_MYSQL: Final[Mapping[int, Fate]] = {
    1020: Fate.CONFLICT,  # ER_CHECKREAD: MariaDB's snapshot isolation
    1205: Fate.CONFLICT,  # ER_LOCK_WAIT_TIMEOUT
    1213: Fate.CONFLICT,  # ER_LOCK_DEADLOCK
    3572: Fate.CONFLICT,  # ER_LOCK_NOWAIT
    1053: Fate.LOST,  # ER_SERVER_SHUTDOWN
    1290: Fate.LOST,  # ER_OPTION_PREVENTS_STATEMENT: --read-only
    1792: Fate.LOST,  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
    1836: Fate.LOST,  # ER_READ_ONLY_MODE
    1927: Fate.LOST,  # ER_CONNECTION_KILLED
    2006: Fate.LOST,  # CR_SERVER_GONE_ERROR
    2013: Fate.LOST,  # CR_SERVER_LOST
    2055: Fate.LOST,  # CR_SERVER_LOST_EXTENDED
    4031: Fate.LOST,  # ER_CLIENT_INTERACTION_TIMEOUT
    1040: Fate.ABSENT,  # ER_CON_COUNT_ERROR: too many connections
    2002: Fate.ABSENT,  # CR_CONNECTION_ERROR
    2003: Fate.ABSENT,  # CR_CONN_HOST_ERROR
}
# https://www.sqlite.org/rescode.html: BUSY, LOCKED and their extended forms
_SQLITE: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
# psycopg2 and psycopg give no SQLSTATE when a connection cannot be made, only the text of libpq and of the server.
_HEALING: Final = (
    "connection refused",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "not accepting connections",
    "too many clients",
    "too many connections",
    "remaining connection slots are reserved",
    "timeout expired",
    "timed out",
    "could not translate host name",
    "name or service not known",
    "temporary failure in name resolution",
    "no route to host",
    "network is unreachable",
    "connection reset",
    "server closed the connection unexpectedly",
    "no such file or directory",  # the socket of a server that is not up
    "session is read-only",  # target_session_attrs: no primary yet
    "session is not read-only",
)


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


def fate_of(error: BaseException) -> Fate:
    """Return what an error says about the work that it ended."""
    if not isinstance(error, DBAPIError):
        return Fate.FINAL
    cause: Any = error.orig
    known = _known(cause)
    if known is not None:
        return known
    # Without a statement the connection itself could not be made.
    if error.statement is None and not error.connection_invalidated:
        text = str(cause).lower()
        return Fate.ABSENT if any(phrase in text for phrase in _HEALING) else Fate.FINAL
    return Fate.LOST if error.connection_invalidated else Fate.FINAL


def _known(cause: Any) -> Fate | None:
    arguments = getattr(cause, "args", ())
    if arguments and isinstance(arguments[0], int):
        return _MYSQL.get(arguments[0])  # before SQLSTATE, which PyMySQL 1.2 and asyncmy tell too: HY000 says nothing
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if isinstance(state, str):
        return _POSTGRESQL.get(state)
    name = getattr(cause, "sqlite_errorname", None)
    return Fate.CONFLICT if name is not None and name.startswith(_SQLITE) else None


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
