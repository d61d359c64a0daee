"""Advice about the size of a pool, from its counters alone."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from dbconfig.engine.pool import Histogram, PoolStats
from dbconfig.engine.pool.advice import ENOUGH, advice
from dbconfig.engine.pool.tally import Tally
from tests.engine.pool.support import callers, eventually
from tests.support.postgresql import PostgreSQLServer


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
    found = replace(well, wait=histogram(*([0.0] * 800), *([0.02] * 200)), timeouts=3)
    assert advice([found]) == [
        "shop: too small: 200 of 1000 checkouts waited for 10 ms or longer, 20 ms on average, for one of 15 "
        "connections that are held for 10 ms; 3 got no connection. 45 connections would have been enough, or "
        "connections that are held for a shorter time"
    ]


def test_few_checkouts_say_nothing(well: PoolStats) -> None:
    assert advice([replace(well, wait=histogram(1.0, times=ENOUGH - 1), size=400)]) == []


def test_a_pool_that_never_needed_its_size_is_larger_than_needed(well: PoolStats) -> None:
    assert advice([replace(well, size=20)]) == [
        "shop: larger than needed: pool_size is 20, and no more than 5 connections were ever opened in 1000 checkouts"
    ]


def test_recycling_that_closes_many_is_told(well: PoolStats) -> None:
    found = replace(well, closed={"recycled": 300}, created=305)
    assert advice([found]) == [
        "shop: pool_recycle is short: 300 connections were closed for their age in 1000 checkouts, and each takes 5 ms "
        "to open"
    ]


def test_connections_that_were_held_are_named_by_the_lines_that_took_them(well: PoolStats) -> None:
    places = {"app/jobs.py:41 in rebuild": 3, "app/a.py:1 in a": 1, "app/b.py:2 in b": 1, "app/c.py:3 in c": 1}
    found = replace(well, leaks=6, held_at=places, idle_at={"app/jobs.py:41 in rebuild": 3})
    assert advice([found]) == [
        "shop: 3 connections were idle in transaction for longer than pool_leak_warning: 3 taken at app/jobs.py:41 in "
        "rebuild. Commit before waiting for anything else than the database",
        "shop: 3 connections were held for longer than pool_leak_warning, or never closed: 1 taken at app/a.py:1 in a, "
        "1 taken at app/b.py:2 in b, 1 taken at app/c.py:3 in c",
    ]
    assert advice([replace(well, leaks=1)]) == [
        "shop: 1 connection was held for longer than pool_leak_warning, or never closed: taken at an unknown place"
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


def test_from_how_many_on_figures_say_something(well: PoolStats) -> None:
    uses = histogram(0.01, times=ENOUGH)
    late = replace(well, wait=histogram(0.02, times=ENOUGH), use=uses)
    assert len(advice([late])) == 1
    assert len(advice([replace(well, wait=histogram(0.0, times=ENOUGH), use=uses, size=4 * 5)])) == 1
    assert advice([replace(well, wait=histogram(0.0, times=ENOUGH), use=uses, size=4 * 5 - 1)]) == []
    assert len(advice([replace(well, closed={"recycled": 20}, use=histogram(0.01, times=200))])) == 1
    assert advice([replace(well, closed={"recycled": 20}, use=histogram(0.01, times=201))]) == []
    assert advice([replace(well, closed={"recycled": 19}, use=uses)]) == []
