"""An exception out of a signal handler, at any point of the pool's code, costs no place, helper, waiter, or lock."""

from __future__ import annotations

import dis
import gc
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, exc, text

import dbconfig.engine.pool
from dbconfig import Profile, Registry
from dbconfig.engine.pool import call_watchdog
from dbconfig.engine.pool.call_watchdog import Watch
from dbconfig.engine.pool.lent import Lent
from dbconfig.engine.pool.maintenance import Caretaker
from dbconfig.engine.pool.options import LineOptions
from dbconfig.engine.pool.record import Slot
from dbconfig.engine.pool.threads import FairPool
from tests.support.strikes import Place, Strike, Struck, needs_a_whole_with, sweep

from .support import FakeServer, callers, eventually, fair_pool, helpers, running_engine, url_of

POOL = str(Path(dbconfig.engine.pool.__file__).parent)
LIMIT = 3

Scenario = Callable[[FairPool], Callable[[], None]]  # prepares a pool, and returns what is struck


def warm(pool: FairPool, count: int = 1) -> None:
    for connection in [pool.connect() for _ in range(count)]:
        connection.close()


def the_first_use(pool: FairPool) -> Callable[[], None]:
    return lambda: pool.connect().close()


def a_use(pool: FairPool) -> Callable[[], None]:
    warm(pool)
    return lambda: pool.connect().close()


def a_use_that_needs_one_more(pool: FairPool) -> Callable[[], None]:
    held = pool.connect()

    def work() -> None:
        try:
            pool.connect().close()
        finally:
            held.close()

    return work


def a_use_of_what_has_expired(pool: FairPool) -> Callable[[], None]:
    warm(pool, 2)
    for record in pool.idle:
        record.expires = 0.0
    return lambda: pool.connect().close()


def a_return_to_somebody_who_waits(pool: FairPool) -> Callable[[], None]:
    held = [pool.connect() for _ in range(LIMIT)]
    threads = [threading.Thread(target=lambda: pool.connect().close(), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(pool.waiters) == 2)

    def work() -> None:
        try:
            for connection in held:
                connection.close()
        finally:
            # A waiter is served by what is left of these, or a place is free and the waiter gets it.
            held.clear()
            gc.collect(0)

    work.threads = threads  # type: ignore[attr-defined]  # who must not be forgotten
    return work


def a_wait_that_ends_in_vain(pool: FairPool) -> Callable[[], None]:
    held = [pool.connect() for _ in range(LIMIT)]

    def work() -> None:
        pool._timeout = 0.001
        try:
            with suppress(Exception):
                pool.connect()
        finally:
            pool._timeout = 20.0
            for connection in held:
                connection.close()

    return work


def a_failed_connect(pool: FairPool) -> Callable[[], None]:
    server: FakeServer = pool.server_of_test  # type: ignore[attr-defined]  # set below
    server.errors = [ValueError("wrong password")]

    def work() -> None:
        try:
            with suppress(ValueError):
                pool.connect()
        finally:
            server.errors.clear()  # of this attempt only

    return work


def an_invalidation(pool: FairPool) -> Callable[[], None]:
    warm(pool, 2)
    return pool.invalidate_all


def an_invalidated_use(pool: FairPool) -> Callable[[], None]:
    warm(pool)

    def work() -> None:
        connection = pool.connect()
        connection.invalidate()
        connection.close()

    return work


def a_dispose(pool: FairPool) -> Callable[[], None]:
    warm(pool, 2)
    return pool.dispose


SCENARIOS = [
    the_first_use,
    a_use,
    a_use_that_needs_one_more,
    a_use_of_what_has_expired,
    a_return_to_somebody_who_waits,
    a_wait_that_ends_in_vain,
    a_failed_connect,
    an_invalidation,
    an_invalidated_use,
    a_dispose,
]


def assert_whole(pool: FairPool, server: FakeServer, strike: Strike) -> None:
    """Every place can be used, by this thread and by others, and nothing is counted that is not there."""
    gc.collect(0)
    assert eventually(lambda: pool.connecting == 0 and not helpers()), f"{strike}: a helper is lost"
    assert not pool.lock._is_owned(), f"{strike}: the lock is held"  # type: ignore[attr-defined]  # re-entrant: we would get it
    assert not pool.waiters, strike
    assert pool.open == len(pool.idle), f"{strike}: {pool.open} places are taken, {len(pool.idle)} connections rest"
    with callers(LIMIT) as run:
        connections = [each.result(15) for each in [run(pool.connect) for _ in range(LIMIT)]]
        for each in [run(connection.close) for connection in connections]:
            each.result(15)
    pool.dispose()
    assert eventually(lambda: pool.open == 0)


@needs_a_whole_with
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_pool_is_whole_wherever_an_exception_strikes(scenario: Scenario, times: int) -> None:
    """Once, or at several points in a row, as for a held-down Ctrl-C."""

    def attempt(strike: Strike) -> bool:
        strike = Strike(strike.number, POOL, times=times)
        server = FakeServer()
        options = LineOptions(min_idle=0, idle_timeout=600.0)
        pool = fair_pool(server, pool_size=1, max_overflow=LIMIT - 1, timeout=20.0, line=options)
        pool.server_of_test = server  # type: ignore[attr-defined]  # for a failed connect
        work = scenario(pool)
        struck = strike.during(work)
        threads = getattr(work, "threads", ())
        del work
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), f"{strike}: somebody who waits is forgotten"
        gc.collect(0)
        if times > 1:
            # What the first strike lets go of has a finalizer, which the second one may end as it begins. Who waits for
            # half of the time that there is for it looks for such places.
            pool.reclaim(0.0)
        assert_whole(pool, server, strike)
        return struck

    assert sweep(attempt, POOL) > 5


def test_of_two_interrupts_of_a_checkout_the_caller_gets_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that catches its time limit, and continues, must not lose a Ctrl-C that comes while the pool mends."""
    pool = fair_pool(FakeServer(), pool_size=1, max_overflow=0)
    warm(pool)
    interrupts: list[BaseException] = [TimeoutError("the job's limit"), KeyboardInterrupt()]
    repair = pool.repair

    def strike() -> Any:
        if interrupts:
            raise interrupts.pop(0)
        repair()

    monkeypatch.setattr(pool, "_take", strike)
    monkeypatch.setattr(pool, "repair", strike)
    with pytest.raises(KeyboardInterrupt) as caught:
        pool.connect()
    assert isinstance(caught.value.__context__, TimeoutError)
    monkeypatch.undo()
    pool.connect().close()
    assert (pool.open, len(pool.idle)) == (1, 1)


@pytest.mark.parametrize(("whose", "finalizer"), [(Lent, "_end"), (Slot, "_drop")])
def test_who_waits_gets_a_place_whose_finalizer_did_not_run(
    whose: type, finalizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=0, timeout=2.0)
    pool.connect().close()
    held: Any = pool.connect() if whose is Lent else pool._do_get()
    with monkeypatch.context() as patch:
        patch.setattr(whose, finalizer, lambda this: None)
        del held
        gc.collect(0)
    assert (pool.open, len(pool.idle)) == (1, 0)
    found: list[Any] = []
    for _ in range(20):  # on a busy machine the other half of its time may be too short
        with suppress(exc.TimeoutError):
            found.append(pool.connect())
            break
    found.pop().close()
    assert (pool.open, len(pool.idle)) == (1, 1)


def test_a_connection_that_its_finalizer_is_about_to_return_is_left_to_it() -> None:
    server = FakeServer()
    pool = fair_pool(server, pool_size=1, max_overflow=0)
    looks: list[Any] = []

    class Leaks:
        """A caller in another thread looks for connections without a holder at this moment."""

        def forgotten(self, record: Any) -> None:
            looks.append(record.dbapi_connection)
            pool.reclaim(0.0)

    held: Any = pool.connect()
    pool.leaks = Leaks()  # type: ignore[assignment]  # of which nothing else is called
    del held
    gc.collect(0)
    pool.leaks = None
    again = pool.connect()
    assert looks == [again.dbapi_connection]
    again.close()
    assert (pool.open, len(pool.idle)) == (1, 1)


def test_the_caretaker_does_its_jobs_wherever_an_exception_strikes() -> None:
    def attempt(strike: Strike) -> bool:
        caretaker = Caretaker()

        def work() -> None:
            caretaker.add("one", lambda: 1.0)
            caretaker.remove("one")

        struck = strike.during(work)
        done = threading.Event()
        caretaker.add("two", lambda: done.set())
        assert done.wait(30), f"{strike}: the caretaker is stuck"
        caretaker.remove("one")
        return struck

    assert sweep(attempt, POOL) > 5


def test_a_watched_call_leaves_no_guard_wherever_an_exception_strikes() -> None:
    """A guard that stayed would shut the socket of somebody's later call."""

    def attempt(strike: Strike) -> bool:
        watch = Watch()
        struck = strike.during(lambda: watch.call(99, 3600.0, int))
        assert eventually(lambda: not watch._guards), f"{strike}: a guard is left"
        return struck

    assert sweep(attempt, POOL) > 3


def test_an_exception_of_the_driver_in_a_watched_call_is_passed_on() -> None:
    watch = Watch()

    def fail() -> None:
        raise Struck("on purpose")

    with pytest.raises(Struck, match="on purpose"):
        watch.call(99, 3600.0, fail)
    assert not watch._guards


def test_strikes_see_every_point() -> None:
    """The instrument itself: a function with two calls has a point at its begin and one after each."""

    def work() -> None:
        len("a")
        len("b")

    assert sweep(lambda strike: strike.during(work), __file__) == 3


def test_strikes_see_every_place_once_however_often_it_is_passed() -> None:
    def called() -> None:
        len("a")

    def work() -> None:
        for _ in range(5):
            called()
        called()

    known: set[Place] = set()
    points = sweep(lambda _: Strike(1, __file__, known=known).during(work))
    # Two in `called`, on each of two paths; the begin of `work`, after `range`, and the loop. Python 3.11 does not look
    # for signals after a call of a function that is written in Python.
    assert points == len(known) == 2 * 2 + 3 + (0 if sys.version_info < (3, 12) else 2)


def leave_an_except_in_a_with(lock: Any) -> None:
    with lock:
        try:
            [].pop()
        except IndexError:
            lock = None


@needs_a_whole_with
def test_a_signal_in_the_jump_out_of_an_except_leaves_no_lock() -> None:
    def attempt(strike: Strike) -> bool:
        lock = threading.RLock()
        struck = strike.during(lambda: leave_an_except_in_a_with(lock))
        assert not lock._is_owned(), strike  # type: ignore[attr-defined]
        assert sys.exception() is None, strike
        return struck

    assert sweep(attempt, __file__) >= 3


@pytest.mark.skipif(sys.version_info[:2] != (3, 12), reason="other versions do not jump there")
def test_an_exception_where_that_jump_leads_to_is_not_what_a_signal_does() -> None:
    """Why a strike is a signal: CPython looks in the jump, which is inside the `with`; what follows is outside."""
    code = leave_an_except_in_a_with.__code__
    jumps = {each.offset: each.argval for each in dis.get_instructions(code) if each.opname == "JUMP_BACKWARD"}
    passed: list[int] = []

    def at(code: Any, offset: int) -> None:
        passed.append(offset)
        if jumps.get(passed[-2] if len(passed) > 1 else -1) == offset:
            raise Struck

    lock = threading.RLock()
    monitoring: Any = vars(sys)["monitoring"]  # since 3.12
    monitoring.use_tool_id(3, "a strike behind the jump")
    monitoring.register_callback(3, monitoring.events.INSTRUCTION, at)
    monitoring.set_local_events(3, code, monitoring.events.INSTRUCTION)
    try:
        with pytest.raises(Struck):
            leave_an_except_in_a_with(lock)
    finally:
        monitoring.set_local_events(3, code, 0)
        monitoring.free_tool_id(3)
    assert lock._is_owned()  # type: ignore[attr-defined]


def everything(server: Any) -> dict[str, Any]:
    """Settings with which all that the pool can do is done at each use."""
    return {
        "pool_size": 1,
        "max_overflow": 1,
        "pool_pre_ping": True,
        "pool_leak_warning": 30.0,
        "statement_timeout": 20.0,
        "pool_recycle": 1000.0,
    }


def test_no_driver_answers_the_question_of_another_wherever_an_exception_strikes(server: Any) -> None:
    """With the ping, the watch over statements and leak reports: strike, then ask three different questions."""
    with running_engine(url_of(server), **everything(server)) as engine:

        def ask(question: str) -> Any:
            with autocommitting(engine) as connection:
                return connection.scalar(text(f"SELECT {question}"))

        def attempt(strike: Strike) -> bool:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            struck = strike.during(lambda: ask("'of the interrupted'"))
            gc.collect(0)
            assert [ask(number) for number in ("101", "102", "103")] == [101, 102, 103], strike
            assert eventually(lambda: engine.pool.open == len(engine.pool.idle)), strike  # type: ignore[attr-defined]
            assert all(guard.locked() for guard in list(call_watchdog.watch._guards)), f"{strike}: a guard is left"
            return struck

        assert sweep(attempt, POOL) > 40


def autocommitting(engine: Engine) -> Connection:
    """Return a connection that sends nothing of its own, and no ROLLBACK that would notice an answer too many."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


class Limit(Exception):
    """What Celery calls SoftTimeLimitExceeded."""


def test_a_signal_in_the_middle_of_an_answer_costs_the_connection_and_nothing_else(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    swallowed: list[Any] = []  # what strikes in the `__del__` of an object of the driver ends there
    monkeypatch.setattr(sys, "unraisablehook", lambda found: half_made(found) or swallowed.append(found.exc_type))

    def half_made(found: Any) -> bool:
        """PyMySQL's result reads an attribute in its `__del__` that a signal in its `__init__` kept from being set."""
        return found.exc_type is AttributeError and found.object.__qualname__ == "MySQLResult.__del__"

    def strike(*_: Any) -> None:
        raise Limit

    before = signal.signal(signal.SIGALRM, strike)
    sleep = "SELECT pg_sleep(%s)" if server.driver.startswith("postgres") else "SELECT sleep(%s)"
    try:
        with running_engine(url_of(server), pool_size=2, max_overflow=0) as engine:
            for number in range(1, 40):
                try:
                    with autocommitting(engine) as connection:
                        signal.setitimer(signal.ITIMER_REAL, 0.0005 * number)
                        for _ in range(50):
                            connection.exec_driver_sql(sleep % 0.0001)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except (Limit, exc.StatementError):  # SQLAlchemy wraps what strikes while it prepares a statement
                    signal.setitimer(signal.ITIMER_REAL, 0)
                for asked in (number, -number):
                    with autocommitting(engine) as connection:
                        assert connection.scalar(text(f"SELECT {asked}")) == asked
            gc.collect()
            assert eventually(lambda: engine.pool.open == len(engine.pool.idle))  # type: ignore[attr-defined]
            assert set(swallowed) <= {Limit}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("error", [Limit, ValueError, KeyboardInterrupt])
def test_an_answer_that_nobody_has_read_reaches_nobody(mariadb: Any, error: type[BaseException]) -> None:
    """PyMySQL is written in Python: an exception strikes between what it sends and what it reads."""
    pymysql = pytest.importorskip("pymysql.connections")
    with running_engine(url_of(mariadb), pool_size=1, max_overflow=0, pool_pre_ping=False) as engine:
        with autocommitting(engine) as connection:
            read = pymysql.Connection._read_query_result

            def interrupted(*_: Any, **__: Any) -> None:
                pymysql.Connection._read_query_result = read
                raise error

            pymysql.Connection._read_query_result = interrupted
            with pytest.raises(error):
                connection.execute(text("SELECT 'of the first'"))
        for number in (101, 102, 103):
            with autocommitting(engine) as connection:
                assert connection.scalar(text(f"SELECT {number}")) == number


def test_a_value_that_cannot_be_sent_costs_no_connection(mariadb: Any) -> None:
    class Strange:
        def __str__(self) -> str:
            raise TypeError("not to be written down")

    with running_engine(url_of(mariadb), pool_size=1, max_overflow=0) as engine, engine.begin() as connection:
        number = connection.scalar(text("SELECT connection_id()"))
        with pytest.raises(TypeError):
            connection.exec_driver_sql("SELECT %s", (Strange(),))
        assert connection.scalar(text("SELECT connection_id()")) == number


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql"])
def test_no_python_of_ours_runs_while_sqlalchemy_makes_a_cursor(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What a signal raises there SQLAlchemy wraps into a StatementError, which no handler of the signal expects."""
    url = f"sqlite:///{tmp_path}/a.db"
    if driver != "sqlite":
        url = request.getfixturevalue("mariadb" if driver.startswith("mysql") else "postgresql").url(driver)
    own = ("create_default_cursor", "create_cursor")
    seen: list[str] = []

    def look(frame: Any, event: str, _: Any) -> None:
        caller = frame.f_back
        if event == "call" and caller is not None and caller.f_code.co_name in own:
            seen.append(frame.f_code.co_filename)

    with Registry.from_profile(Profile(name="cursors", url=str(url))) as db, db.engine().connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        sys.setprofile(look)
        try:
            connection.exec_driver_sql("SELECT 2")
        finally:
            sys.setprofile(None)
    ours = [name for name in seen if name.startswith(str(Path(dbconfig.__file__).parent))]
    allowed = {"connection.py"} if driver == "sqlite" else set()  # a connection class of its own, which makes them
    assert {Path(name).name for name in ours} <= allowed
