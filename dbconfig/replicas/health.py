"""The servers that can be read from: which are healthy, which are out of rotation, and how far each one lags."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, exc
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.base import OptionEngine

from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.pool import caretaker, ledger_if_any
from dbconfig.engine.pool.deadline import DeadlineExceeded
from dbconfig.engine.pool.facts import facts
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.replicas import positions, read_your_writes
from dbconfig.replicas.turns import schedule
from dbconfig.settings.database import DatabaseSettings, ReplicaSettings

_log = logging.getLogger("dbconfig.fleet")

# Seconds until a failed replica is tried again, by a background thread.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
# Maximum seconds between two checks of the replicas' lag, and how long the primary's positions are kept.
LONGEST_LOOK: Final = 5.0
KEPT: Final = 60.0
MOST_SERVERS: Final = 100  # behind one address, whose positions are kept


class Route(OptionEngine):
    """The route to one server. Sessions are bound to it; if it is blocked, `connect` uses another one."""

    def __init__(self, engine: Engine, fleet: Fleet, name: str, weight: int) -> None:
        super().__init__(engine, {})
        self.engine_itself = engine
        self.fleet = fleet
        self.address = name
        self.weight = weight
        self.reads = 0  # connections that were handed to sessions
        self.asked = False  # in use now by a check of its lag, which has a separate connection
        self.position: Any = None  # the server's position when it was last asked
        self.servers: dict[str | None, Any] = {}  # the same for each server behind the address
        self.lag: float | None = None
        self.lagged_at: float = 0.0  # monotonic time when it last lacked the writes of a reader
        self.out = ""  # why it is out of rotation; "" while it is in rotation
        self.pause = FIRST_PAUSE
        self.again: float = 0.0  # monotonic time of the next try
        books = ledger_if_any(engine)
        if books is not None:  # its pool's statistics say the same
            books.reader = weakref.ref(self)
            books.role = "replica" if weight or name != "primary" else "reads"

    open = OptionEngine.connect

    def connect(self) -> Connection:
        return self.fleet.connect(self)


@dataclass(frozen=True, slots=True)
class ReaderStats:
    """How one server serves read-only sessions."""

    name: str
    weight: int
    reads: int
    lag: float | None  # seconds; None if it is not monitored or unknown
    out: str  # why it is out of rotation, or ""


class Fleet:
    """The replicas of one database, and its primary as a server to read from."""

    def __init__(
        self, settings: DatabaseSettings, label: str, open_engine: Callable[[DatabaseSettings, str], Engine]
    ) -> None:
        """Configure what to open; nothing is connected.

        Args:
            settings: of the database.
            label: its name in logs.
            open_engine: creates a read-only engine from settings and a name.
        """
        self.settings = settings
        self.label = label
        self.key: str = read_your_writes.key_of(label, settings)
        self.watches = settings.read_your_writes
        self._open_engine = open_engine
        self._lock = threading.RLock()
        self._primary: Route | None = None
        self._samples: deque[tuple[float, Any]] = deque()
        self._looking = False
        self._resting = False
        self.replicas: list[Route] = [self._replica(number, each) for number, each in enumerate(settings.replicas, 1)]
        self.turns: tuple[Route, ...] = schedule(self.replicas)
        if settings.replica_max_lag is not None:
            self._care(self._interval())

    def _replica(self, number: int, settings: ReplicaSettings) -> Route:
        address = settings.address
        host = address.host or ",".join(map(str, address.query.get("host", ()))) or "localhost"
        name = f"{host}:{address.port}" if address.port else host
        route = Route(self._open_engine(settings, f"{self.label}/replica{number}"), self, name, settings.weight)
        _leave_after_errors(route)
        return route

    @property
    def primary(self) -> Route:
        """The primary, for reading; opened when it is first needed."""
        with self._lock:
            if self._primary is None:
                self._primary = Route(self._open_engine(self.settings, f"{self.label}/reads"), self, "primary", 0)
            return self._primary

    def connect(self, first: Route) -> Connection:
        raise NotImplementedError

    def _routes(self) -> list[Route]:
        return [*self.replicas, *([self._primary] if self._primary is not None else [])]

    def engines(self) -> list[Engine]:
        """Return the open engines, to be disposed of."""
        return [route.engine_itself for route in self._routes()]

    def stats(self) -> list[ReaderStats]:
        return [ReaderStats(route.address, route.weight, route.reads, route.lag, route.out) for route in self._routes()]

    def rest(self) -> None:
        """Stop monitoring the servers; their engines are to be disposed of."""
        self._resting = True
        caretaker.remove(self._key)

    # Health

    def failed(self, route: Route, error: BaseException) -> None:
        """Take a server out of rotation after an error."""
        if is_exhausted(error):
            return
        text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        self.leave(route, text.splitlines()[0])

    def leave(self, route: Route, why: str) -> None:
        if route is self._primary:
            return  # it is the only one
        with self._lock:
            if route.out:
                return
            route.out, route.pause = why, FIRST_PAUSE
            route.again = time.monotonic() + route.pause
            self.turns = schedule(self.replicas)
        _log.warning(
            "%s: replica %s is out of rotation: %s",
            self.label,
            route.address,
            why,
            extra=facts(self.label, replica=route.address, reason=why),
        )
        if not self._resting:
            self._care(FIRST_PAUSE)

    def _take_back(self, route: Route) -> None:
        with self._lock:
            route.out, route.pause = "", FIRST_PAUSE
            self.turns = schedule(self.replicas)
        _log.info(
            "%s: replica %s is back in rotation",
            self.label,
            route.address,
            extra=facts(self.label, replica=route.address),
        )

    @property
    def _key(self) -> tuple[str, int]:
        return "dbconfig.replicas", id(self)

    def _interval(self) -> float:
        most = self.settings.replica_max_lag
        usual = LONGEST_LOOK if most is None else min(LONGEST_LOOK, most / 4)
        return min(usual, FIRST_PAUSE) if any(route.out for route in self.replicas) else usual

    def _care(self, delay: float) -> None:
        fleet = weakref.ref(self)

        def job() -> float | None:
            alive = fleet()
            return None if alive is None else alive._look_after()

        caretaker.add(self._key, job, delay)

    def _look_after(self) -> float | None:
        """Check the servers in a separate thread; the maintenance thread must not block in a connect."""
        if self.settings.replica_max_lag is None and not any(route.out for route in self.replicas):
            return None
        if not self._looking:
            self._looking = True
            try:
                self.begin_look()
            except RuntimeError as error:
                _log.debug("cannot start a thread, or the event loop has ended: %s", error)
                return None
        return self._interval()

    def begin_look(self) -> None:
        """Schedule a call of `look`.

        Raises:
            RuntimeError: it cannot be scheduled.
        """
        threading.Thread(target=self.look, name="dbconfig-replicas", daemon=True).start()

    def ask(self, connection: Connection, question: str) -> str:
        """Ask a server for its position; "" if it has none."""
        return positions.ask(connection, question)

    def look(self) -> None:
        """Check each server that is out of rotation, and the lag of all servers if it matters."""
        measured = self.settings.replica_max_lag is not None
        try:
            if measured:
                self._sample_primary()
            for route in [] if self._resting else self.replicas:
                if time.monotonic() >= route.again if route.out else measured:
                    self._examine(route)
        finally:
            self._looking = False
            if self._resting:  # what this check has opened after the engines were disposed of
                for engine in self.engines():
                    engine.dispose()

    def _examine(self, route: Route) -> None:
        """Check whether a replica answers, and its lag."""
        try:
            with _asked(route) as connection:
                text = self.ask(connection, positions.positions_of(route).replica)
                server = positions.server_of(connection)
                why = positions.unfit(connection)
        except Exception as error:  # whatever the error, the server cannot be read from
            self._postpone(route)
            self.failed(route, error)
            return
        self.note_position(route, server, text)
        if why:
            self._postpone(route)
            self.leave(route, why)
            return
        parted = self._why_parted(route)
        if parted and (self.watches or parted is not positions.OTHER_SYSTEM):
            route.lag = None
            self._postpone(route)
            self.leave(route, parted)
            return
        route.lag = None if parted else self._lag_of(route)
        most = self.settings.replica_max_lag
        if most is not None and route.lag is not None and route.lag > most:
            self.leave(route, f"it is {route.lag:.1f} s behind (replica_max_lag is {most:g} s)")
        elif route.out:
            self._take_back(route)

    def _why_parted(self, route: Route) -> str:
        if route.position is None or not self._samples:
            return ""
        return positions.positions_of(route).parted(route.position, self._samples[-1][1])

    def _postpone(self, route: Route) -> None:
        route.pause = min(route.pause * 2, LONGEST_PAUSE) if route.out else FIRST_PAUSE
        route.again = time.monotonic() + route.pause

    # Lag

    def note_position(self, route: Route, server: str | None, text: str) -> None:
        route.position = positions.positions_of(route).parse(text) if text else None
        route.servers.pop(server, None)
        route.servers[server] = route.position
        if len(route.servers) > MOST_SERVERS:  # for an address behind which servers come and go
            route.servers.pop(next(iter(route.servers)), None)

    def _sample_primary(self) -> None:
        try:
            with _asked(self.primary) as connection:
                known = positions.positions_of(self.primary)
                text = self.ask(connection, known.primary)
        except Exception as error:  # the primary's errors are raised to its own callers
            _log.debug("%s: the primary does not report its position: %s", self.label, error)
            return
        now = time.monotonic()
        if text:
            position = known.parse(text)
            if self._samples and known.parted(position, self._samples[-1][1]):
                self._samples.clear()  # they belong to the previous primary
            self._samples.append((now, position))
        while self._samples and now - self._samples[0][0] > KEPT + 4 * (self.settings.replica_max_lag or 0):
            self._samples.popleft()

    def _lag_of(self, route: Route) -> float | None:
        """Return for how long the primary had been ahead when it last answered.

        Not until now: the lag must not grow while the primary is down and not queried.

        Based on positions, not on the time of the last replayed commit, which grows on an idle primary, and stays
        unchanged if the stream is cut. And with one clock.
        """
        if route.position is None or not self._samples:
            return None
        covers = positions.positions_of(self.primary).covers
        missing = next((at for at, position in list(self._samples) if not covers(route.position, position)), None)
        return 0.0 if missing is None else self._samples[-1][0] - missing


@contextmanager
def _asked(route: Route) -> Iterator[Connection]:
    """Yield a connection for checking a server, which does not count as use of the database."""
    route.asked = True
    try:
        with route.open() as connection:
            yield connection
    finally:
        route.asked = False


def _leave_after_errors(route: Route) -> None:
    """Take a server out of rotation that answers but rejects queries: a Galera node without its cluster (1047)."""
    known = weakref.ref(route)

    def leave(context: ExceptionContext) -> None:
        found, error = known(), context.original_exception
        row = errors.of_statement(error, found.fleet.settings.backend) if found is not None else None
        if found is not None and context.connection is not None and row is not None and row.fate is Fate.ABSENT:
            found.fleet.failed(found, error)

    event.listen(route.engine_itself, "handle_error", leave)


def is_exhausted(error: BaseException) -> bool:
    """Return whether the pool was exhausted until `pool_timeout`, or a deadline expired: not a fault of the server.

    The caller's time is then used up: waiting for other servers' pools as well would multiply it.
    """
    if isinstance(error, DeadlineExceeded):
        return True
    return isinstance(error, exc.TimeoutError) and error.__cause__ is None
