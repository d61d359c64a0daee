"""What a pool counts, in sync and async engines alike: waits, leaks, failovers."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from sqlalchemy import exc

from dbconfig.engine.pool import ping, stats
from dbconfig.engine.pool.clock import monotonic
from tests.engine.pool.support import callers, eventually
from tests.engine.pool.twins import Async, Stock, Sync
from tests.support.clock import Clock

Twin = Callable[..., Sync]


@pytest.fixture(params=[Sync, Async])
def engine(request: pytest.FixtureRequest, server: Any) -> Any:
    made = request.param(server, pool_size=2, max_overflow=0)
    yield made
    made.dispose()


@pytest.mark.parametrize("kind", [Sync, Async])
def test_each_checkout_is_a_wait_and_those_that_did_not_wait_are_in_the_first_bucket(kind: Any, server: Any) -> None:
    engine = kind(server, pool_pre_ping=False)  # or a machine that is busy gives a connection time to be in doubt
    before = monotonic()
    engine.select()
    passed = monotonic() - before
    after_connect = stats(engine.engine).wait
    assert after_connect.count == 1
    assert 0 < after_connect.sum <= passed  # the connect is what the caller waited for
    for _ in range(5):
        engine.select()
    now = stats(engine.engine).wait
    assert now.count == 6
    assert now.counts[0] >= 5
    assert now.sum == after_connect.sum
    engine.dispose()


def test_a_ping_before_a_checkout_is_part_of_the_wait(engine: Sync, clock: Clock) -> None:
    engine.select()
    before = stats(engine.engine).wait
    clock.advance(ping.TRUST + 1)
    engine.select()
    now = stats(engine.engine).wait
    assert now.count == 2
    assert now.sum > before.sum


def test_who_stood_in_the_line_is_counted_with_the_time(server: Any) -> None:
    engine = Sync(server, pool_size=1, max_overflow=0)
    held = engine.connect()
    with callers() as call:
        waiting = call(engine.select)
        assert eventually(lambda: stats(engine.engine).waiting == 1)
        engine.close(held)
        waiting.result(30)
    now = stats(engine.engine)
    assert (now.wait.count, now.use.count) == (2, 2)
    engine.dispose()


def test_waits_survive_a_dispose(engine: Sync) -> None:
    engine.select()
    engine.select()
    if isinstance(engine, Async):
        engine.runner.run(engine.async_engine.dispose())
    else:
        engine.engine.dispose()
    engine.select()
    assert stats(engine.engine).wait.count == 3


def test_a_leak_is_counted_once(twin: Twin, server: Any, clock: Clock) -> None:
    engine = twin(server, pool_leak_warning=30.0)
    connection = engine.connect()
    assert stats(engine.engine).leaks == 0
    clock.advance(30)
    clock.advance(600)
    engine.close(connection)
    assert stats(engine.engine).leaks == 1


@pytest.mark.parametrize("reported", [False, True])
def test_a_connection_that_was_never_closed_is_counted_as_one_leak(
    twin: Twin, server: Any, clock: Clock, reported: bool
) -> None:
    engine = twin(server, pool_leak_warning=30.0)
    connection = engine.connect()
    if reported:
        clock.advance(30)
        assert stats(engine.engine).leaks == 1
    with pytest.warns(exc.SAWarning, match="garbage collector") if engine.kind == "async" else nullcontext():
        del connection
        gc.collect()
    assert stats(engine.engine).leaks == 1


def test_a_primary_that_has_become_read_only_is_counted_as_a_failover(twin: Twin, postgresql: Any) -> None:
    engine = twin(postgresql)
    engine.select()
    postgresql.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        postgresql.sql("SELECT pg_reload_conf()")
        connection = engine.connect()
        assert eventually(lambda: engine.execute(connection, "SHOW default_transaction_read_only") == "on")
        engine.close(connection)
        connection = engine.connect()
        with pytest.raises(exc.DBAPIError):
            engine.execute(connection, "CREATE TABLE written (x INT)")
        with suppress(exc.DBAPIError):
            engine.close(connection)
        assert stats(engine.engine).failovers == 1
    finally:
        postgresql.sql("ALTER SYSTEM RESET default_transaction_read_only")
        postgresql.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize("travel", [lambda found: pickle.loads(pickle.dumps(found)), copy.copy, copy.deepcopy])
def test_the_statistics_travel_to_another_process(twin: Twin, server: Any, travel: Callable[[Any], Any]) -> None:
    engine = twin(server)
    engine.select()
    found = stats(engine.engine)
    arrived = travel(found)
    assert arrived == found
    with pytest.raises(TypeError):
        arrived.closed["idle"] = 3


def test_the_statistics_are_json(twin: Twin, server: Any) -> None:
    engine = twin(server)
    engine.select()
    found = json.loads(json.dumps(stats(engine.engine).as_dict()))
    assert found["retries"] == {}
    assert found["wait"]["count"] == (0 if isinstance(engine, Stock) else 1)
