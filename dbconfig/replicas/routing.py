"""Primary or replica: which server a read-only session reads from."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, event, exc
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only, greenlet_spawn

from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.pool import deadline as deadlines
from dbconfig.engine.pool.chance import chance
from dbconfig.engine.pool.facts import facts
from dbconfig.replicas import positions, read_your_writes
from dbconfig.replicas.health import Fleet, Route, is_exhausted
from dbconfig.sessions.session import ReadOnlySession, SnapshotSession
from dbconfig.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_log = logging.getLogger("dbconfig.routing")

# Seconds between two checks of a replica that is behind, if the primary may not be read.
WAIT_STEP: Final = 0.005
# Seconds between two attempts to reach the primary, if no other server can be read from.
PRIMARY_STEP: Final = 0.25
# Seconds for which a replica that lacked a write is tried last.
LATELY: Final = 0.1
_UNREACHABLE: Final = (exc.DBAPIError, exc.TimeoutError, OSError)


class Router(Fleet):
    """Chooses a server for each read-only session, and another one if that one cannot serve it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._on_galera = False  # as far as the primary has reported
        self._turn = itertools.count()  # its `next` is atomic, so the hot path needs no lock

    def choose(self) -> Route:
        """Return the next server, by weight; servers out of rotation are skipped."""
        turns = self.turns
        if turns:
            return turns[next(self._turn) % len(turns)]
        return self.primary if self.settings.replica_fallback else self.replicas[0]

    def connect(self, first: Route) -> Connection:
        """Return a connection for reading: of the chosen server, or of a substitute."""
        mark = self.mark() if self.watches and read_your_writes.marks() else None
        if mark is None and not first.out:  # the usual case: costs as much as a bare engine
            try:
                connection: Connection | None = self._primarys() if first is self._primary else first.open()
            except _UNREACHABLE as error:
                if first is self._primary or is_exhausted(error):
                    raise
                self.failed(first, error)
            else:
                first.reads += 1
                assert connection is not None
                return connection
        connection, trouble = self._try(self._candidates(first, mark), mark)
        if connection is not None:
            return connection
        if self.settings.replica_fallback:
            connection = self._primarys(mark)
            self.primary.reads += 1
            return connection
        return self._wait(mark, trouble)

    def _primarys(self, mark: read_your_writes.Mark | None = None) -> Connection:
        """Return a connection to the primary; wait for one that cannot be reached as long as any session would."""
        deadline = time.monotonic() + self.settings.pool_timeout
        while True:
            try:
                connection = self.primary.open()
            except _UNREACHABLE as error:
                late = time.monotonic() + PRIMARY_STEP > deadline
                if late or is_exhausted(error) or errors.fate_of(error) is not Fate.ABSENT:
                    raise
            else:
                # A node of Galera is asked for a mark without a position, too: the one that was written to may have
                # lost its cluster since, and this one have received its commits without having applied them.
                known = mark is not None and (mark.position or self._on_galera)
                if not known or self._is_settled(connection, deadline):
                    return connection
            self.pause(PRIMARY_STEP)

    def _is_settled(self, connection: Connection, deadline: float) -> bool:
        """Return whether the primary has a write: a Galera node may not have applied yet what another one accepted.

        Raises:
            OperationalError: it does not, and the deadline is near.
            DeadlineExceeded: the caller's own deadline is over.
        """
        if not positions.positions_of(self.primary).settled or connection.connection.info.get(positions.NODE) is False:
            return True
        try:
            self._position_of_primary(connection)
        except deadlines.DeadlineExceeded:
            connection.close()
            raise
        except Exception as error:
            connection.close()
            if time.monotonic() + PRIMARY_STEP > deadline:
                raise exc.OperationalError(None, None, error) from error
            return False
        except BaseException:  # a task that is cancelled while its question is under way
            connection.close()
            raise
        return True

    def _candidates(self, first: Route, mark: read_your_writes.Mark | None) -> Iterator[Route]:
        if first is self._primary:
            return iter(())
        others = [route for route in dict.fromkeys(self.turns) if route is not first]
        chance.shuffle(others)  # spread what one server cannot serve over all the others
        order = others if first.out else [first, *others]
        if mark is not None:  # try servers that lagged a moment ago last
            recently = time.monotonic() - LATELY
            order.sort(key=lambda route: route.lagged_at > recently and not self._may_have(route, mark))
        return iter(order)

    def _try(
        self, candidates: Iterator[Route], mark: read_your_writes.Mark | None
    ) -> tuple[Connection | None, BaseException | None]:
        trouble: BaseException | None = None
        asked = False
        for route in candidates:
            if mark is not None and asked and not self._may_have(route, mark):
                continue  # if one lags, others often do too, and each further query is a round trip
            try:
                connection = route.open()
            except _UNREACHABLE as error:
                if is_exhausted(error):
                    raise
                trouble = error
                self.failed(route, error)
                continue
            try:
                serves = mark is None or self._has(route, connection, mark)
            except BaseException:  # a task that is cancelled while its question is under way
                connection.close()
                raise
            if serves:
                route.reads += 1
                return connection, None
            connection.close()
            route.lagged_at = time.monotonic()
            asked = not route.out
        return None, trouble

    def _wait(self, mark: read_your_writes.Mark | None, trouble: BaseException | None) -> Connection:
        """Wait for a replica that has the write, because the primary may not be read."""
        if mark is not None and mark.claimed:
            self._check_claim(mark)
        deadline = time.monotonic() + self.settings.pool_timeout
        limit = deadlines.current()
        while mark is not None and self.turns and time.monotonic() < deadline:
            if limit is not None and not limit.remaining():
                raise limit.exceeded("a replica was awaited that has what was written", whole=True) from trouble
            self.pause(WAIT_STEP)
            connection, trouble = self._try(self._candidates(self.choose(), mark), mark)
            if connection is not None:
                return connection
        states = "; ".join(f"{route.address}: {route.out or 'behind'}" for route in self.replicas)
        message = f"no replica of {self.label} is available ({states}), and replica_fallback is false"
        raise exc.OperationalError(None, None, RuntimeError(message)) from trouble

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    # Read your writes

    def mark(self) -> read_your_writes.Mark | None:
        """Return the mark of the last commit in this context, with its position; None if any server will do."""
        if not self.watches:
            return None
        mark = read_your_writes.marks().get(self.key)
        if mark is None:
            return None
        if not mark.asked:
            # Not at the commit: a commit without a later read costs nothing. The primary's current position includes
            # it.
            mark.position = self._ask_primary()
            mark.asked = True
        if not mark.position and time.time() - mark.at > (self.settings.replica_max_lag or read_your_writes.BY_TIME):
            return None
        return mark

    def _ask_primary(self) -> str:
        try:
            with self.primary.open() as connection:
                return self._position_of_primary(connection)
        except (positions.CannotKnow, deadlines.DeadlineExceeded):
            raise
        except Exception as error:  # drivers raise their own errors for calls that bypass SQLAlchemy
            _log.warning(
                "%s: the primary does not report its position, reads go by time: %s",
                self.label,
                error,
                extra=facts(self.label),
            )
            return ""

    def _position_of_primary(self, connection: Connection) -> str:
        known, info = positions.positions_of(self.primary), connection.connection.info
        if not (known.settled and info.get(positions.NODE)):
            text = self.ask(connection, known.primary)
            info[positions.NODE] = self._on_galera = text.startswith(positions.GALERA)
            if not (known.settled and info[positions.NODE]):
                return text
        return self.ask(connection, known.settled)

    def _check_claim(self, mark: read_your_writes.Mark) -> None:
        """Do not wait for more than the primary has: a position beyond it was forged, and no replica will reach it."""
        has = self._ask_primary()
        if not has:
            return
        known = positions.positions_of(self.primary)
        try:
            possible = known.covers(known.parse(has), known.parse(mark.position))
        except ValueError:
            possible = False
        if not possible:
            mark.position = has
        mark.claimed = False

    def _has(self, route: Route, connection: Connection, mark: read_your_writes.Mark) -> bool:
        """Return whether a server has a write; it is queried unless its known position is sufficient."""
        if not mark.position:
            return False
        server = positions.server_of(connection)
        if server is not None and self._covers(route.servers.get(server), route, mark):
            return True
        try:
            text = self.ask(connection, positions.positions_of(route).replica)
        except deadlines.DeadlineExceeded:
            raise
        except Exception as error:
            self.failed(route, error)
            return False
        server = positions.server_of(connection)
        self.note_position(route, server, text)
        return self._covers(route.servers.get(server), route, mark)

    def _may_have(self, route: Route, mark: read_your_writes.Mark) -> bool:
        """Return whether one of the servers behind an address is known to have a write."""
        return any(self._covers(position, route, mark) for position in list(route.servers.values()))

    def _covers(self, position: Any, route: Route, mark: read_your_writes.Mark) -> bool:
        if position is None or not mark.position:
            return False
        known = positions.positions_of(route)
        try:
            return known.covers(position, known.parse(mark.position))
        except ValueError:  # a forged token
            return False


class _Routed(ReadOnlySession):
    """A session that keeps its server from the first statement to its end, unless that server fails."""

    def __init__(self, bind: Any = None, *, router: Router, **arguments: Any) -> None:
        super().__init__(bind, **arguments)
        self._router = router
        self._route: Any = None

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **keywords: Any) -> Any:
        if bind is not None:
            return bind
        if self._route is None:
            self._route = self._router.choose()
        return self._route


class RoutedSession(_Routed):
    """A read-only session of one server among several."""


class RoutedSnapshot(_Routed, SnapshotSession):
    """The same, with one snapshot for all statements."""


@event.listens_for(_Routed, "after_begin", propagate=True)
def _stay(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if isinstance(session, _Routed):
        session._route = connection.engine  # `connect` may have used another server


class AsyncRouter(Router):
    """Chooses servers for reading in an event loop, and waits asynchronously."""

    def __init__(self, settings: DatabaseSettings, label: str, open_engine: Callable[..., AsyncEngine]) -> None:
        # Weak: the engines of a loop are keyed by it, and must not keep it alive.
        self._loop = weakref.ref(asyncio.get_running_loop())
        self._looks: set[asyncio.Task[None]] = set()
        kept: list[AsyncEngine] = []  # an engine of a loop closes when its asynchronous side is unreferenced

        def open_(settings: DatabaseSettings, name: str) -> Engine:
            kept.append(open_engine(settings, name, patient=False))
            return kept[-1].sync_engine

        super().__init__(settings, label, open_)

    def begin_look(self) -> None:
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop has ended")
        loop.call_soon_threadsafe(self._begin_in_loop)

    def _begin_in_loop(self) -> None:
        deadlines.lift()  # of the requesting session: the result is for all
        task = asyncio.ensure_future(greenlet_spawn(self.look))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    def pause(self, seconds: float) -> None:
        await_only(asyncio.sleep(seconds))
