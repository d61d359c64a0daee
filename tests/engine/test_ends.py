"""How engines end, and how a reading session does: limits, waits, and what is sent, without a server."""

from __future__ import annotations

import asyncio
import sqlite3
from _thread import allocate_lock
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event, Thread, current_thread
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from dbconfig import Registry
from dbconfig.engine import draining, pool, read_only, reading_guard
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.sqlite.connection import Connection
from dbconfig.engine.pool import retiring
from tests.engine.pool.support import eventually, running_engine
from tests.registries import registry


@pytest.mark.parametrize(("timeout", "valid"), [(0.0, True), (0.1, True), (-0.1, False), (float("nan"), False)])
def test_no_time_at_all_is_a_limit(timeout: float, valid: bool) -> None:
    if valid:
        draining.check(timeout)
    else:
        with pytest.raises(ValueError, match="timeout must be at least 0"):
            draining.check(timeout)


@pytest.mark.parametrize(
    ("busy", "seconds", "idle"), [([0], 0.0, True), ([1, 0], 30.0, True), ([1, 1], 0.0, False), ([1, 1], -1.0, False)]
)
def test_a_loop_waits_until_nothing_is_in_use(busy: list[int], seconds: float, idle: bool) -> None:
    drain: Any = SimpleNamespace(busy=lambda: busy.pop(0) if busy else 0)
    assert asyncio.run(draining._idle([drain], seconds)) is idle


@pytest.mark.parametrize("of", ["this one", "another"])
@pytest.mark.parametrize("held", ["connection", "cursor", "pooled", "nothing"])
def test_a_thread_may_be_in_a_call_if_its_frames_hold_the_connection(held: str, of: str) -> None:
    began, end = allocate_lock(), allocate_lock()  # whose methods are in C, as those of sqlite3
    began.acquire()
    end.acquire()

    def call(given: Any) -> None:
        began.release()
        end.acquire(timeout=60)

    engine = create_engine("sqlite://", poolclass=NullPool, connect_args={"check_same_thread": False})
    with closing(engine.raw_connection()) as asked, closing(engine.raw_connection()) as other:
        used = asked if of == "this one" else other
        own: Any = used.dbapi_connection
        given = {"connection": own, "cursor": own.cursor(), "pooled": used, "nothing": None}[held]
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(call, given)
            try:
                assert began.acquire(timeout=60)
                assert retiring._in_a_call(asked.dbapi_connection) is (of == "this one" and held != "nothing")
            finally:
                end.release()
            running.result(60)
        assert not retiring._in_a_call(asked.dbapi_connection)  # the caller, who asks, is in no other call


def is_open(connection: Any) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


@pytest.fixture(params=[None, "QueuePool", "NullPool"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with running_engine(f"sqlite:///{tmp_path}/a.db", poolclass=request.param) as made:
        yield made


def test_what_is_in_use_is_cut_unless_a_statement_of_it_runs_in_this_process(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone, runs, used = (engine.raw_connection() for _ in range(3))
    owns: list[Any] = [each.dbapi_connection for each in (gone, runs, used)]
    drain, waited = pool.drain(engine), list[float]()
    monkeypatch.setattr(drain._ledger, "live", lambda: [each._connection_record for each in (gone, runs, used)])  # type: ignore[attr-defined]  # of SQLAlchemy's
    monkeypatch.setattr(
        retiring, "wait_until_idle", lambda drains, seconds: (waited.append(seconds), gone.invalidate())
    )
    monkeypatch.setattr(retiring, "_in_a_call", lambda connection: connection is owns[1])
    drain.cut()
    assert waited == [retiring.GRACE]
    assert [is_open(own) for own in owns] == [False, True, False]
    told = "testing/default: a statement still runs in this process; its connection closes when it ends"
    assert caplog.messages == [told]
    for each in (gone, runs, used):
        each.close()
    assert not is_open(owns[1])


def test_a_request_to_cancel_that_hangs_holds_up_neither_the_disposal_nor_the_end_of_the_process(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a server that accepts the request and says nothing; an orchestrator would kill what does not end."""
    drain, hung = pool.drain(engine), Event()
    asking: list[Thread] = []

    def hang() -> None:
        asking.append(current_thread())
        hung.wait(60)

    monkeypatch.setattr(drain, "ask_to_cancel", hang)
    monkeypatch.setattr(retiring, "CANCEL_LIMIT", 0.01)
    try:
        drain.cancel()
        assert eventually(lambda: bool(asking))
        (thread,) = asking
        assert thread.is_alive()
        assert thread.daemon, "the interpreter waits for it at its end"
    finally:
        hung.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("way", ["drain", "close_on_return"])
def test_a_connection_in_use_at_the_end_of_its_engine_is_closed_as_it_is_returned(engine: Engine, way: str) -> None:
    with engine.connect() as one, engine.connect() as other:
        owns = [each.connection.dbapi_connection for each in (one, other)]
        if way == "drain":
            pool.drain(engine)
        else:
            pool.close_on_return(engine)
        assert all(is_open(own) for own in owns)
        other.close()
        assert [is_open(own) for own in owns] == [True, False]
    assert not any(is_open(own) for own in owns)


class Own:
    """A driver's connection: keeps what is sent."""

    def __init__(self, **state: Any) -> None:
        self.sent: list[str] = []
        vars(self).update(state)

    def cursor(self) -> Any:
        return SimpleNamespace(execute=self.sent.append, close=lambda: None)


@pytest.mark.parametrize("restores", [True, False])
@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize(
    ("state", "inside", "ends"),
    [
        ({}, True, ["ROLLBACK"]),
        ({}, False, []),
        ({"autocommit": True}, True, ["ROLLBACK"]),
        ({"autocommit": False}, True, ["by the driver"]),
    ],
)
def test_a_reading_session_ends_what_is_open_and_restores_what_is_lost(
    state: dict[str, bool], inside: bool, ends: list[str], lost: bool, restores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Own(**state)
    driver = SimpleNamespace(tells_transactions=True, in_transaction=lambda connection: inside)
    monkeypatch.setattr(read_only.driver_protocol, "of", lambda dialect: driver)
    monkeypatch.setattr(reading_guard, "is_lost", lambda proxied, driver, own: lost)
    dialect = SimpleNamespace(
        get_driver_connection=lambda connection: connection,
        do_rollback=lambda proxied: own.sent.append("by the driver"),
        do_commit=lambda proxied: own.sent.append("COMMIT by the driver"),
    )
    read_only.skip_what_carries_nothing(SimpleNamespace(dialect=dialect), restores=restores)  # type: ignore[arg-type]  # all it asks of
    dialect.do_rollback(SimpleNamespace(dbapi_connection=own))
    restored = [reading_guard.RESTORE, *(["COMMIT by the driver"] if state.get("autocommit") is False else [])]
    assert own.sent == [*ends, *(restored if lost and restores else [])]


def test_a_driver_that_does_not_tell_transactions_ends_them_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a transaction is open would be a guess, and a ROLLBACK that it does not send may confuse the driver."""
    own = Own()
    monkeypatch.setattr(read_only.driver_protocol, "of", lambda dialect: driver_protocol.Driver())
    dialect = SimpleNamespace(
        get_driver_connection=lambda connection: connection,
        do_rollback=lambda proxied: own.sent.append("rollback()"),
        do_commit=lambda proxied: own.sent.append("commit()"),
    )
    read_only.skip_what_carries_nothing(SimpleNamespace(dialect=dialect), restores=False)  # type: ignore[arg-type]  # all it asks of
    for end in (dialect.do_rollback, dialect.do_commit):
        end(SimpleNamespace(dbapi_connection=own))
    assert own.sent == ["rollback()", "commit()"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_reading_session_of_sqlite_asks_the_driver_for_no_end_of_what_is_not_open(
    asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asynchronous:
        pytest.importorskip("aiosqlite")
    asked: list[str] = []
    for name in ("commit", "rollback"):
        work = getattr(Connection, name)
        monkeypatch.setattr(Connection, name, lambda own, name=name, work=work: (asked.append(name), work(own)))

    async def read(db: Registry) -> None:
        async with db.async_session(read_only=True) as session:
            assert await session.scalar(text("SELECT 7")) == 7
        await db.async_dispose()

    with registry(f"sqlite:///{tmp_path}/a.db") as db:
        with db.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE item (n INT)")
        assert "commit" in asked
        asked.clear()
        if asynchronous:
            asyncio.run(read(db))
        else:
            with db.session(read_only=True) as session:
                assert session.scalar(text("SELECT 7")) == 7
        assert asked == []
