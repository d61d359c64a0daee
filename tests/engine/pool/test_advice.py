"""Advice about the size of a pool, from its counters alone."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from dbconfig import Profile, Registry
from dbconfig.engine.pool import Histogram, PoolStats
from dbconfig.engine.pool.advice import ENOUGH, advice
from dbconfig.engine.pool.tally import Tally
from tests.engine.pool.support import callers


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


def test_leaks_are_told(well: PoolStats) -> None:
    assert advice([replace(well, leaks=1)]) == [
        "shop: 1 connection was held for longer than pool_leak_warning, or never closed: the log of "
        "dbconfig.pool.leaks has the lines that took them"
    ]


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
