"""A connection on loan keeps SQLAlchemy's promises, whether or not somebody listens."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool, PoolProxiedConnection

from dbconfig.engine.pool.threads import FairPool
from tests.engine.pool.support import FakeServer, assert_whole, fair_pool

EVENTS = ("checkout", "reset", "checkin")


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def pool(server: FakeServer) -> FairPool:
    return fair_pool(server, pool_size=1, max_overflow=0, timeout=1.0)


def test_it_is_sqlalchemys_proxied_connection(pool):
    connection = pool.connect()
    assert isinstance(connection, PoolProxiedConnection)
    assert connection.is_valid
    assert not connection.is_detached
    assert connection.driver_connection is connection.dbapi_connection
    connection.info["mine"] = 1
    connection.close()
    assert not connection.is_valid
    assert pool.connect().info["mine"] == 1


@pytest.mark.parametrize("listened_to", EVENTS)
@pytest.mark.parametrize("of_every_pool", [False, True])
def test_each_event_reaches_who_begins_to_listen_at_any_time(pool, listened_to, of_every_pool):
    pool.connect().close()
    heard: list[str] = []

    def listener(*arguments: object) -> None:
        heard.append(listened_to)

    target = Pool if of_every_pool else pool
    event.listen(target, listened_to, listener)
    try:
        pool.connect().close()
        assert heard == [listened_to]
    finally:
        event.remove(target, listened_to, listener)
    pool.connect().close()
    assert heard == [listened_to]


def test_a_connection_that_is_listened_to_only_at_its_end_has_its_checkin(pool):
    connection, heard = pool.connect(), []
    event.listen(pool, "checkin", lambda *arguments: heard.append(1))
    connection.close()
    assert heard == [1]
    assert_whole(pool)


def test_a_connection_that_nobody_gave_back_returns(pool, server):
    connection = pool.connect()
    del connection
    gc.collect()
    assert_whole(pool)
    assert server.open == 1


def test_a_connection_that_is_forgotten_in_a_circle_returns(pool, server):
    circle: list[object] = [pool.connect()]
    circle.append(circle)
    del circle
    gc.collect()
    assert_whole(pool)
    assert server.open == 1


def test_the_end_of_an_old_loan_leaves_the_next_one_alone(pool):
    first = pool.connect()
    first.close()
    second = pool.connect()
    del first
    gc.collect()
    assert second.is_valid
    assert pool.checkedout() == 1
    second.close()
    second.close()
    assert_whole(pool)


def test_a_connection_that_cannot_be_reset_is_closed_and_its_place_is_free(pool, server, caplog):
    connection = pool.connect()

    def fail() -> None:
        raise ValueError("gone")

    server.made[0].rollback = fail  # type: ignore[method-assign]
    connection.close()
    (reported,) = [record for record in caplog.records if record.message == "Exception during reset or similar"]
    assert reported.exc_info
    assert str(reported.exc_info[1]) == "gone"
    assert server.made[0].closed
    assert_whole(pool)
    pool.connect().close()


def test_an_interrupt_of_the_reset_reaches_the_caller_and_the_place_is_free(pool, server):
    connection = pool.connect()

    def strike() -> None:
        raise KeyboardInterrupt

    server.made[0].rollback = strike  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        connection.close()
    assert server.made[0].closed
    assert_whole(pool)
    pool.connect().close()


def test_a_detached_connection_is_no_longer_the_pools(pool, server):
    connection = pool.connect()
    connection.detach()
    assert connection.is_detached
    assert pool.checkedout() == 0
    connection.close()
    assert server.made[0].closed


def test_an_exception_that_strikes_the_return_of_a_forgotten_connection_is_told_and_it_returns(pool, monkeypatch):
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: told.append(found.exc_type))
    connection = pool.connect()
    end, struck = type(connection)._end, []

    def strike(self: object) -> None:
        if not struck:
            struck.append(True)
            raise KeyboardInterrupt
        end(self)

    monkeypatch.setattr(type(connection), "_end", strike)
    del connection
    gc.collect()
    assert told == [KeyboardInterrupt]
    assert pool.checkedout() == 0


def test_debug_records_are_written_when_they_are_wanted(pool, caplog):
    with caplog.at_level(logging.DEBUG, logger="sqlalchemy.pool.impl.QueuePool"):
        pool.connect().close()
    assert "checked out from pool" in caplog.text
    assert "being returned to pool" in caplog.text
    assert "rollback-on-return" in caplog.text


def test_what_is_in_use_at_the_end_of_the_process_says_nothing():
    program = """
from tests.engine.pool.support import FakeServer, fair_pool
pool = fair_pool(FakeServer())
kept = pool.connect()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
