"""Statements end with the deadline of their caller: on the server, and on the client if the server is silent."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import event
from sqlalchemy.util import await_only

from dbconfig.engine.pool import deadline, driver, sockets
from dbconfig.engine.pool.call_watchdog import watch
from dbconfig.engine.pool.cancelling import Canceller, Request
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.deadline import COMMITTING, STATEMENTS, Deadline

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext

# Seconds that a server gets, beyond the deadline, to report that it has cancelled a statement; the connection is then
# still usable.
GRACE = 0.03
# Seconds that a ROLLBACK gets when the time is over.
CLEANUP = 0.25

_STATEMENTS = ("do_execute", "do_execute_no_params", "do_executemany")


class _Limited:
    """What limits the calls of one engine's driver, where a deadline is set."""

    def __init__(self, engine: Engine) -> None:
        self.dialect: Any = engine.dialect
        self.driver = driver.of(engine.dialect)
        self.canceller = Canceller(engine)

    lift: Callable[[Any], None] | None = None  # the limit of an earlier statement, where that lasts

    def statement(self, limit: Deadline, call: Callable[..., Any], cursor: Any, *arguments: Any) -> Any:
        began = monotonic()
        if began >= limit.at:
            raise limit.exceeded("a statement was about to be executed", whole=True)
        connection = self.under(cursor)
        late = _Late()
        try:
            result = self.call(late, connection, limit.at - began, call, cursor, *arguments)
        except Exception as error:
            limit.spend(STATEMENTS, monotonic() - began)
            if not late.came and not (self.driver.interrupts and monotonic() >= limit.at):
                raise
            # The server's answer may arrive just as the socket is shut down.
            whole = self.driver.interrupts or (self.driver.was_cancelled(error) and not late.shut)
            raise limit.exceeded("a statement was executed", whole=whole) from error
        limit.spend(STATEMENTS, monotonic() - began)
        if late.came:  # it ended at the same moment; the cancel request may hit the next statement
            raise limit.exceeded("a statement was executed", whole=self.driver.interrupts)
        return result

    def commit(self, limit: Deadline, call: Callable[..., Any], connection: Any) -> Any:
        began = monotonic()
        if began >= limit.at:
            self.refuse_commit(limit, connection)
        late = _Late()
        try:
            return self.cut(late, self.own(connection), limit.at - began, call, connection)
        except Exception as error:
            if not late.came:
                raise
            raise limit.exceeded("COMMIT was under way") from error
        finally:
            limit.spend(COMMITTING, monotonic() - began)

    def refuse_commit(self, limit: Deadline, connection: Any) -> NoReturn:
        """Roll back: SQLAlchemy takes a COMMIT that failed for the end of the transaction."""
        during = "COMMIT was about to be sent"
        try:
            self.dialect.do_rollback(connection)
        except Exception as error:
            raise limit.exceeded(during) from error
        raise limit.exceeded(during, whole=True)

    def rollback(self, limit: Deadline, call: Callable[..., Any], connection: Any) -> Any:
        return self.cut(_Late(), self.own(connection), max(CLEANUP, limit.remaining()), call, connection)

    def under(self, cursor: Any) -> Any:
        """Return the driver's connection of a cursor."""
        return cursor.connection

    def own(self, connection: Any) -> Any:
        """Return the driver's connection of SQLAlchemy's."""
        return getattr(connection, "driver_connection", connection)

    def call(self, late: _Late, connection: Any, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function; after so many seconds cancel it on the server, and a moment later shut its socket down."""
        fd = self.driver.socket(connection)
        if fd is None:
            return call(*arguments)

        cancel, cut = self.steps(late, connection, fd)
        return watch.guard(cut, seconds + GRACE, watch.guard, cancel, seconds, call, *arguments)[0][0]

    def steps(self, late: _Late, connection: Any, fd: int | None) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return what happens when the time is over, and a moment later. Neither blocks."""
        number, ask = self.driver.number(connection), self.canceller.ask

        def cancel() -> None:
            late.came = True
            if number is not None:
                ask(Request(number))

        def cut() -> None:
            if fd is not None:
                left = self.driver.leave(connection)
                late.cut(fd)
                if number is not None:
                    ask(Request(number, left))

        return cancel, cut

    def cut(self, late: _Late, connection: Any, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, and shut its socket down after so many seconds."""
        fd = self.driver.socket(connection)
        if fd is None:
            return call(*arguments)

        return watch.guard(partial(late.cut, fd), seconds, call, *arguments)[0]


class _Late:
    __slots__ = ("came", "shut")

    def __init__(self) -> None:
        self.came = False
        self.shut = False  # and the socket was shut

    def cut(self, fd: int) -> None:
        self.came = self.shut = True
        sockets.shut(fd)


class _OfLoop(_Limited):
    """The same for an asynchronous driver, with timers of its event loop."""

    def under(self, cursor: Any) -> Any:
        return cursor._connection  # SQLAlchemy's adapter of asynchronous drivers has no public name for it

    def call(self, late: _Late, connection: Any, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        cancel, cut = self.steps(late, connection, self.driver.socket(connection))
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(seconds, cancel), loop.call_later(seconds + GRACE, cut)]
        try:
            return call(*arguments)
        finally:
            for timer in timers:
                timer.cancel()

    def cut(self, late: _Late, connection: Any, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        fd = self.driver.socket(connection)
        if fd is None:
            return call(*arguments)

        timer = asyncio.get_running_loop().call_later(seconds, late.cut, fd)
        try:
            return call(*arguments)
        finally:
            timer.cancel()


class _InProcess(_Limited):
    """The same for a database that runs in this process: it checks the clock, also while rows are read."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        event.listen(engine, "handle_error", self.name, retval=True)

    def under(self, cursor: Any) -> Any:
        return cursor._connection if self.dialect.is_async else cursor.connection

    def call(self, late: _Late, connection: Any, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        self.run_until(connection, monotonic() + seconds)
        return call(*arguments)

    def cut(self, late: _Late, connection: Any, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        self.run_until(connection, None)
        return call(*arguments)

    def run_until(self, connection: Any, when: float | None) -> None:
        done = self.driver.run_until(connection, when)
        if done is not None:
            await_only(done)

    def lift(self, cursor: Any) -> None:
        self.run_until(self.under(cursor), None)

    def name(self, context: ExceptionContext) -> BaseException | None:
        """Say so when it was the deadline that ended the reading of rows."""
        limit, error = deadline.current(), context.original_exception
        if limit is None or monotonic() < limit.at or not self.driver.was_cancelled(error):
            return None
        return limit.exceeded("rows were read", whole=True)


def _kind(engine: Engine) -> type[_Limited]:
    if driver.of(engine.dialect).interrupts:
        return _InProcess
    return _OfLoop if engine.dialect.is_async else _Limited


class _Engines:
    """The engines of the process; they are limited from its first deadline on, and check for none before."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._limited = False
        self._lock = Lock()

    def add(self, engine: Engine) -> None:
        with self._lock:
            self._known.add(engine)
            if self._limited:
                _limit(engine)

    def limit(self) -> None:
        if self._limited:
            return
        with self._lock:
            if not self._limited:
                for engine in list(self._known):
                    _limit(engine)
                self._limited = True


def _limit(engine: Engine) -> None:
    # Outermost: the listeners that record a COMMIT must not see one that is rejected here.
    limited = _kind(engine)(engine)
    for name in _STATEMENTS:
        _wrap(engine.dialect, name, limited.statement, limited.lift)
    _wrap(engine.dialect, "do_commit", limited.commit)
    _wrap(engine.dialect, "do_rollback", limited.rollback)


def _wrap(dialect: Any, name: str, limit: Callable[..., Any], lift: Callable[[Any], None] | None = None) -> None:
    call, current = getattr(dialect, name), deadline.current

    def within(first: Any, *arguments: Any, **keywords: Any) -> Any:  # by name: from a wrapper of the application
        found = current()
        if found is not None:
            return limit(found, partial(call, **keywords) if keywords else call, first, *arguments)
        if lift is not None:
            lift(first)
        return call(first, *arguments, **keywords)

    setattr(dialect, name, within)  # on the dialect object of this engine alone


_engines = _Engines()
attach = _engines.add
deadline.at_first_use(_engines.limit)
