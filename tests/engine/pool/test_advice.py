"""Advice about the size of a pool, from its counters alone."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection

from dbconfig import Profile, Registry
from dbconfig.engine.pool import Histogram, PoolStats
from dbconfig.engine.pool.advice import ENOUGH, advice
from dbconfig.engine.pool.diagnostics.counters import MOST_PLACES, Ledger
from dbconfig.engine.pool.tally import Tally
from tests.engine.pool.support import callers, eventually, impatient
from tests.support.postgresql import PostgreSQLServer
from tests.support.proxy import Proxy


def histogram(*seconds: float, times: int = 1) -> Histogram:
    tally = Tally()
    for each in seconds:
        for _ in range(times):
            tally.observe(each)
    return Histogram(counts=tuple(tally.counts), sum=tally.sum)


@pytest.fixture
def well() -> PoolStats:
    """A pool that has served 1,000 checkouts, each for 10 ms, by 5 of 15 connections."""
    waits, uses = histogram(0.0, times=1000), histogram(0.01, times=1000)
    return PoolStats("shop", 5, 15, 5, 0, 0, 0, 5, {}, 0, 0, waits, uses, histogram(0.005, times=5))


def test_a_pool_that_is_well_gets_none(well: PoolStats) -> None:
    assert advice([well]) == []


def test_waits_say_how_many_connections_would_have_been_enough(well: PoolStats) -> None:
    late = histogram(*([0.02] * 200))
    found = replace(well, wait=histogram(*([0.0] * 800), *([0.02] * 200)), queued=late, wanted=60, unserved=3)
    assert advice([found]) == [
        "shop: too small: 200 of 1000 checkouts waited for 10 ms or longer, 20 ms on average, for one of 15 "
        "connections that are held for 10 ms; 3 got no connection. 45 connections would have been enough, or "
        "connections that are held for a shorter time"
    ]


def test_no_more_are_enough_than_were_ever_wanted(well: PoolStats) -> None:
    """What twelve clients want is twelve, however much longer they hold their connections while all come at once."""
    waits = histogram(*([0.0] * 800), *([0.2] * 200))
    (line,) = advice([replace(well, max=6, wait=waits, queued=histogram(*([0.2] * 200)), wanted=12)])
    assert "12 connections would have been enough" in line


def test_who_waits_for_a_connect_or_for_a_server_that_is_away_says_nothing_about_the_size(well: PoolStats) -> None:
    assert advice([replace(well, wait=histogram(*([0.0] * 800), *([0.2] * 200)), timeouts=40, refused=7)]) == []


def test_callers_that_are_turned_away_at_once_are_counted(well: PoolStats) -> None:
    assert advice([replace(well, refused=40, unserved=40, wanted=16)]) == [
        "shop: too small: 40 callers were rejected while all 15 connections were in use, which are held for 10 ms; "
        "up to 16 were wanted at the same time"
    ]


def test_few_checkouts_say_nothing(well: PoolStats) -> None:
    waits = histogram(1.0, times=ENOUGH - 1)
    assert advice([replace(well, wait=waits, queued=waits, size=400)]) == []


def test_a_pool_that_never_needed_its_size_is_larger_than_needed(well: PoolStats) -> None:
    assert advice([replace(well, size=20)]) == [
        "shop: larger than needed: pool_size is 20, and no more than 5 connections were ever opened in 1000 checkouts"
    ]


def test_recycling_that_closes_many_is_told(well: PoolStats) -> None:
    found = replace(well, closed={"recycled": 300}, created=305)
    assert advice([found]) == [
        "shop: pool_recycle is short: 300 connections were closed because of their age in 1000 checkouts, and each "
        "takes 5 ms to open"
    ]


def test_connections_that_were_held_are_named_by_the_lines_that_took_them(well: PoolStats) -> None:
    places = {"app/jobs.py:41 in rebuild": 3, "app/a.py:1 in a": 1, "app/b.py:2 in b": 1, "app/c.py:3 in c": 1}
    found = replace(well, leaks=6, held_at=places, idle_at={"app/jobs.py:41 in rebuild": 3})
    assert advice([found]) == [
        "shop: 3 connections were idle in transaction for longer than pool_leak_warning: 3 taken at app/jobs.py:41 in "
        "rebuild. Commit before waiting for anything other than the database",
        "shop: 3 connections were held for longer than pool_leak_warning, or never closed: 1 taken at app/a.py:1 in a, "
        "1 taken at app/b.py:2 in b, 1 taken at app/c.py:3 in c",
    ]
    several = {f"app/{number}.py:1 in f": 1 for number in range(5)}
    assert advice([replace(well, leaks=5, held_at=several)])[0].endswith(", and 2 elsewhere")


def test_a_server_without_a_free_connection_is_named(well: PoolStats) -> None:
    assert advice([replace(well, server_full=2)]) == [
        "shop: the server had no connection left for 2 connects of this pool, which is one of up to 15 per process: "
        "`dbconfig check --workers N --replicas M` computes what fits"
    ]


@pytest.mark.parametrize("poolclass", [None, "QueuePool"])
def test_who_is_idle_in_transaction_is_seen_and_who_waits_for_the_server_is_not(
    postgresql: PostgreSQLServer, poolclass: str | None
) -> None:
    profile = Profile(name="held", url=postgresql.url(), pool_leak_warning=0.2, poolclass=poolclass)
    with Registry.from_profile(profile) as db:
        with db.session() as session:
            session.execute(text("SELECT pg_sleep(1.5)"))
        assert db.stats().leaks == 1
        assert not db.stats().idle_at
        with db.session() as session:
            session.execute(text("SELECT 1"))
            assert eventually(lambda: db.stats().leaks == 2)
        ((place, count),) = db.stats().idle_at.items()
        assert place.startswith("tests/engine/pool/test_advice.py:")
        assert count == 1
        assert sum(db.stats().held_at.values()) == 2
        line = next(each for each in db.advice() if "idle in transaction" in each)
        assert f"1 taken at {place}. Commit" in line


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_the_same_of_tasks(postgresql: PostgreSQLServer, driver: str) -> None:
    profile = Profile(name="held", url=postgresql.url(f"postgresql+{driver}"), pool_leak_warning=0.2)

    async def main() -> None:
        async with Registry.from_profile(profile) as db:
            async with db.async_session() as session:
                await (await session.connection()).execute(text("SELECT pg_sleep(1.5)"))
            assert db.stats().leaks == 1
            assert not db.stats().idle_at
            async with db.async_session() as session:
                await (await session.connection()).execute(text("SELECT 1"))
                while db.stats().leaks < 2:
                    await asyncio.sleep(0.01)
            assert sum(db.stats().idle_at.values()) == 1

    asyncio.run(asyncio.wait_for(main(), 60))


def test_connects_for_which_the_server_had_none_left_are_counted(postgresql: PostgreSQLServer) -> None:
    postgresql.create_user("crowded", "app-secret")
    postgresql.sql("ALTER ROLE crowded CONNECTION LIMIT 1")
    profile = Profile(name="full", url=postgresql.url(user="crowded", password="app-secret"), pool_timeout=20.0)
    with Registry.from_profile(profile) as db, db.engine().connect():
        with callers(1) as call:
            waiting = call(db.engine().connect)
            assert eventually(lambda: db.stats().server_full >= 1)
            postgresql.sql("ALTER ROLE crowded CONNECTION LIMIT 5")
            waiting.result(60).close()
        assert any("the server had no connection left for" in line for line in db.advice())


def test_a_pool_under_load_gets_advice_which_is_logged_at_its_end(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dbconfig.advice")
    url = f"sqlite:///{tmp_path}/a.db"
    with Registry.from_profile(Profile(name="busy", url=url, pool_size=1, max_overflow=0, pool_timeout=60)) as db:

        def hold() -> None:
            for _ in range(ENOUGH // 8 + 1):
                with db.engine().connect():
                    time.sleep(0.005)  # the load itself, and no wait for an event

        with callers(8) as call:
            for each in [call(hold) for _ in range(8)]:
                each.result(60)
        (line,) = db.advice()
    assert line.startswith("busy: too small: ")
    (record,) = [each for each in caplog.records if each.name == "dbconfig.advice"]
    assert record.getMessage() == line
    assert record.pool == "busy"  # type: ignore[attr-defined]


# Pools under loads, in threads and in tasks


def load(db: Registry, kind: str, clients: int, *, hold: float = 0.0, spoil: bool = False) -> tuple[Any, list[str]]:
    """Let clients take connections, `ENOUGH` times together; return the statistics and the advice."""
    rounds = ENOUGH // clients + 1
    if kind == "sync":

        def client() -> None:
            for _ in range(rounds):
                with db.engine().connect() as connection:
                    time.sleep(hold)  # the load itself, and no wait for an event
                    if spoil:
                        connection.invalidate()

        with callers(clients) as call:
            for each in [call(client) for _ in range(clients)]:
                each.result(120)
        return db.stats(), db.advice()

    async def task() -> None:
        for _ in range(rounds):
            async with db.async_engine().connect() as connection:
                await asyncio.sleep(hold)
                if spoil:
                    await connection.invalidate()

    async def main() -> tuple[Any, list[str]]:
        await asyncio.gather(*(task() for _ in range(clients)))
        found = db.all_stats()[0], db.advice()
        await db.async_dispose()
        return found

    return asyncio.run(asyncio.wait_for(main(), 120))


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "async":
        pytest.importorskip("aiosqlite")
    return str(request.param)


def opened(tmp_path: Any, size: int, **settings: Any) -> Registry:
    url = f"sqlite:///{tmp_path}/load.db"
    return Registry.from_profile(
        Profile(name="load", url=url, pool_size=size, max_overflow=0, pool_timeout=60, **settings)
    )


def test_a_pool_with_a_connection_for_each_client_gets_no_advice(kind: str, tmp_path: Any) -> None:
    with opened(tmp_path, 4) as db:
        stats, said = load(db, kind, 4, hold=0.01)
    assert said == []
    assert (stats.queued.count, stats.unserved, stats.wanted) == (0, 0, 0)


def test_a_pool_that_is_too_small_is_told_no_more_than_there_were_clients(kind: str, tmp_path: Any) -> None:
    with opened(tmp_path, 2) as db:
        stats, (line,) = load(db, kind, 8, hold=0.02)
    assert "too small: " in line
    assert stats.wanted == 8
    found = re.search(r"for one of 2 connections .* (\d+) connections would have been enough", line)
    assert found is not None
    assert 3 <= int(found[1]) <= 8


def test_a_pool_that_is_too_large_is_told_what_it_needed(kind: str, tmp_path: Any) -> None:
    with opened(tmp_path, 20) as db:
        _, (line,) = load(db, kind, 1)
    assert "larger than needed: pool_size is 20, and no more than 1 connection was ever opened in 101 checkouts" in line


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_connects_that_take_long_are_no_reason_for_a_larger_pool(kind: str, postgresql: PostgreSQLServer) -> None:
    with Proxy(postgresql.host, postgresql.port) as proxy:
        proxy.delay(0.01)
        url = postgresql.url("postgresql+psycopg", host=proxy.host, port=proxy.port)
        profile = Profile(name="load", url=url, pool_size=4, max_overflow=0, pool_timeout=60)
        with Registry.from_profile(profile) as db:
            stats, said = load(db, kind, 3, spoil=True)
    assert sum(stats.wait.counts[3:]) > ENOUGH // 2  # those of more than 10 ms
    assert said == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_callers_whom_a_server_that_is_away_keeps_waiting_are_no_reason_either(
    kind: str, postgresql: PostgreSQLServer
) -> None:
    with Proxy(postgresql.host, postgresql.port) as proxy:
        url = postgresql.url("postgresql+psycopg", host=proxy.host, port=proxy.port)
        profile = Profile(name="load", url=url, pool_size=1, max_overflow=0)
        with Registry.from_profile(profile) as db:

            def ask() -> None:
                with pytest.raises(DBAPIError), db.engine().connect():
                    raise AssertionError

            async def ask_in_task() -> None:
                with pytest.raises(DBAPIError):
                    async with db.async_engine().connect():
                        raise AssertionError

            async def main() -> PoolStats:
                async with db.async_engine().connect() as connection:
                    await connection.invalidate()
                impatient(db.async_engine(), 0.3)
                proxy.refuse()
                await asyncio.gather(*(ask_in_task() for _ in range(4)))
                stats = db.all_stats()[0]
                await db.async_dispose()
                return stats

            if kind == "async":
                stats = asyncio.run(asyncio.wait_for(main(), 60))
            else:
                with db.engine().connect() as connection:
                    connection.invalidate()
                impatient(db.engine(), 0.3)
                proxy.refuse()
                with callers(4) as call:
                    for each in [call(ask) for _ in range(4)]:
                        each.result(60)
                stats = db.stats()
    assert stats.timeouts + stats.refused > 0
    assert (stats.unserved, stats.queued.count, stats.wanted) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_callers_that_a_full_pool_does_not_serve_are_counted(kind: str, tmp_path: Any) -> None:
    if kind == "async":
        pytest.importorskip("aiosqlite")
    profile = Profile(name="load", url=f"sqlite:///{tmp_path}/a.db", pool_size=1, max_overflow=0, pool_max_waiting=1)
    with Registry.from_profile(profile) as db:

        def ask() -> None:
            with pytest.raises(NoConnection), db.engine().connect():
                raise AssertionError

        async def ask_in_task() -> None:
            with pytest.raises(NoConnection):
                async with db.async_engine().connect():
                    raise AssertionError

        async def main() -> PoolStats:
            async with db.async_engine().connect():
                impatient(db.async_engine(), 0.1)
                await asyncio.gather(*(ask_in_task() for _ in range(3)))
                return db.all_stats()[0]

        if kind == "async":
            stats = asyncio.run(asyncio.wait_for(main(), 60))
        else:
            with db.engine().connect(), callers(3) as call:
                impatient(db.engine(), 0.1)
                for each in [call(ask) for _ in range(3)]:
                    each.result(60)
            stats = db.stats()
    assert stats.timeouts + stats.refused == stats.unserved == 3
    assert stats.queued.count == stats.timeouts
    assert stats.wanted in (2, 3)


def test_places_beyond_those_that_are_counted_and_unknown_ones_are_part_of_the_sum(tmp_path: Any) -> None:
    ledger = Ledger("shop")
    for number in range(MOST_PLACES + 5):
        ledger.count_leak(f"app/{number}.py:1 in f", idle=True)
    ledger.count_leak(None, idle=True)
    ledger.count_leak(None, idle=True)
    assert ledger.leaks == sum(ledger.idle_at.values()) == sum(ledger.held_at.values()) == MOST_PLACES + 7
    assert ledger.idle_at["other places"] == 7
    unknown = Ledger("shop")
    unknown.count_leak(None, idle=True)
    assert unknown.idle_at == {"an unknown place": 1}


def test_who_is_idle_in_transaction_at_an_unknown_place_is_not_told_to_be_busy(well: PoolStats) -> None:
    ledger = Ledger("shop")
    ledger.count_leak(None, idle=True)
    (line,) = advice([replace(well, leaks=1, held_at=ledger.held_at, idle_at=ledger.idle_at)])
    assert line.startswith("shop: 1 connection was idle in transaction for longer")
    assert "1 taken at an unknown place" in line


def test_from_how_many_on_figures_say_something(well: PoolStats) -> None:
    uses = histogram(0.01, times=ENOUGH)
    late = replace(well, wait=histogram(0.02, times=ENOUGH), queued=histogram(0.02, times=ENOUGH), use=uses)
    assert len(advice([late])) == 1
    assert len(advice([replace(well, wait=histogram(0.0, times=ENOUGH), use=uses, size=4 * 5)])) == 1
    assert advice([replace(well, wait=histogram(0.0, times=ENOUGH), use=uses, size=4 * 5 - 1)]) == []
    assert len(advice([replace(well, closed={"recycled": 20}, use=histogram(0.01, times=200))])) == 1
    assert advice([replace(well, closed={"recycled": 20}, use=histogram(0.01, times=201))]) == []
    assert advice([replace(well, closed={"recycled": 19}, use=uses)]) == []
    assert advice([replace(well, closed={"recycled": 20}, use=histogram(0.01, times=ENOUGH - 1))]) == []
    assert advice([replace(well, size=5, created=1)]) == []  # what it is without `pool_size`
    assert len(advice([replace(well, size=6, created=1)])) == 1
