"""What happens to each connection, in sync and async engines alike: ping, lifetime, statistics, failover."""

from __future__ import annotations

import gc
import random
import select
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, exc

from dbconfig.engine.pool import ping, pool_arguments, stats
from dbconfig.engine.pool.lifetime import JITTER, expiry
from tests.engine.pool.support import Settings, engine_of, eventually, running_engine, url_of
from tests.engine.pool.twins import Async, Sync
from tests.support.clock import Clock

Twin = Callable[..., Sync]

ME = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


def me(engine: Sync) -> int:
    return int(engine.select(ME[engine.engine.dialect.name]))


# -- ping


@pytest.mark.parametrize("pre_ping", [1.0, True])
def test_a_connection_killed_while_idle_is_replaced(
    twin: Twin, server: Any, clock: Clock, pre_ping: bool | float
) -> None:
    engine = twin(server, pool_pre_ping=pre_ping)
    before = me(engine)
    server.terminate(before)
    clock.advance(ping.TRUST)
    assert me(engine) != before


def test_without_pre_ping_a_killed_connection_reaches_the_caller(twin: Twin, server: Any) -> None:
    engine = twin(server, pool_pre_ping=False)
    server.terminate(me(engine))
    with pytest.raises(exc.DBAPIError):
        engine.select()


def test_a_rested_connection_is_asked_and_a_fresh_one_is_not(twin: Twin, server: Any, proxy: Any, clock: Clock) -> None:
    wire = proxy(server)
    engine = twin(server, wire, pool_pre_ping=60.0)
    pings = count_pings(engine)
    engine.select()
    engine.select()
    assert pings == []
    clock.advance(60.0)
    engine.select()
    assert len(pings) == 1


def test_pre_ping_true_asks_each_time(twin: Twin, server: Any) -> None:
    engine = twin(server, pool_pre_ping=True)
    pings = count_pings(engine)
    for _ in range(4):
        engine.select()
    assert len(pings) == 3  # a new connection needs none


def test_a_notice_makes_the_pool_ask_and_not_reconnect(postgresql: Any, clock: Clock) -> None:
    """Readable bytes need not be an end: a notification is readable too."""
    engine = Sync(postgresql, pool_pre_ping=30.0)
    connection = engine.engine.raw_connection()
    connection.cursor().execute("LISTEN news")
    connection.commit()
    connection.close()
    before = me(engine)
    pings = count_pings(engine)
    descriptor = engine.engine.raw_connection().driver_connection.fileno()
    postgresql.sql("NOTIFY news")
    assert select.select([descriptor], [], [], 30)[0]
    clock.advance(ping.TRUST)
    assert me(engine) == before
    assert len(pings) == 1
    engine.dispose()


def test_a_ping_without_an_answer_ends(twin: Twin, server: Any, proxy: Any, clock: Clock) -> None:
    wire = proxy(server)
    engine = twin(server, wire, pool_pre_ping=1.0)
    engine.select()
    clock.advance(1.0)
    wire.swallow_existing()
    assert engine.select() == 1
    assert stats(engine.engine).closed["ping"] == 1


def count_pings(engine: Sync) -> list[object]:
    seen: list[object] = []
    dialect: Any = engine.engine.dialect
    do_ping = dialect.do_ping

    def counted(connection: Any) -> Any:
        seen.append(connection)
        return do_ping(connection)

    dialect.do_ping = counted
    return seen


def test_a_driver_without_a_socket_falls_back_to_the_ping(tmp_path: Any) -> None:
    with running_engine(f"sqlite:///{tmp_path}/a.db", pool_pre_ping=True) as engine:
        for _ in range(3):
            with engine.connect():
                pass


# -- lifetime


def test_a_connection_ends_between_three_quarters_and_all_of_its_lifetime() -> None:
    now = time.monotonic()
    drawn = [expiry(100.0) - now for _ in range(200)]
    assert min(drawn) >= 100 * (1 - JITTER)
    assert max(drawn) < 101
    assert max(drawn) - min(drawn) > 15


def test_opening_a_connection_leaves_the_generator_of_the_application_alone(twin: Twin, server: Any) -> None:
    """Connections are opened at any time: an application that seeds `random` would get other numbers each time."""
    engine = twin(server, pool_recycle=600.0)
    before = random.getstate()
    engine.select()
    assert random.getstate() == before


def test_an_old_connection_is_replaced_at_checkout(twin: Twin, server: Any, clock: Clock) -> None:
    engine = twin(server, pool_recycle=600.0)
    before = me(engine)
    clock.advance(600.0)
    assert me(engine) != before
    assert stats(engine.engine).closed["recycled"] == 1


def test_a_connection_that_grew_old_in_use_is_closed_when_it_comes_back(twin: Twin, server: Any, clock: Clock) -> None:
    engine = twin(server, pool_recycle=600.0)
    connection = engine.connect()
    clock.advance(600.0)
    engine.close(connection)
    assert stats(engine.engine).idle == 0
    assert stats(engine.engine).closed["recycled"] == 1


def test_a_replaced_connection_has_a_life_of_its_own(twin: Twin, server: Any) -> None:
    """A caller that backdates SQLAlchemy's own clock reconnects at every checkout after one invalidation."""
    engine = twin(server, pool_recycle=60)
    connection = engine.connect()
    server.terminate(engine.execute(connection, ME[engine.engine.dialect.name]))
    with pytest.raises(exc.DBAPIError):
        engine.execute(connection, "SELECT 1")
    engine.close(connection)
    assert len({me(engine) for _ in range(10)}) == 1


# -- statistics


def test_the_statistics_tell_what_is_going_on(twin: Twin, server: Any) -> None:
    engine = twin(server, pool_size=2, max_overflow=1)
    held = [engine.connect() for _ in range(2)]
    now = stats(engine.engine)
    assert (now.name, now.size, now.max, now.used, now.idle, now.created) == ("testing/default", 2, 3, 2, 0, 2)
    for connection in held:
        engine.close(connection)
    now = stats(engine.engine)
    assert (now.used, now.idle, now.use.count, now.create.count) == (0, 2, 2, 2)
    assert now.create.sum > 0


def test_a_connection_that_was_closed_is_not_counted_as_idle(twin: Twin, server: Any) -> None:
    engine = twin(server)
    connection = engine.connect()
    server.terminate()
    with pytest.raises(exc.DBAPIError):
        engine.execute(connection, "SELECT 1")
    engine.close(connection)
    now = stats(engine.engine)
    assert (now.idle, now.used) == (0, 0)
    assert now.closed["invalidated"] == 1


def test_the_statistics_survive_a_dispose(twin: Twin, server: Any) -> None:
    engine = twin(server)
    engine.select()
    if isinstance(engine, Async):
        engine.runner.run(engine.async_engine.dispose())
    else:
        engine.engine.dispose()
    engine.select()
    now = stats(engine.engine)
    assert (now.created, now.use.count, now.idle) == (2, 2, 1)
    assert sum(now.closed.values()) == 1


def test_the_statistics_are_frozen(server: Any) -> None:
    with running_engine(url_of(server)) as engine:
        now = stats(engine)
        with pytest.raises(AttributeError):
            now.used = 3  # type: ignore[misc]  # that is the point
        with pytest.raises(TypeError):
            now.closed["idle"] = 3  # type: ignore[index]  # and this


# -- failover


def test_a_transaction_declared_read_only_is_no_failover(twin: Twin, postgresql: Any) -> None:
    engine = twin(postgresql)
    engine.select("CREATE TABLE nothing ()")
    before = me(engine)
    connection = engine.connect()
    engine.execute(connection, "SET TRANSACTION READ ONLY")
    with pytest.raises(exc.DBAPIError) as caught:
        engine.execute(connection, "CREATE TABLE t (n int)")
    engine.close(connection)
    assert not caught.value.connection_invalidated
    assert me(engine) == before


def test_a_read_only_engine_keeps_its_connections(twin: Twin, postgresql: Any) -> None:
    engine = twin(postgresql, read_only=True)
    before = me(engine)
    connection = engine.connect()
    engine.execute(connection, "SET default_transaction_read_only = on")
    engine.execute(connection, "COMMIT")
    with pytest.raises(exc.DBAPIError) as caught:
        engine.execute(connection, "CREATE TABLE t (n int)")
    engine.close(connection)
    assert not caught.value.connection_invalidated
    assert me(engine) == before


def test_a_demoted_primary_is_left_by_both_kinds_of_engine(twin: Twin, postgresql: Any) -> None:
    engine = twin(postgresql)
    before = me(engine)
    postgresql.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    postgresql.sql("SELECT pg_reload_conf()")
    try:

        def refused() -> bool:
            try:
                engine.select("CREATE TABLE t (n int)")
            except exc.DBAPIError as error:
                return error.connection_invalidated
            return False

        assert eventually(refused)
        assert me(engine) != before
    finally:
        postgresql.sql("ALTER SYSTEM RESET default_transaction_read_only")
        postgresql.sql("SELECT pg_reload_conf()")


# -- connects


def test_a_mute_server_is_given_up_by_both_kinds_of_engine(twin: Twin, server: Any, proxy: Any) -> None:
    wire = proxy(server)
    wire.mute_accept()
    engine = twin(server, wire, connect_timeout=1.0)
    with pytest.raises((exc.DBAPIError, OSError)):  # aiomysql and asyncpg raise a plain TimeoutError
        engine.select()


def test_a_long_statement_is_not_cut_by_the_time_limit_of_the_connect(server: Any) -> None:
    sleep = "SELECT pg_sleep(1.5)" if server.driver.startswith("postgres") else "SELECT sleep(1.5)"
    engine = Sync(server, connect_timeout=1.0)
    engine.select(sleep)
    engine.dispose()


def test_a_short_deadline_of_one_caller_does_not_shorten_the_connects_of_others(server: Any) -> None:
    engine = Sync(server, connect_timeout=20.0)
    seen: list[float] = []

    @event.listens_for(engine.engine, "do_connect")
    def spy(dialect: Any, record: Any, arguments: Any, parameters: dict[str, Any]) -> None:
        seen.append(parameters["connect_timeout"])

    engine.engine.pool._timeout = 2.0  # type: ignore[attr-defined]  # the first caller is in a hurry
    engine.select()
    engine.dispose()
    engine.engine.pool._timeout = 30.0  # type: ignore[attr-defined]  # the next is not
    engine.select()
    assert (round(seen[0]), round(seen[1])) == (2, 20)
    assert getattr(engine.engine.raw_connection().dbapi_connection, "_read_timeout", None) is None
    gc.collect()
    engine.dispose()


def test_psycopg_is_looked_at_asked_and_limited_as_psycopg2_is(postgresql: Any, clock: Clock) -> None:
    pytest.importorskip("psycopg")
    engine = engine_of(url_of(postgresql, driver="postgresql+psycopg"), pool_pre_ping=1.0)
    with engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        connection.commit()
    postgresql.terminate(before)
    clock.advance(ping.TRUST)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != before
    assert stats(engine).closed["ping"] == 1
    engine.dispose()


def test_new_connections_have_time_limits_against_half_open_sockets(twin: Twin, server: Any) -> None:
    import os
    import socket

    from dbconfig.engine.pool import sockets

    engine = twin(server)
    connection = engine.connect()
    raw = connection.sync_connection if engine.kind == "async" else connection
    fd = sockets.descriptor(raw.dialect, raw.connection.driver_connection)
    assert fd is not None
    with socket.socket(fileno=os.dup(fd)) as plug:
        assert plug.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == sockets.KEEPALIVE_IDLE
        assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
    engine.close(connection)


def test_pools_that_do_not_queue_take_no_arguments_of_a_queue() -> None:
    arguments = pool_arguments(Settings(poolclass="NullPool"), name="a/b", patient=True)
    assert arguments.keys() == {"poolclass"}


def test_the_behaviours_can_be_attached_to_a_pool_that_does_not_queue(tmp_path: Any) -> None:
    engine = engine_of(f"sqlite:///{tmp_path}/a.db", poolclass="StaticPool", pool_leak_warning=5.0)
    with engine.connect():
        assert stats(engine).used == 1
    assert stats(engine).max is None
    engine.dispose()
