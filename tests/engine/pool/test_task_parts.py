"""What the pool of asyncio does with each command and each answer, without an engine, a driver, or a server."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig.engine import create
from dbconfig.engine.pool import cancelling, farewell, judgements, task_places, tasks
from dbconfig.engine.pool.both import LONGEST_WAIT
from dbconfig.engine.pool.place import Caller, Place, State, WakeAt
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import Counters
from dbconfig.engine.pool.task_lent import TaskLent
from dbconfig.engine.pool.task_record import is_held
from dbconfig.engine.pool.tasks import TaskPool
from dbconfig.engine.pool.threads import FairPool
from tests.registries import registry


class Pool(TaskPool):
    """A pool that was never set up, whose parts each test gives it; it keeps what it does."""

    def __init__(self, **parts: Any) -> None:
        self.told: list[Any] = []
        vars(self).update(parts)
        self.counters = Counters()
        self._asking = set()

    def _run(self) -> None:
        self.told.append("run")

    def __del__(self) -> None: ...


class Line(SimpleNamespace):
    """A queue that records its events."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **how: self.told.append((name, *given[:1], *how.values()))


@pytest.fixture(autouse=True)
def _moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_places, "monotonic", lambda: 9.0)
    monkeypatch.setattr(tasks, "monotonic", lambda: 9.0)


def place_of(**record: Any) -> Place:
    place = Place(1.0, 0)
    place.connection = SimpleNamespace(doubtful_at=5.0, **record)
    return place


@pytest.mark.parametrize(
    ("verdict", "alive", "others"),
    [(Verdict.ALIVE, True, []), (Verdict.DEAD, False, []), (Verdict.SILENT, False, [9.0])],
)
def test_a_ping_tells_the_queue_how_it_ended(
    verdict: Verdict, alive: bool, others: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dbconfig.pool.line")
    line, place = Line(), place_of()
    place.state = State.CHECKING
    options: Any = SimpleNamespace(name="shop")
    pool = Pool(line=line, options=options, _ask_or_look=lambda *given: verdict)
    asyncio.run(pool._ping(place))
    assert line.told == [("checked", place, alive, 9.0), *(("invalidate", when) for when in others)]
    assert pool.told == ["run"]
    assert caplog.messages == ([] if alive else ["shop: an idle connection died; replacing it"])
    place.state = State.IDLE  # it was reclaimed before the task began
    line.told.clear()
    asyncio.run(pool._ping(place))
    assert line.told == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_place_is_free_when_its_connection_is_closed(fails: bool) -> None:
    def close() -> None:
        if fails:
            raise OSError("away")

    line, place = Line(), place_of(close=close, dbapi_connection=None)
    place.state = State.CLOSING
    pool = Pool(line=line)
    if fails:
        with pytest.raises(OSError, match="away"):
            asyncio.run(pool._part(place))
    else:
        asyncio.run(pool._part(place))
    assert line.told == [("closed", place)]
    assert pool.told == ["run"]


# A review would find both out as well, half a second later and as long as somebody waits: tests with engines pass then.


def broken(error: BaseException) -> bool:
    raise LookupError("the judge's own")


@pytest.mark.parametrize(
    ("error", "judged", "transient"),
    [
        (OSError("away"), lambda error: True, True),
        (OSError("away"), lambda error: False, False),
        (OSError("away"), broken, True),
        (asyncio.CancelledError(), broken, True),  # the loop ends: nobody is asked
    ],
)
def test_a_connect_that_fails_is_reported_and_what_the_queue_decides_is_done(
    error: BaseException, judged: Any, transient: bool
) -> None:
    line, place = Line(), place_of()
    options: Any = SimpleNamespace(judge=SimpleNamespace(connects_again=judged))
    pool = Pool(line=line, options=options)
    with pytest.raises(LookupError) if judged is broken and isinstance(error, OSError) else nullcontext():
        asyncio.run(pool._connect_failed(place, error))
    assert line.told == [("connect_failed", place, transient, 9.0)]
    assert pool.told == ["run"]


@pytest.mark.parametrize(
    ("here", "over", "told"),
    [(True, False, ["run"]), (True, True, ["run"]), (False, True, ["run"]), (False, False, ["soon"])],
    ids=["in its thread", "after its loop", "after its loop, in another thread", "in another thread"],
)
def test_the_place_of_a_connection_that_was_forgotten_is_free_when_it_is_collected(
    here: bool, over: bool, told: list[str]
) -> None:
    later: list[Any] = []
    loop: Any = SimpleNamespace(is_closed=lambda: over, call_soon_threadsafe=lambda *given: later.append(given))
    line, place = Line(), place_of(dbapi_connection=None)
    place.connection.place = place
    pool = Pool(line=line, _loop=loop, thread=get_ident() + (not here))
    pool._do_return_conn(place.connection)
    assert [*pool.told, *("soon" for _ in later)] == told
    for work, *given in later:
        work(*given)
    assert line.told == [("lost", place)]
    assert pool.told == ["run"]


def test_a_connection_is_closed_where_its_loop_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    logger: Any = SimpleNamespace(debug=lambda *given: told.append(given))
    monkeypatch.setattr(farewell, "cut", lambda dialect, connection: told.append(("cut", connection)))
    loop: Any = SimpleNamespace(
        is_closed=lambda: False, call_soon_threadsafe=lambda work, *given: told.append(("soon", *given))
    )
    pool = Pool(logger=logger, _loop=loop, thread=0, _dialect="dialect", _abruptly=False)
    monkeypatch.setattr("sqlalchemy.util.concurrency.in_greenlet", lambda: False, raising=False)  # of 2.0.58 on
    pool._close_connection("one", terminate=True)
    assert told == [("%s connection %r", "Hard-closing", "one"), ("soon", "dialect", "one")]
    told.clear()
    loop.is_closed = lambda: True
    pool._close_connection("two")
    assert told == [("%s connection %r", "Closing", "two"), ("cut", "two")]
    told.clear()
    loop.is_closed = lambda: False
    pool.cut("three")
    assert told == [("soon", "dialect", "three")]
    for over in (SimpleNamespace(is_closed=lambda: True), None):  # after its loop, and before it has one
        told.clear()
        pool._loop = over
        pool.cut("four")
        pool._close_connection("five")
        assert told == [("cut", "four"), ("%s connection %r", "Closing", "five"), ("cut", "five")]


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_disposal_waits_for_what_is_under_way_while_there_is_time_and_mends_at_the_end(
    monkeypatch: pytest.MonkeyPatch, left: float
) -> None:
    async def main() -> None:
        running, (first, second) = asyncio.get_running_loop(), (asyncio.Event(), asyncio.Event())
        now = [0.0]

        def moment() -> float:
            """Say at the beginning that it is one, and later that so much is left."""
            return now.pop() if now else farewell.CLOSE_LIMIT - left

        loop: Any = SimpleNamespace(time=moment, create_task=running.create_task)
        pool = Pool(line=Line(callers=()), _loop=loop, _connects=set(), _closes=set())
        mended: list[int] = []
        monkeypatch.setattr(pool, "_mend", lambda now: mended.append(len(pool._under_way())), raising=False)
        tasks = [pool._spawn(event.wait(), pool._connects) for event in (first, second)]  # type: ignore[arg-type]
        settling = asyncio.create_task(pool._settle())
        await asyncio.sleep(0)
        first.set()
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(5):
            await asyncio.sleep(0)
        assert mended == []
        second.set()
        await settling
        assert [task.cancelled() for task in tasks] == [left == 0] * 2
        assert mended == ([0] if left else [])

    asyncio.run(main())


@pytest.mark.parametrize("callers", [(), ("somebody who waits",)])
def test_a_disposal_ends_the_reviews_unless_somebody_waits(callers: tuple[str, ...]) -> None:
    create.check_version()
    line: Any = Line(callers=callers)
    options: Any = SimpleNamespace(name="shop")
    timer, logger = SimpleNamespace(cancel=lambda: pool.told.append("no review")), SimpleNamespace(info=lambda *_: None)
    pool = Pool(line=line, options=options, thread=0, _timers=(timer,), logger=logger, at_dispose=None)
    pool._watch_the_rest = lambda: pool.told.append("watch")  # type: ignore[method-assign]  # of this one pool
    pool._connects = pool._closes = set()
    pool.status = lambda: ""  # type: ignore[method-assign]  # of this one pool
    pool.dispose()
    assert pool.told == [*(["no review"] if not callers else []), "run", "watch"]
    assert line.told == [("dispose", 9.0)]


@pytest.mark.parametrize("callers", [(), ("somebody who waits",)])
@pytest.mark.parametrize(("when", "left"), [(8.0, 0.0), (9.0, 0.0), (9.05, 0.05), (11.0, 2.0)])
def test_a_round_comes_when_it_is_due_and_soon_while_somebody_waits(
    when: float, left: float, callers: tuple[str, ...]
) -> None:
    pool = Pool(line=Line(callers=callers))
    pool._wake_in = pool.told.append  # type: ignore[method-assign]  # of this one pool
    pool._obey(WakeAt(when))
    assert pool.told == [pytest.approx(min(left, task_places.REVIEW) if callers else left)]


def test_who_holds_a_place() -> None:
    def of(**parts: Any) -> bool:
        place: Any = SimpleNamespace(keeper=None, connection=None, state=State.LENT)
        vars(place).update(parts)
        return is_held(place)

    working, done = SimpleNamespace(done=lambda: False), SimpleNamespace(done=lambda: True)
    record: Any = SimpleNamespace(fairy_ref=None)
    assert of(keeper=working)
    assert not of(keeper=done)
    assert not of(connection=record)
    for alive, held in ((record, True), (object(), False)):
        fairy = SimpleNamespace(_connection_record=alive)
        record.fairy_ref = lambda fairy=fairy: fairy
        assert of(connection=record) is held
        assert not of(connection=record, state=State.IDLE)
        assert of(connection=record, keeper=done) is held
    record.fairy_ref = lambda: None  # it was collected
    assert not of(connection=record)


def test_a_review_reclaims_what_no_caller_has(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(task_places, "mend", lambda *given: found.append(given))
    pool = Pool(line="line")
    handed, other = place_of(fairy_ref=None), place_of(fairy_ref=None)
    served, waits, asks = Caller(30.0, 0.0), Caller(30.0, 0.0), Caller(30.0, 0.0)
    served.place, served.key = handed, SimpleNamespace(done=lambda: True)
    waits.key = SimpleNamespace(done=lambda: False)
    asks.key = None
    pool._asking |= {served, waits, asks}
    pool._mend(9.0)
    ((line, waiting, holds, now),) = found
    assert (line, waiting, now) == ("line", [waits], 9.0)
    assert holds(handed)
    assert not holds(other)


def test_a_caller_no_longer_asks_when_it_is_served() -> None:
    pool, place = Pool(line=Line()), place_of()
    pool._why_unfit = lambda *given, **how: None  # type: ignore[method-assign]  # every connection is fit
    assert pool._get_until(30.0, place, 1.0) is place
    assert pool._asking == set()
    assert place.connection.waited == (place.lent_at, 8.0)

    def strike(*given: Any, **how: Any) -> None:
        assert len(pool._asking) == 1
        raise KeyboardInterrupt

    pool._why_unfit = strike  # type: ignore[method-assign]  # it is interrupted
    with pytest.raises(KeyboardInterrupt):
        pool._get_until(30.0, place, 1.0)
    assert pool._asking == set()


def test_a_caller_that_is_struck_before_it_waits_leaves_and_passes_the_error_on() -> None:
    pool = Pool(line=Line(), _loop=SimpleNamespace(create_future=str))

    def strike() -> None:
        raise KeyboardInterrupt

    pool._run = strike  # type: ignore[method-assign]  # of this one pool
    caller = Caller(30.0, 0.0)
    caller.place = place_of()  # it was served in the meantime
    with pytest.raises(KeyboardInterrupt):
        pool._wait(caller)
    assert pool.line.told == [("leave", caller)]  # type: ignore[attr-defined]  # the one of these tests


@pytest.mark.parametrize(("deadline", "half"), [(29.0, 19.0), (10.5, 9.75), (10.0, NEVER), (5.0, NEVER)])
def test_a_caller_that_waits_sees_to_a_review_and_leaves_when_it_is_struck(
    deadline: float, half: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(in_use=1, rules=SimpleNamespace(limit=1))
    loop: Any = SimpleNamespace(create_future=object)
    pool = Pool(line=line, _loop=loop, _timeout=30.0)
    reviews: list[float] = []
    pool._see_to_a_review = reviews.append  # type: ignore[method-assign]  # no timer is needed

    def strike(future: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(tasks, "await_only", strike)
    caller = Caller(deadline, 9.0)
    with pytest.raises(asyncio.CancelledError):
        pool._wait(caller)
    assert reviews == [caller.until] == [max(deadline, 9.0)]
    assert caller.half == half  # when garbage is collected for it
    assert line.told == [("leave", caller)]
    assert pool.told == ["run", "run"]


@pytest.mark.parametrize(
    ("timeout", "in_use", "limited", "left"),
    [
        (0.0, 0, False, LONGEST_WAIT),  # for its own connect, which has limits of its own
        (0.0, 0, True, 7.0),
        (0.0, 1, False, 0.0),
        (-1.0, 0, False, LONGEST_WAIT),
        (0.5, 0, False, 0.25),
    ],
)
def test_who_does_not_wait_for_a_connection_waits_for_his_own_connect(
    monkeypatch: pytest.MonkeyPatch, timeout: float, in_use: int, limited: bool, left: float
) -> None:
    pool = Pool(line=Line(in_use=in_use, rules=SimpleNamespace(limit=1)), _timeout=timeout)
    pool._loop = SimpleNamespace(create_future=object)
    pool._see_to_a_review = lambda until: None  # type: ignore[method-assign]  # no timer is needed
    monkeypatch.setattr(tasks.deadlines, "current", lambda: SimpleNamespace(remaining=lambda: 7.0) if limited else None)
    caller = Caller(9.0 + max(0.0, timeout) / 2, 9.0)

    def serve(future: Any) -> None:
        caller.place = place

    place = place_of()
    monkeypatch.setattr(tasks, "await_only", serve)
    assert pool._wait(caller) == (place, False)
    assert caller.until == 9.0 + left


SOON = 0.5  # instead of a tenth of a second, which no float is


@pytest.mark.parametrize(
    ("timers", "end", "until", "wakes"),
    [
        ((), NEVER, 5.0, True),
        ((0.25, 0.25 + SOON), NEVER, 5.0, False),
        ((0.25, 0.25 + SOON), NEVER, 0.25, False),
        ((0.25, 0.25 + SOON), NEVER, 0.125, True),  # it ends before the round
        ((0.25, 0.25 + SOON), 0.125, 0.125, False),  # as another one does, for whom there is one
        ((2 * SOON, 3 * SOON), NEVER, 5.0, False),
        ((2 * SOON + 0.25, 3 * SOON + 0.25), NEVER, 5.0, True),  # it is far away
        ((-SOON, 0.0), NEVER, 5.0, True),  # it is over
        ((-SOON, 0.25), NEVER, 5.0, False),
    ],
)
def test_a_caller_that_waits_has_a_review_to_come_soon(
    monkeypatch: pytest.MonkeyPatch, timers: tuple[float, ...], end: float, until: float, wakes: bool
) -> None:
    monkeypatch.setattr(task_places, "REVIEW", SOON)
    found: list[float] = []
    handles = tuple(SimpleNamespace(when=lambda when=each: 100.0 + when) for each in timers)
    pool = Pool(_timers=handles, _next_end=9.0 + end, _loop=SimpleNamespace(time=lambda: 100.0))
    pool._wake_in = found.append  # type: ignore[method-assign]  # of this one pool
    pool._see_to_a_review(9.0 + until)
    assert found == [SOON] * wakes
    assert pool._next_end == 9.0 + min(end, until)


def test_a_review_ends_the_waits_that_are_over_and_collects_for_those_that_are_half_over() -> None:
    line, told = Line(callers=[], disposed=False), []
    pool = Pool(line=line, _timers=(), _loop=SimpleNamespace(is_closed=lambda: False), thread=0)
    pool._expire = lambda caller: told.append(("expire", caller))  # type: ignore[method-assign]  # each is seen here
    pool._collect = lambda left: told.append(("collect", left))  # type: ignore[method-assign]  # likewise
    pool._mend = lambda now: told.append(("mend", now))  # type: ignore[method-assign]  # likewise
    pool._stop_timers = lambda: told.append("stop")  # type: ignore[method-assign]  # likewise
    waits = SimpleNamespace(done=lambda: False)
    over, half, early, served = (Caller(30.0, 0.0, waits) for _ in range(4))
    over.until, half.until, early.until, served.until = 9.0, 12.0, 13.0, 10.0
    half.half, early.half, served.half = 9.0, 9.1, 9.0
    served.key = SimpleNamespace(done=lambda: True)
    for callers, events, end in (
        ([over], [("expire", over)], NEVER),
        ([half, served], [("collect", 3.0)], 12.0),
        ([half, early], [], 12.0),  # it was collected for once
    ):
        pool._asking = set(callers)
        pool._review()
        assert told == [*events, ("mend", 9.0), "stop"]
        assert pool._next_end == end
        assert line.told == [("tick", 9.0)]
        told.clear()
        line.told.clear()


@pytest.mark.parametrize(
    ("unfit", "rested", "doubtful_at", "verdict", "found", "asked"),
    [
        ("recycled", True, 5.0, Verdict.ALIVE, "recycled", False),
        (None, False, 5.0, Verdict.DEAD, None, False),  # it has just been opened
        (None, True, 9.1, Verdict.DEAD, None, False),
        (None, True, 9.0, Verdict.DEAD, "ping", True),
        (None, True, 5.0, Verdict.ALIVE, None, True),
        (None, True, 5.0, None, None, False),  # pool_pre_ping is off
    ],
)
def test_only_a_connection_in_doubt_is_asked(
    unfit: str | None, rested: bool, doubtful_at: float, verdict: Verdict | None, found: str | None, asked: bool
) -> None:
    place, asks = place_of(), []
    place.connection.doubtful_at = doubtful_at
    line: Any = SimpleNamespace(why_unfit=lambda place, now: unfit, generation=0)
    pool = Pool(line=line, _check=verdict and object())
    pool._ask_or_look = lambda *given: asks.append(given) or verdict  # type: ignore[method-assign]  # no socket
    assert pool._why_unfit(place, 30.0, rested=rested) == found
    assert bool(asks) is asked


@pytest.mark.parametrize(
    ("disposed", "open_", "callers", "over"),
    [(True, 0, [], True), (False, 0, [], False), (True, 1, [], False), (True, 0, ["caller"], False)],
)
def test_what_a_pool_has_counted_is_final_when_it_is_disposed_of_and_empty_and_its_callers_are_served(
    disposed: bool, open_: int, callers: list[str], over: bool
) -> None:
    """Of a pool of threads, too."""
    pool: Any = SimpleNamespace(line=Line(disposed=disposed, open=open_, callers=callers), open=open_, waiters=callers)
    assert TaskPool.is_over(pool) is over
    assert FairPool.is_over(pool) is over


@pytest.mark.parametrize("error", [OSError("away"), asyncio.CancelledError()], ids=["error", "cancelled"])
def test_a_connection_that_cannot_be_reset_is_reported_and_ends(error: BaseException) -> None:
    told: list[Any] = []
    pool = SimpleNamespace(logger=SimpleNamespace(error=lambda words, exc_info: told.append((words, exc_info))))
    lent: Any = SimpleNamespace(_pool=pool, _let_go=lambda: told.append("let go"))
    record: Any = SimpleNamespace(
        invalidate=lambda e: told.append(("invalidate", e)), _checkin_failed=lambda e: told.append(("failed", e))
    )
    reported = ("Exception during reset or similar", True)
    if isinstance(error, Exception):
        TaskLent._end_by(lent, error, record)
        assert told == [reported, ("invalidate", error)]
    else:
        with pytest.raises(asyncio.CancelledError):
            TaskLent._end_by(lent, error, record)
        assert told == [reported, "let go", ("failed", error)]


def test_the_processes_of_a_fleet_do_not_all_ask_at_once_for_a_server_that_is_away() -> None:
    rules = [TaskPool(lambda: None).line.rules for _ in range(20)]
    for failures, pause in ((1, judgements.RETRY_FIRST), (9, judgements.RETRY_LONGEST)):
        pauses = [each.retry_pause(failures, transient=True) for each in rules]
        assert len(set(pauses)) > 1
        assert all(pause <= each <= 1.25 * pause for each in pauses)
    assert {each.retry_pause(1, transient=False) for each in rules} == {judgements.RETRY_REFUSED}


@pytest.mark.parametrize("used", [True, False])
def test_a_request_to_cancel_is_sent_from_the_loop_that_runs(tmp_path: Path, used: bool) -> None:
    """Also for an engine whose own pool nobody has used: a plan's connection comes from another one."""
    found: list[bool] = []

    async def work() -> None:
        found.append(True)

    async def main() -> None:
        engine = db.async_engine()
        if used:
            async with engine.connect():
                pass
        for known in (engine.sync_engine, None):
            task = cancelling.spawn(known, work())
            assert (task in engine.sync_engine.pool._closes) is (used and known is not None)  # for whose end it waits
            await task
        await db.async_dispose()

    with registry(f"sqlite+aiosqlite:///{tmp_path}/a.db") as db:
        asyncio.run(main())
    assert found == [True, True]
