"""What happens to a connection that comes back, and what is reported of those that do not: rule by rule, no server."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, exc
from sqlalchemy.pool import QueuePool

from dbconfig import Profile, Registry
from dbconfig.engine.pool import (
    driver,
    garbage,
    idle,
    interrupted,
    ledger,
    ping,
    sockets,
    statement_limit,
    stats,
    threads,
    timeout_errors,
)
from dbconfig.engine.pool.deadline import DeadlineExceeded
from dbconfig.engine.pool.diagnostics import leaks
from dbconfig.engine.pool.diagnostics.leaks import Hold, LeaksByEvents, LeaksOfLine, current_task
from dbconfig.engine.pool.diagnostics.stats import Histogram, PoolStats
from dbconfig.engine.pool.diagnostics.timeout_report import explainer
from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.maintenance import caretaker
from dbconfig.engine.pool.mending import mend
from dbconfig.engine.pool.ping import Check
from dbconfig.engine.pool.place import Caller, Close, Rules, State
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import Counters
from tests.engine.pool.support import JUDGE, FakeServer, LineOptions, fair_pool, running_engine

# Returned connections


class Moment:
    """A clock that stands still."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    found = Moment()
    monkeypatch.setattr(threads, "monotonic", found)
    return found


def taken(pool: Any) -> Any:
    record = pool._do_get()
    record.expires = 1000.0
    return record


@pytest.mark.parametrize(("now", "reason"), [(999.9, None), (1000.0, "recycled"), (1000.1, "recycled")])
def test_a_connection_is_recycled_from_its_last_moment_on(moment: Moment, now: float, reason: str | None) -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0)
    record = taken(pool)
    moment.now = now
    pool._do_return_conn(record)
    assert record.reason == reason
    assert len(pool.idle) == (reason is None)
    assert pool.open == (reason is None)


@pytest.mark.parametrize("stays", [True, False])
def test_a_connection_that_was_invalidated_in_use_is_closed(stays: bool) -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0)
    record = pool._do_get()
    if not stays:
        record.invalidate(soft=True)
        assert record.dbapi_connection is not None
    pool._do_return_conn(record)
    assert record.reason == (None if stays else "invalidated")
    assert len(pool.idle) == pool.open == stays


def test_what_is_checked_out_is_what_is_neither_idle_nor_free() -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=2)
    one, other = pool.connect(), pool.connect()
    assert (pool.checkedout(), pool.checkedin(), pool.overflow()) == (2, 0, 1)
    one.close()
    assert (pool.checkedout(), pool.checkedin(), pool.overflow()) == (1, 1, 1)
    other.close()


def test_a_caller_that_is_struck_while_it_waits_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0)
    held = pool.connect()

    def strike(waiter: Any, gate: Any) -> None:
        assert waiter in pool.waiters
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_wait", strike)
    with pytest.raises(KeyboardInterrupt):
        pool.connect()
    assert not pool.waiters
    held.close()
    assert len(pool.idle) == 1


def test_callers_that_are_turned_away_share_an_explanation() -> None:
    pool = fair_pool(FakeServer(), line=LineOptions(judge=JUDGE, max_waiting=0), pool_size=1, max_overflow=0)
    asked: list[str] = []
    pool.explain = lambda slug: asked.append(slug) or ["why"]  # type: ignore[func-returns-value]  # it is None
    held = pool.connect()
    for _ in range(3):
        with pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        assert caught.value.__notes__ == ["the queue is full: 0 waiting (pool_max_waiting is 0)", "why"]
    assert asked == ["pool-timeout"]  # it is composed once a second
    held.close()


def test_who_holds_the_connections_is_looked_up_again_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the errors of an overload would go on naming those who have long returned theirs."""
    now, holders = [50.0], ["the first report", "the second report"]
    monkeypatch.setattr(timeout_errors, "monotonic", lambda: now[0])
    pool = fair_pool(FakeServer(), line=LineOptions(judge=JUDGE, max_waiting=0), pool_size=1, max_overflow=0)
    pool.explain = lambda slug: [f"held longest: {holders.pop(0)}"]
    for seconds, named in ((0.0, "first"), (0.99, "first"), (1.0, "second")):
        now[0] = 50.0 + seconds
        assert f"held longest: the {named} report" in str(timeout_errors.refused(pool))


def test_a_server_that_is_silent_is_at_fault_and_not_the_pool() -> None:
    pool: Any = SimpleNamespace(server="shop at db:5432", timeout=lambda: 3.0)
    error = timeout_errors.silent(pool, 2.5)
    assert timeout_errors.is_silent(error)
    assert not timeout_errors.is_silent(exc.TimeoutError())
    assert str(error.__cause__) == "no answer for 2.5 s"
    (note,) = error.__notes__
    assert note.startswith("dbconfig[timed-out]: the pool is not exhausted")


# Idle connections


@pytest.mark.parametrize(
    ("seen", "answer", "asked", "left"),
    [
        (Verdict.DEAD, None, False, 1),
        (Verdict.ALIVE, Verdict.ALIVE, True, 2),
        (Verdict.ASK, Verdict.ALIVE, True, 2),
        (None, Verdict.ALIVE, True, 2),
        (Verdict.ALIVE, Verdict.SILENT, True, 0),  # the others are as old
    ],
)
def test_a_quiet_connection_is_asked_unless_its_socket_is_closed(
    seen: Verdict | None,
    answer: Verdict | None,
    asked: bool,
    left: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dbconfig.pool.line")
    pool = fair_pool(FakeServer(), line=LineOptions(judge=JUDGE, keepalive=60.0), pool_size=2, max_overflow=0)
    one, other = pool.connect(), pool.connect()
    quiet = one._connection_record
    one.close()
    other.close()
    place = quiet.place
    place.returned_at = place.checked_at = place.returned_at - 1000
    look = None if seen is None else SimpleNamespace(verdict=lambda: seen)
    asks: list[Any] = []
    monkeypatch.setattr(idle.Look, "at", lambda dialect, connection: look)
    monkeypatch.setattr(idle, "ping", lambda *given: asks.append(given) or answer)
    idle.Care(pool)()
    assert bool(asks) is asked
    died = f"{pool.options.name}: an idle connection died; replacing it"
    assert [each for each in caplog.messages if "idle" in each] == ([died] if left < 2 else [])
    assert len(pool.idle) == pool.open == left
    assert (place in pool.idle) is (left == 2)


@pytest.mark.parametrize("rested", [0.5, 1.0, 2.0])
def test_a_ping_at_checkout_has_what_is_left_until_the_deadline(rested: float, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(ping, "monotonic", lambda: 50.0)
    monkeypatch.setattr(ping, "ping", lambda *given: limits.append(given[-1]) or Verdict.ALIVE)
    look = SimpleNamespace(verdict=lambda: Verdict.ALIVE)
    record: Any = SimpleNamespace(look=look, returned_at=48.0, checked_at=49.0 - rested + 1, dbapi_connection=None)
    record.driver_connection = None
    assert Check(1.0).of_record(None, record, 50.0, 53.0) is Verdict.ALIVE  # type: ignore[arg-type]  # none is asked
    assert limits == ([3.0] if rested >= 1.0 else [])


def test_a_connection_of_another_pool_without_a_socket_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asks = create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=QueuePool), []
    monkeypatch.setattr(ping.Look, "at", lambda dialect, connection: None)
    monkeypatch.setattr(ping, "ping", lambda *given: asks.append(given[-1]) or Verdict.ALIVE)
    ping.attach(engine, Check(0.0), 7.0)
    for _ in range(2):
        engine.connect().close()
    assert asks[-1:] == [7.0]
    engine.dispose()


def test_a_connection_over_tcp_ends_when_its_peer_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as plug:
        monkeypatch.setattr(sockets, "descriptor", lambda dialect, connection: plug.fileno())
        sockets.set_time_limits(None, None)
        assert plug.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, value in (("TCP_KEEPIDLE", sockets.KEEPALIVE_IDLE), ("TCP_KEEPINTVL", sockets.KEEPALIVE_INTERVAL)):
            if hasattr(socket, option):
                assert plug.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)) == value
                plug.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value + 3)
        sockets.set_time_limits(None, None)
        if hasattr(socket, "TCP_KEEPIDLE"):  # what the driver or the URL has set stays
            assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == sockets.KEEPALIVE_IDLE + 3


# Calls that are watched


def test_each_call_of_a_server_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(statement_limit, "descriptor", lambda dialect, connection: connection)

    def call(fd: Any, limit: float, work: Any, *given: Any) -> Any:
        calls.append((fd, limit))
        return work(*given), True

    monkeypatch.setattr(statement_limit.watch, "call", call)
    monkeypatch.setattr(statement_limit, "Canceller", lambda engine: SimpleNamespace(abandon=None))
    for is_async in (False, True):
        dialect: Any = SimpleNamespace(name="postgresql", is_async=is_async, get_driver_connection=lambda each: "raw")
        for name in ("do_execute", "do_execute_no_params", "do_executemany", "do_commit", "do_rollback"):
            setattr(dialect, name, lambda *given, name=name: name)
        statement_limit.attach(SimpleNamespace(dialect=dialect), 10.0)  # type: ignore[arg-type]  # all that it asks
        cursor = SimpleNamespace(connection="sync", _connection="async")
        for name in ("do_execute", "do_execute_no_params", "do_executemany"):
            assert getattr(dialect, name)(cursor) == name
            assert calls.pop() == ("async" if is_async else "sync", 10.0 + statement_limit.GRACE)
        for name in ("do_commit", "do_rollback"):
            assert getattr(dialect, name)(object()) == name
            assert calls.pop() == ("raw", 10.0 + statement_limit.GRACE)


@pytest.mark.parametrize(("seconds", "asked"), [(15.0, True), (14.9, False)])
def test_what_has_outlasted_the_limit_of_the_client_is_ended_on_the_server(
    monkeypatch: pytest.MonkeyPatch, seconds: float, asked: bool
) -> None:
    now, found = [100.0], list[str]()

    def execute(*given: Any) -> None:
        now[0] += seconds
        raise OSError("the socket was shut")

    monkeypatch.setattr(statement_limit, "descriptor", lambda dialect, connection: None)
    monkeypatch.setattr(statement_limit, "monotonic", lambda: now[0])
    monkeypatch.setattr(statement_limit, "Canceller", lambda engine: SimpleNamespace(abandon=found.append))
    names = ("do_execute", "do_execute_no_params", "do_executemany", "do_commit", "do_rollback")
    dialect: Any = SimpleNamespace(name="mysql", is_async=False, get_driver_connection=lambda each: each)
    vars(dialect).update(dict.fromkeys(names, execute))
    statement_limit.attach(SimpleNamespace(dialect=dialect), 10.0)  # type: ignore[arg-type]  # all that it asks
    with pytest.raises(OSError, match="the socket was shut") as caught:
        dialect.do_execute(SimpleNamespace(connection="own"), "UPDATE")
    assert statement_limit.is_late(caught.value) is (seconds >= 15.0)
    assert found == (["own"] if asked else [])
    with pytest.raises(OSError, match="the socket was shut"):
        dialect.do_commit("own")  # its outcome is unknown as it is
    assert len(found) == asked


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Any:
    engine, found = create_engine("sqlite://"), []
    monkeypatch.setattr(interrupted.event, "listen", lambda engine, name, handler: found.append(handler))
    interrupted.attach(engine)
    return found[0]


@pytest.mark.parametrize(
    ("whole", "connected", "ends"), [(True, True, False), (False, True, True), (False, False, False)]
)
def test_a_deadline_ends_only_a_connection_on_which_something_is_under_way(
    handle: Any, whole: bool, connected: bool, ends: bool
) -> None:
    error = DeadlineExceeded("too late")
    error.connection_is_whole = whole
    context = SimpleNamespace(
        original_exception=error,
        connection=object() if connected else None,
        is_disconnect=True,
        invalidate_pool_on_disconnect=True,
    )
    handle(context)
    assert (context.is_disconnect, context.invalidate_pool_on_disconnect) == (ends, False)


def test_an_error_out_of_a_signal_handler_ends_its_connection_and_no_other(handle: Any) -> None:
    class Struck(Exception):
        pass

    for error, ends in ((Struck(), True), (ValueError(), False)):
        connection = SimpleNamespace(invalidated=True)
        context = SimpleNamespace(
            original_exception=error,
            connection=connection,
            statement=None,
            execution_context=None,
            is_disconnect=False,
            invalidate_pool_on_disconnect=True,
        )
        handle(context)
        assert (context.is_disconnect, context.invalidate_pool_on_disconnect) == (ends, not ends)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("waits", [True, False])
def test_a_connection_whose_answer_was_not_read_is_closed_after_whatever_error(
    waits: bool, asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler may raise a ValueError, too, and a driver in C has no frame that shows where it was struck."""

    def strike(*given: Any) -> None:
        raise ValueError("the handler's")

    def strikes(engine: Engine) -> None:
        own = type(driver.of(engine.dialect))
        monkeypatch.setattr(own, "awaits_answer", lambda self, connection: waits)
        event.listen(engine, "do_execute", strike)

    async def main(db: Registry) -> bool:
        engine = db.async_engine()
        async with engine.connect() as connection:
            strikes(engine.sync_engine)
            with pytest.raises(ValueError, match="the handler's"):
                await connection.exec_driver_sql("SELECT 1")
            return connection.invalidated

    with Registry.from_profile(Profile(name="shop", url=f"sqlite:///{tmp_path}/a.db")) as db:
        if asynchronous:
            pytest.importorskip("aiosqlite")
            with asyncio.Runner() as runner:
                closed = runner.run(main(db))
                runner.run(db.async_dispose())
        else:
            with db.engine().connect() as connection:
                strikes(db.engine())
                with pytest.raises(ValueError, match="the handler's"):
                    connection.exec_driver_sql("SELECT 1")
                closed = connection.invalidated
        assert closed is waits


@pytest.mark.parametrize(
    ("left", "collects"), [(garbage.WORTH_IT, True), (garbage.WORTH_IT - 0.01, False), (0.5, True), (1.0, True)]
)
def test_garbage_is_collected_for_a_caller_with_time_left(
    left: float, collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[float] = []
    now = Moment()
    monkeypatch.setattr(garbage, "monotonic", now)
    monkeypatch.setattr(garbage.gc, "collect", lambda: collected.append(now()))
    ours = garbage.Garbage()
    ours.collect(left)
    assert collected == [100.0] * collects
    if collects:
        now.now += garbage.PAUSE - 0.01
        ours.collect(left)
        now.now += 0.01
        ours.collect(left)
        assert collected == [100.0, 100.0 + garbage.PAUSE]


# Interrupted events


def test_who_no_longer_waits_is_not_served_after_an_interrupt() -> None:
    line = Line(Rules(limit=1), Counters())
    gone, waits = Caller(30.0, 0.0), Caller(30.0, 1.0)
    for caller in (gone, waits):
        line.ask(caller, 1.0)
    mend(line, [waits], lambda place: True, 2.0)
    assert list(line.callers) == [waits]


@pytest.mark.parametrize("what", ["condemned", "an older generation", ""])
def test_what_was_to_be_closed_at_an_interrupt_is_not_handed_out(what: str) -> None:
    line = Line(Rules(limit=2), Counters())
    for now in (0.0, 1.0):
        line.ask(Caller(30.0, now), now)
        line.connected(next(iter(line.connects)), now)
    places = list(line.places)
    for place in places:
        line.give_back(place, 3.0)
    places[0].condemned = what == "condemned"
    line.generation += what == "an older generation"
    mend(line, [], lambda place: True, 4.0)
    closed = {"condemned": places[:1], "an older generation": places, "": []}[what]
    assert [command for command in line.commands if isinstance(command, Close)] == [
        Close(place, "invalidated") for place in closed
    ]
    assert list(line.idle) == [place for place in places if place not in closed]


def test_what_is_returned_in_the_middle_of_an_event_is_returned_at_its_end() -> None:
    """The garbage collector runs the finalizer of a connection in whatever its thread does."""
    pool = fair_pool(FakeServer(), pool_size=2, max_overflow=0)
    connection = pool.connect()
    place = connection._connection_record.place

    def event() -> None:
        connection.close()
        assert place.state is State.LENT

    pool.tell(event)
    assert place.state is State.IDLE
    assert list(pool.idle) == [place]
    pool.dispose()


# Reports


@pytest.fixture
def of_line() -> LeaksOfLine:
    found = LeaksOfLine("shop", 5.0, lambda place, *, idle: None, lambda record: False, list)
    found._watching = True  # no job is needed
    return found


def test_a_loan_knows_its_task(of_line: LeaksOfLine) -> None:
    record: Any = SimpleNamespace()
    of_line.taken(record)
    assert record.task is None
    assert current_task() is None

    async def main() -> None:
        of_line.taken(record)
        assert record.task() is asyncio.current_task() is current_task()

    asyncio.run(main())


def test_a_forgotten_connection_is_reported_with_how_long_it_was_held(
    of_line: LeaksOfLine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "monotonic", lambda: 107.5)
    hold = Hold((), 100.0, "MainThread", None)
    of_line._was_forgotten(hold)
    of_line._came_back(hold)
    assert [record.getMessage().partition(" after ")[2][:5] for record in caplog.records] == ["7.5 s", "7.5 s"]
    assert [record.seconds for record in caplog.records] == [7.5, 7.5]  # type: ignore[attr-defined]  # ours


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(("held", "told"), [(4.9, []), (5.0, ["held for 5.0 s"])])
def test_a_connection_is_reported_in_the_moment_when_its_time_is_over(
    ours: bool, held: float, told: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a round later, which for the usual limit of 30 s is two seconds."""
    moment = Moment()
    monkeypatch.setattr(leaks, "monotonic", moment)
    record: Any = SimpleNamespace(hold=None, lent_at=moment.now, taken_at=[], task=None, thread=threading.get_ident())
    found: LeaksOfLine | LeaksByEvents
    if ours:
        found = LeaksOfLine("shop", 5.0, lambda place, *, idle: None, lambda record: False, lambda: [record])
    else:
        found = LeaksByEvents("shop", 5.0, lambda place, *, idle: None, lambda record: False, list, awaits=False)
        found._watching = True  # no job is needed
        found.taken(None, record, None)
    moment.now += held
    assert found._report() is not None
    assert re.findall(r"held for [\d.]+ s", caplog.text) == told
    found._report()
    assert re.findall(r"held for [\d.]+ s", caplog.text) == told, "it is reported once"


def test_leaks_of_other_pools_are_found_by_their_events(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=QueuePool)
    driver = SimpleNamespace(in_transaction=lambda connection: False)
    ledger: Any = SimpleNamespace(count_leak=lambda place, *, idle: None, holders=list, records=list)
    found = leaks.attach(engine, "shop", 5.0, ledger, driver)  # type: ignore[arg-type]  # all that it asks of one
    assert isinstance(found, LeaksByEvents)
    assert (found._watching, found._quiet, found._any_held()) == (False, 0, False)
    for name, listener in (
        ("checkout", found.taken),
        ("checkin", found.returned),
        ("reset", found.reset),
        ("detach", found.returned),
    ):
        assert event.contains(engine, name, listener)
    with engine.connect():
        assert found._any_held() is True
    assert found._any_held() is False
    found.rest()
    assert not found._watching
    engine.dispose()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_reports_pause_when_their_pool_is_disposed_of_unless_one_is_in_use(tmp_path: Path, asynchronous: bool) -> None:
    profile = Profile(name="shop", url=f"sqlite:///{tmp_path}/a.db", pool_leak_warning=600.0)  # type: ignore[arg-type]  # seconds

    def pauses(pool: Any) -> bool:
        reports = pool.at_dispose.__self__
        assert reports._watching is (id(reports) in caretaker._jobs)
        return not reports._watching

    async def main() -> None:
        engine = db.async_engine()
        async with engine.connect():
            pool = engine.sync_engine.pool
            pool.dispose()
            assert not pauses(pool)
        pool.dispose()
        assert pauses(pool)
        await db.async_dispose()

    with Registry.from_profile(profile) as db:
        if asynchronous:
            asyncio.run(main())
            return
        with db.engine().connect():
            pool = db.engine().pool
            pool.dispose()
            assert not pauses(pool)
        pool.dispose()
        assert pauses(pool)


def use_three_times(
    profile: Profile,
    asynchronous: bool,
    *,
    during: Callable[[], object] = lambda: None,
    between: Callable[[], object] = lambda: None,
) -> PoolStats:
    """Take a connection and return it, three times; return what is counted then."""

    async def main(db: Registry) -> PoolStats:
        for _ in range(3):
            async with db.async_engine().connect():
                during()
            between()
        found = stats(db.async_engine().sync_engine)
        await db.async_dispose()
        return found

    with Registry.from_profile(profile) as db:
        if asynchronous:
            pytest.importorskip("aiosqlite")
            return asyncio.run(main(db))
        for _ in range(3):
            with db.engine().connect():
                during()
            between()
        return stats(db.engine())


class Keeper:
    """The caretaker of the process, whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], float | None]] = []

    def add(self, key: object, job: Callable[[], float | None], delay: float = 0.0) -> None:
        self.jobs.append(job)

    def remove(self, key: object) -> None:
        self.jobs.clear()

    def go_round_until_nothing_is_left(self) -> None:
        for _ in range(leaks.QUIET_ROUNDS):
            self.jobs = [job for job in self.jobs if job() is not None]


@pytest.mark.parametrize("poolclass", [None, "QueuePool"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_next_checkout_resumes_reports_that_have_paused(
    asynchronous: bool, poolclass: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a pool that was quiet for some seconds would never report a leak again."""
    keeper, kept = Keeper(), {} if poolclass is None else {"poolclass": poolclass}
    monkeypatch.setattr(leaks, "caretaker", keeper)
    profile = Profile(name="shop", url=f"sqlite:///{tmp_path}/a.db", pool_leak_warning=600.0, **kept)  # type: ignore[arg-type]  # of some keys

    def between() -> None:
        keeper.go_round_until_nothing_is_left()
        assert keeper.jobs == []

    def during() -> None:
        assert len(keeper.jobs) == 1

    use_three_times(profile, asynchronous, during=during, between=between)


def test_only_a_return_that_was_waited_for_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    found = LeaksByEvents("shop", 5.0, lambda place, *, idle: None, lambda record: False, list, awaits=False)
    found._watching = True  # no job is needed
    reported, quick, unknown = (SimpleNamespace() for _ in range(3))
    for record in (reported, quick):
        found.taken(None, record, None)
    found._holds[id(reported)].reported = True
    for record in (reported, quick, unknown):  # the last one was taken before anybody looked
        found.returned(None, record)
    (told,) = caplog.records
    assert "was returned after" in told.getMessage()
    assert not found._any_held()


@pytest.mark.parametrize("reported", [False, True])
def test_what_the_collector_returns_to_another_pool_is_reported_and_counted_once(
    tmp_path: Path, reported: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=QueuePool)
    counted: list[tuple[str | None, bool]] = []
    count = lambda place, *, idle: counted.append((place, idle))  # noqa: E731  # of one line
    found = LeaksByEvents("shop", 5.0, count, lambda record: False, list, awaits=False)
    found._watching = True  # no job is needed
    forgotten = [engine.raw_connection()]  # taken before anybody looked
    event.listen(engine, "checkout", found.taken)
    event.listen(engine, "reset", found.reset)
    forgotten.clear()
    gc.collect()
    with engine.connect():
        pass  # comes back from who has it
    assert caplog.records == []

    def forgetful() -> None:
        connection = engine.raw_connection()
        (hold,) = found._holds.values()
        hold.reported = reported
        del connection

    forgetful()
    gc.collect()
    (told,) = caplog.records
    assert "a connection was never closed; the garbage collector reclaimed it after" in told.getMessage()
    assert re.search(r"test_returns_and_reports\.py:\d+ in \S*forgetful ", told.getMessage())
    assert [(bool(place and "forgetful" in place), idle) for place, idle in counted] == [(True, False)] * (not reported)
    assert not found._any_held()
    engine.dispose()


@pytest.fixture(params=[None, "QueuePool"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine with our pool, and one with SQLAlchemy's."""
    with running_engine(f"sqlite:///{tmp_path}/a.db", poolclass=request.param) as made:
        yield made


@pytest.mark.parametrize("poolclass", [None, "QueuePool"])
def test_who_holds_a_connection_of_an_asynchronous_engine_is_its_task(tmp_path: Path, poolclass: str | None) -> None:
    url, kept = f"sqlite:///{tmp_path}/a.db", {} if poolclass is None else {"poolclass": poolclass}

    async def main() -> None:
        with Registry.from_profile(Profile(name="shop", url=url, **kept)) as db:  # type: ignore[arg-type]  # of one key
            engine = db.async_engine()
            async with engine.connect():
                (holder,) = ledger(engine.sync_engine).holders()
                assert (holder.task, holder.thread) == (asyncio.current_task(), threading.get_ident())
            await db.async_dispose()

    asyncio.run(main())


def forget(held: list[Any]) -> None:
    held.clear()
    gc.collect()


@pytest.mark.parametrize("poolclass", [None, "QueuePool"])
def test_what_the_collector_returns_to_an_asynchronous_engine_is_reported_and_counted(
    tmp_path: Path, poolclass: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    url, kept = f"sqlite:///{tmp_path}/a.db", {} if poolclass is None else {"poolclass": poolclass}

    async def main() -> None:
        with Registry.from_profile(Profile(name="shop", url=url, pool_leak_warning=60.0, **kept)) as db:  # type: ignore[arg-type]  # of one key
            engine = db.async_engine()
            held = [await engine.connect()]
            with pytest.warns(exc.SAWarning, match="garbage collector is trying to clean up"):
                forget(held)
            assert stats(engine.sync_engine).leaks == 1
            await db.async_dispose()

    asyncio.run(main())
    (told,) = [record.getMessage() for record in caplog.records if record.name == "dbconfig.pool.leaks"]
    assert "a connection was never closed; the garbage collector reclaimed it after" in told
    assert re.search(r"test_returns_and_reports\.py:\d+ in \S*main ", told)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_use_is_counted_where_nobody_waits_for_the_connection(asynchronous: bool, tmp_path: Path) -> None:
    profile = Profile(name="shop", url=f"sqlite:///{tmp_path}/a.db")
    assert use_three_times(profile, asynchronous).use.count == 3


def test_what_is_counted_of_an_engine(engine: Engine) -> None:
    connection = engine.raw_connection()
    connection.invalidate()
    connection.close()
    engine.raw_connection().close()
    found = stats(engine)
    assert dict(found.closed) == {"invalidated": 1}
    assert found.create.count == 2
    assert 0 <= found.create.sum < 60
    assert (found.unserved, found.server_full, found.leaks, found.failovers, found.uncertain_commits) == (0, 0, 0, 0, 0)


def test_a_pool_logs_what_sqlalchemys_logs(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with engine.connect() as connection:
        with caplog.at_level(logging.INFO, "sqlalchemy.pool"):
            engine.dispose()
        connection.invalidate()  # SQLAlchemy's own pool would leave it to the garbage collector
    assert [record.getMessage().partition(". ")[0] for record in caplog.records] == ["Pool disposed", "Pool recreating"]


def test_numbers_that_were_not_counted_are_zero() -> None:
    empty = Histogram()
    assert (len(empty.counts), empty.count, empty.sum) == (len(empty.bounds) + 1, 0, 0.0)
    names = ("unserved", "wanted", "server_full", "leaks", "failovers", "uncertain_commits", "reads", "min_idle")
    assert [getattr(PoolStats, name) for name in (*names, "number")] == [0] * 9


@pytest.mark.parametrize(
    ("slug", "help"),
    [
        (timeout_errors.OVERLOADED, "help: answer 503 and let clients retry later"),
        ("pool-timeout", "help: return connections sooner, or raise pool_size (here) or max_overflow (here)"),
    ],
)
def test_a_timeout_says_what_to_do(slug: str, help: str) -> None:
    now = SimpleNamespace(name="shop", used=2, size=2, max=3, idle=0, connecting=0, waiting=4)
    ledger: Any = SimpleNamespace(stats=lambda pool: now, holders=list)
    origins: Any = SimpleNamespace(origin=lambda key: "here")
    engines: list[Any] = [SimpleNamespace(pool=None)]
    notes = explainer(lambda: engines[0], ledger, origins, object())(slug)
    assert notes[0] == (
        f"dbconfig[{slug}]: shop: 2 in use of 2 + 1 (pool_size + max_overflow), 0 idle, 0 connecting, 4 waiting"
    )
    assert len(notes) == 2
    assert notes[1].startswith(help)
    engines[0] = None  # it was collected
    assert explainer(lambda: engines[0], ledger, origins, None)(slug) == []


def test_a_shut_down_ends_before_the_next_round() -> None:
    from dbconfig.engine.pool.call_watchdog import Watch

    watch, seen = Watch(), []
    watch._guards[threading.Lock()] = (0.0, lambda: seen.append("late"))  # type: ignore[index]  # the same kind of lock

    def rest(now: float) -> None:
        seen.append(len(watch._guards))
        watch._thread = None

    watch._rest = rest  # type: ignore[method-assign]  # ends the loop
    watch._run()
    assert seen == ["late", 0]  # or its caller would wait for one more round
