"""When a connection is looked at, when it is asked, and what each answer means: step by step, without a server."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, exc
from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool import idle, lifetime, ping, task_places
from dbconfig.engine.pool.ping import PING_LEAST, PING_LIMIT, TRUST, Check
from dbconfig.engine.pool.record import REASON, Record
from dbconfig.engine.pool.sockets import Look, Verdict
from tests.engine.pool.support import FakeServer, fair_pool

REST = 1.0


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (ping, lifetime):
        monkeypatch.setattr(module, "monotonic", found)
    return found


class Scripted:
    """A database of which the test says what a look shows, and how it answers."""

    is_async = False
    name = "scripted"
    loaded_dbapi = sqlite3

    def __init__(self) -> None:
        self.seen: Verdict | None = Verdict.ALIVE  # None: there is no socket to look at
        self.answer: bool | BaseException = True
        self.in_time = True
        self.looks = 0
        self.limits: list[float] = []

    def at(self, dialect: object, connection: object) -> Any:
        return None if self.seen is None else self

    def verdict(self) -> Verdict:
        self.looks += 1
        assert self.seen is not None
        return self.seen

    def _do_ping_w_event(self, connection: object) -> bool:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def call(self, fd: int | None, limit: float, function: Any, *arguments: Any) -> tuple[Any, bool]:
        self.limits.append(limit)
        return self._do_ping_w_event(*arguments), self.in_time


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    found = Scripted()
    monkeypatch.setattr(Look, "at", found.at)
    monkeypatch.setattr(ping, "watch", found)
    monkeypatch.setattr(ping, "descriptor", lambda dialect, connection: 0)
    return found


@pytest.mark.parametrize(
    ("left", "limit"), [(30.0, PING_LIMIT), (PING_LIMIT, PING_LIMIT), (0.5, 0.5), (0.0, 0.05), (-1.0, PING_LEAST)]
)
def test_a_ping_has_as_long_as_its_caller_and_never_longer_than_two_seconds(
    database: Scripted, left: float, limit: float
) -> None:
    assert ping.ping(database, None, None, left) is Verdict.ALIVE  # type: ignore[arg-type]  # all that it asks of one
    assert database.limits == [limit]


@pytest.mark.parametrize("answer", [False, sqlite3.OperationalError("gone"), ConnectionResetError(), EOFError()])
def test_what_is_no_answer_is_silence(database: Scripted, answer: Any) -> None:
    database.answer = answer
    assert ping.ping(database, None, None, 1) is Verdict.SILENT  # type: ignore[arg-type]  # as above


def test_an_answer_that_came_too_late_is_silence(database: Scripted) -> None:
    database.in_time = False
    assert ping.ping(database, None, None, 1) is Verdict.SILENT  # type: ignore[arg-type]  # as above


def test_an_error_that_is_not_the_drivers_is_for_the_caller(database: Scripted) -> None:
    database.answer = RuntimeError("of a signal handler")
    with pytest.raises(RuntimeError, match="signal"):
        ping.ping(database, None, None, 1)  # type: ignore[arg-type]  # as above
    database.is_async = True  # where drivers let through what their transports raise
    assert ping.ping(database, None, None, 1) is Verdict.SILENT  # type: ignore[arg-type]  # as above
    database.answer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ping.ping(database, None, None, 1)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(("rest", "trust"), [(REST, TRUST), (0.001, 0.001), (0.0, 0.0)])
def test_a_connection_is_trusted_for_a_moment_after_its_return(rest: float, trust: float) -> None:
    assert Check(rest).trust == trust


# Our own pool's


@pytest.fixture
def record(clock: Clock) -> Iterator[Record]:
    pool = fair_pool(FakeServer())
    fairy: Any = pool.connect()
    yield fairy._connection_record
    fairy.close()
    pool.dispose()


def of_record(record: Record, database: Scripted, clock: Clock, left: float = 30.0) -> Verdict:
    now = clock()
    return Check(REST).of_record(database, record, now, now + left)  # type: ignore[arg-type]  # as above


def test_a_rested_connection_is_asked_and_one_that_was_asked_has_not_rested(
    record: Record, database: Scripted, clock: Clock
) -> None:
    record.place.returned_at = record.checked_at = clock()
    clock.advance(REST - 0.001)
    assert of_record(record, database, clock) is Verdict.ALIVE
    assert (database.looks, database.limits) == (1, [])
    clock.advance(0.001)
    assert of_record(record, database, clock, left=1.5) is Verdict.ALIVE
    assert database.limits == [1.5]
    assert record.checked_at == clock()
    clock.advance(REST / 2)
    assert of_record(record, database, clock) is Verdict.ALIVE
    assert database.limits == [1.5]
    record.checked_at, record.place.returned_at = 0.0, clock()  # and one that was in use neither
    assert of_record(record, database, clock) is Verdict.ALIVE
    assert database.limits == [1.5]


@pytest.mark.parametrize("seen", [Verdict.ASK, None])
def test_where_a_look_says_nothing_the_server_is_asked(
    record: Record, database: Scripted, clock: Clock, seen: Verdict | None
) -> None:
    record.place.returned_at = record.checked_at = clock()
    database.seen = seen
    assert of_record(record, database, clock) is Verdict.ALIVE
    database.answer = False
    assert of_record(record, database, clock) is Verdict.SILENT
    assert len(database.limits) == 2


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_connection_that_is_kept_alive_has_as_long_to_answer_as_any(
    kind: str, database: Scripted, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    database.seen = Verdict.ASK
    driven = {"driver_connection": None, "dbapi_connection": None, "transport": None}
    place: Any = SimpleNamespace(connection=SimpleNamespace(look=None, returned_at=0.0, checked_at=0.0, **driven))
    pool: Any = SimpleNamespace(_dialect=database, _check=Check(REST), _run=lambda: None)
    if kind == "threads":
        pool.asked, pool.tell = None, lambda event, place, verdict: told.append(verdict is Verdict.ALIVE)
        idle.ask(pool, place)
    else:
        monkeypatch.setattr(task_places, "monotonic", clock)
        pool._begins = lambda place, state: True
        pool._ask_or_look = lambda *given: task_places.TaskPlaces._ask_or_look(pool, *given)
        pool.line = SimpleNamespace(checked=lambda place, alive, now: told.append(alive))
        asyncio.run(task_places.TaskPlaces._ping(pool, place))
    assert told == [True]
    assert database.limits == [PING_LIMIT]


def test_a_dead_connection_is_not_asked(record: Record, database: Scripted, clock: Clock) -> None:
    record.place.returned_at = record.checked_at = clock()
    database.seen = Verdict.DEAD
    clock.advance(2 * REST)
    assert of_record(record, database, clock) is Verdict.DEAD
    assert database.limits == []


# SQLAlchemy's own pools


@pytest.fixture
def stock() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=QueuePool)
    yield engine
    engine.dispose()


class Connection:
    """A connection of such a pool, as its listeners are told of it."""

    def __init__(self, engine: Engine) -> None:
        self._dispatch = engine.pool.dispatch
        self.info: dict[str, Any] = {}
        self.invalidated = 0
        self.driver_connection = object()

    def invalidate(self) -> None:
        self.invalidated += 1

    def connect(self) -> None:
        with closing(sqlite3.connect(":memory:")) as connection:
            self._dispatch.connect(connection, self)  # type: ignore[attr-defined]  # SQLAlchemy makes it of the events

    def take(self) -> None:
        self._dispatch.checkout(object(), self, object())  # type: ignore[attr-defined]  # as above

    def give_back(self, connection: object | None = True) -> None:
        self._dispatch.checkin(connection, self)  # type: ignore[attr-defined]  # as above


@pytest.fixture
def checked(stock: Engine, database: Scripted, clock: Clock) -> Connection:
    ping.attach(stock, Check(REST), 1.5)
    return Connection(stock)


def test_a_connection_of_a_stock_pool_that_was_never_returned_has_not_rested(
    checked: Connection, database: Scripted
) -> None:
    checked.take()
    assert (database.looks, database.limits) == (0, [])


@pytest.mark.parametrize(
    ("rested", "looks", "limits"),
    [(TRUST - 0.001, 0, []), (TRUST, 1, []), (REST - 0.001, 1, []), (REST, 1, [1.5]), (100 * REST, 1, [1.5])],
)
def test_a_connection_of_a_stock_pool_is_looked_at_and_asked_when_it_has_rested(
    checked: Connection, database: Scripted, clock: Clock, rested: float, looks: int, limits: list[float]
) -> None:
    checked.give_back()
    clock.advance(rested + 1e-9)
    checked.take()
    assert (database.looks, database.limits) == (looks, limits)
    assert REASON not in checked.info


def test_a_stock_pool_looks_at_each_connection_by_what_it_has_found_before(
    checked: Connection, database: Scripted, clock: Clock
) -> None:
    checked.give_back()
    clock.advance(REST / 2)
    checked.take()
    database.at = None  # type: ignore[method-assign]  # who looks for the socket again, fails
    checked.take()
    assert database.looks == 2


@pytest.mark.parametrize(
    ("seen", "answer", "error"),
    [
        (Verdict.DEAD, True, exc.DisconnectionError),
        (Verdict.ASK, False, exc.InvalidatePoolError),
        (None, sqlite3.OperationalError("gone"), exc.InvalidatePoolError),
        (Verdict.ASK, True, None),
        (None, True, None),
    ],
)
def test_a_connection_of_a_stock_pool_that_is_unfit_is_replaced_and_if_it_is_silent_all_are(
    checked: Connection, database: Scripted, clock: Clock, seen: Verdict | None, answer: Any, error: Any
) -> None:
    database.seen, database.answer = seen, answer
    checked.give_back()
    clock.advance(REST / 2)
    if error is None:
        checked.take()
    else:
        with pytest.raises(exc.DisconnectionError) as caught:
            checked.take()
        assert type(caught.value) is error
    assert checked.info.get(REASON) == (None if error is None else "ping")


# The end of a connection's life


@pytest.fixture
def mortal(stock: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(lifetime, "expiry", lambda seconds: clock() + seconds)
    lifetime.attach(stock, 60.0)
    return Connection(stock)


@pytest.mark.parametrize(("age", "over"), [(59.9, False), (60.0, True), (61.0, True)])
def test_a_connection_of_a_stock_pool_ends_when_its_time_is_over(
    mortal: Connection, clock: Clock, age: float, over: bool
) -> None:
    mortal.take()  # of one that was connected before anybody looked after that, nothing is known
    mortal.give_back()
    mortal.connect()
    clock.advance(age)
    if over:
        with pytest.raises(exc.DisconnectionError):
            mortal.take()
        assert mortal.info.pop(REASON) == "recycled"
    else:
        mortal.take()
    mortal.give_back(None)  # it was invalidated meanwhile, and there is nothing to close
    assert mortal.invalidated == 0
    mortal.give_back()
    assert mortal.invalidated == over
    assert mortal.info.get(REASON) == ("recycled" if over else None)
