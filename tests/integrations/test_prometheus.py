"""Prometheus: every series from the start, read at the scrape, with the names that OpenTelemetry's exporters write."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from dbconfig.engine.pool import stats

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from dbconfig.integrations.figures import FIGURES, nothing, total  # noqa: E402
from dbconfig.integrations.prometheus import Collector, register  # noqa: E402

POOL = "db_client_connection_pool_name"


@pytest.fixture
def db(tmp_path: Any) -> Iterator[Registry]:
    facts = {"url": f"sqlite:///{tmp_path}/facts.db", "max_overflow": -1}
    profile = Profile(name="shop", url=f"sqlite:///{tmp_path}/shop.db", pool_size=2, databases={"facts": facts})
    with Registry.from_profile(profile) as made:
        yield made


def scraped(db: Registry | Collector) -> dict[str, float]:
    """Return the samples of a scrape, by `name{values of its labels}`."""
    into = prometheus_client.CollectorRegistry()
    into.register(db) if isinstance(db, Collector) else register(db, into=into)
    exposition = prometheus_client.generate_latest(into).decode()
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def test_every_series_is_there_from_the_start_without_an_engine(db: Registry) -> None:
    found = scraped(db)
    assert db.all_stats() == []
    assert found["db_client_connection_max{shop}"] == 12
    assert "db_client_connection_max{shop/facts}" not in found  # it has no limit
    assert found["db_client_connection_count{shop/facts,used}"] == 0
    assert found["db_client_connection_wait_time_seconds_count{shop}"] == 0
    assert found["dbconfig_transaction_retries_total{shop,conflict}"] == 0
    for figure in FIGURES:
        if "primary" in figure.roles:
            assert any(key.startswith(figure.name.replace(".", "_")) for key in found), figure.name


def test_a_second_call_registers_nothing_a_second_time(db: Registry) -> None:
    """As an application's factory does that is called twice; Prometheus refuses a scrape that has a series twice."""
    into = prometheus_client.CollectorRegistry()
    collector = register(db, into=into)
    assert register(db, into=into) is collector
    lines = prometheus_client.generate_latest(into).decode().splitlines()
    assert len([each for each in lines if each.startswith("db_client_connection_max{")]) == 1
    into.unregister(collector)
    register(db, into=into)
    assert "db_client_connection_max" in prometheus_client.generate_latest(into).decode()
    other = prometheus_client.CollectorRegistry()
    assert register(db, into=other) is not collector


def test_what_happens_is_read_at_the_scrape(db: Registry) -> None:
    collector = Collector(db)
    for _ in range(3):
        with db.session() as session:
            session.execute(text("SELECT 1"))
    with db.session() as session:
        session.execute(text("SELECT 1"))
        found = scraped(collector)
    (now,) = db.all_stats()
    assert found["db_client_connection_count{shop,used}"] == 1
    assert found["db_client_connection_wait_time_seconds_count{shop}"] == now.wait.count == 4
    assert found["db_client_connection_wait_time_seconds_bucket{shop,+Inf}"] == 4
    assert found["db_client_connection_wait_time_seconds_sum{shop}"] == pytest.approx(now.wait.sum)
    assert found["db_client_connection_use_time_seconds_count{shop}"] == 3


def test_the_pools_of_all_event_loops_are_one_whose_counters_stay(db: Registry) -> None:
    pytest.importorskip("aiosqlite")
    collector = Collector(db)

    async def work() -> None:
        async with db.async_session() as session:
            await session.scalar(text("SELECT 1"))
        scraped(collector)

    for number in range(1, 4):
        asyncio.run(work())
        gc.collect()
        found = scraped(collector)
        assert found["db_client_connection_wait_time_seconds_count{shop (asyncio)}"] == number
        assert found["db_client_connection_count{shop (asyncio),idle}"] == 0


def test_a_replica_whose_lag_nobody_knows_has_a_series_without_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = replace(nothing("shop/replica1"), role="replica", max=5, number=1)
    with Registry.from_profile(Profile(name="shop", url="sqlite://")) as db:
        monkeypatch.setattr(
            db, "all_stats", lambda: [replica, replace(replica, name="shop/replica2", lag=3.5, out="ill", number=2)]
        )
        found = scraped(db)
    assert found["dbconfig_replica_lag_seconds{shop/replica1}"] != found["dbconfig_replica_lag_seconds{shop/replica1}"]
    assert found["dbconfig_replica_lag_seconds{shop/replica2}"] == 3.5
    assert found["dbconfig_replica_out_of_rotation{shop/replica1}"] == 0
    assert found["dbconfig_replica_out_of_rotation{shop/replica2}"] == 1
    assert found["dbconfig_replica_reads_total{shop/replica1}"] == 0
    assert "dbconfig_failovers_total{shop/replica1}" not in found


def test_two_pools_of_one_name_are_added_up(db: Registry) -> None:
    with db.session() as session:
        session.execute(text("SELECT 1"))
    one = stats(db.engine())
    both = total(one, replace(one, closed={"idle": 2}, retries={"lost": 1}))
    assert (both.created, both.wait.count, both.max, both.idle) == (2, 2, 24, 2)
    assert both.closed == {"idle": 2}
    assert both.retries == {"lost": 1}
    assert both.use.sum == 2 * one.use.sum
