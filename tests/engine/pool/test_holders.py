"""Who holds a connection: leak reports, and timeouts that explain themselves; in sync and async engines alike."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import exc

from dbconfig.engine.pool import stats
from dbconfig.engine.pool.diagnostics.counters import Holder
from dbconfig.engine.pool.diagnostics.timeout_report import GROUPS, _grouped
from tests.engine.pool.support import callers, engine_of, eventually, impatient, url_of
from tests.engine.pool.twins import Async, Sync
from tests.support.clock import Clock

Twin = Callable[..., Sync]
HERE = r"tests/engine/pool/test_holders\.py:\d+ in "


def rebuild_index(engine: Sync) -> Any:
    return engine.connect() if engine.kind == "async" else engine.engine.connect()


def messages(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


def test_p04_who_holds_a_connection_for_long_is_reported_once_and_again_when_it_came_back(
    twin: Twin, server: Any, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    engine = twin(server, pool_leak_warning=30.0)
    connection = rebuild_index(engine)
    clock.advance(30)
    assert len(messages(caplog, "has been held for")) == 1
    clock.advance(600)
    (report,) = messages(caplog, "has been held for")
    assert report.startswith("testing/default: a connection has been held for")
    if engine.kind != "async":
        assert re.search(HERE + "rebuild_index", report)
        assert "(thread MainThread)" in report
    else:
        assert re.search(r"\(task Task-\d+, thread MainThread\)", report)
    engine.close(connection)
    (follow_up,) = messages(caplog, "was returned after")
    assert "testing/default" in follow_up


def test_a_report_is_not_lost_where_a_driver_cannot_say_what_a_connection_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """The holder may close the connection while it is looked at, from another thread: sqlite3 then raises."""
    engine = engine_of(f"sqlite:///{tmp_path}/a.db", pool_leak_warning=30.0)
    one, other = engine.raw_connection(), engine.raw_connection()
    one.driver_connection.close()  # type: ignore[union-attr]  # it has one
    clock.advance(30)
    assert len(messages(caplog, "has been held for")) == 2
    for each in (one, other):
        each.invalidate()
    engine.dispose()


def test_a_connection_that_comes_back_in_time_is_not_reported(
    twin: Twin, server: Any, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    engine = twin(server, pool_leak_warning=30.0)
    for _ in range(10):
        engine.select()
        clock.advance(6)
    assert messages(caplog, "testing/default") == []


def test_a_connection_that_the_garbage_collector_returned_is_reported_with_its_place(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Sync(server, pool_leak_warning=30.0)

    def forgetful() -> None:
        engine.engine.raw_connection()

    forgetful()
    gc.collect()
    (report,) = messages(caplog, "garbage collector")
    assert re.search(HERE + "forgetful", report)
    engine.dispose()


def test_a_timeout_names_the_holders_by_place_and_where_the_size_is_written(server: Any) -> None:
    origins = {"pool_size": "config/production.yaml:4:1"}
    engine = Sync(server, pool_size=2, max_overflow=0, pool_leak_warning=30.0, origins=origins)
    held = [rebuild_index(engine) for _ in range(2)]
    impatient(engine.engine, 0.2)
    with pytest.raises(exc.TimeoutError, match="QueuePool limit of size 2 overflow 0 reached") as caught:
        engine.select()
    notes = "\n".join(caught.value.__notes__)
    assert "testing/default: 2 in use of 2 + 0 (pool_size + max_overflow), 0 idle, 0 connecting, 0 waiting" in notes
    assert re.search(r"held longest: \d\.\d s at " + HERE + r"rebuild_index \(2 connections\)", notes)
    assert "pool_size (config/production.yaml:4:1) or max_overflow (default)" in notes
    for connection in held:
        connection.close()
    engine.dispose()


@pytest.mark.parametrize("places", [1, GROUPS, GROUPS + 1, GROUPS + 2])
def test_a_timeout_names_the_places_that_hold_longest_and_counts_the_rest(places: int) -> None:
    """Each place holds one connection more than the one before it."""
    leaks = SimpleNamespace(place_of=lambda record: f"app.py:{record}")
    holders = [Holder(number, 100.0 - number, 0, None) for number in range(places) for _ in range(number + 1)]
    lines = _grouped(holders, leaks)
    named = [f"{100 - number}.0 s at app.py:{number} ({number + 1} connection" for number in range(min(places, GROUPS))]
    assert [line.partition("s)")[0].removesuffix(")") for line in lines[: len(named)]] == named
    rest = sum(number + 1 for number in range(GROUPS, places))
    assert lines[len(named) :] == ([f"and {rest} more"] if rest else [])


def test_without_leak_reports_a_timeout_says_where_the_holders_are_now(server: Any) -> None:
    engine = Sync(server, pool_size=1, max_overflow=0)
    finished = threading.Event()

    def long_running_report() -> None:
        with engine.engine.connect():
            finished.wait(60)

    with callers() as run:
        busy = run(long_running_report)
        assert eventually(lambda: stats(engine.engine).used == 1)
        impatient(engine.engine, 0.3)
        with pytest.raises(exc.TimeoutError) as caught:
            engine.select()
        finished.set()
        busy.result(60)
    notes = "\n".join(caught.value.__notes__)
    assert re.search(r"its thread now at " + HERE + "long_running_report", notes)
    assert "pool_leak_warning names the line" in notes
    engine.dispose()


def test_a_timeout_of_an_async_pool_explains_itself_too(server: Any) -> None:
    engine = Async(server, pool_size=1, max_overflow=0, pool_timeout=60.0)

    async def slow_endpoint(taken: asyncio.Event, finished: asyncio.Event) -> None:
        async with engine.async_engine.connect():
            taken.set()
            await finished.wait()

    async def scene() -> str:
        taken, finished = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(slow_endpoint(taken, finished))
        await taken.wait()
        engine.engine.pool._timeout = 0.05  # type: ignore[attr-defined]  # not before: the first one has to connect
        with pytest.raises(exc.TimeoutError) as caught:
            await engine.async_engine.connect()
        finished.set()
        await holder
        return "\n".join(caught.value.__notes__)

    notes = engine.runner.run(scene())
    assert "1 in use of 1 + 0" in notes
    assert re.search(r"its task now at " + HERE + "slow_endpoint", notes)
    assert stats(engine.engine).timeouts == 1
    engine.dispose()


def test_a_timeout_counts(server: Any) -> None:
    engine = engine_of(url_of(server), pool_size=1, max_overflow=0)
    with engine.connect():
        impatient(engine, 0.05)
        with pytest.raises(exc.TimeoutError):
            engine.connect()
    assert stats(engine).timeouts == 1
    assert stats(engine).wait.count == 2
    engine.dispose()


def test_reports_are_written_by_a_logger_of_their_own(
    server: Any, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    engine = Sync(server, pool_leak_warning=30.0)
    connection = engine.connect()
    clock.advance(30)
    engine.close(connection)
    assert {(r.name, r.levelno) for r in caplog.records if "testing/default" in r.getMessage()} == {
        ("dbconfig.pool.leaks", logging.WARNING)
    }
    engine.dispose()
