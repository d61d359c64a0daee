"""What is counted, by the counters themselves; and when the end of a connection's life is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, exc
from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool import lifetime
from dbconfig.engine.pool.chance import chance
from dbconfig.engine.pool.tally import BOUNDS, Counters, Past, Tally


def test_a_time_belongs_to_the_first_bound_that_it_does_not_exceed() -> None:
    tally = Tally()
    for seconds in (0.0, 0.001, 0.0011, 0.005, 10.0, 10.1, 99.0):
        tally.observe(seconds)
    assert tally.counts == [2, 2, 0, 0, 0, 0, 0, 0, 1, 2]
    assert tally.sum == pytest.approx(119.1071)
    assert list(BOUNDS) == sorted(BOUNDS)


def test_the_most_that_were_wanted_at_the_same_time_are_remembered() -> None:
    counters = Counters()
    assert not counters.is_full_for(waiting=7, in_use=1, limit=2)
    assert counters.wanted == 0
    assert counters.is_full_for(waiting=1, in_use=2, limit=2)
    assert counters.wanted == 4
    assert counters.is_full_for(waiting=0, in_use=2, limit=2)
    assert counters.wanted == 4


def test_callers_that_get_nothing_are_counted_by_why() -> None:
    counters = Counters()
    counters.refuse(full=True)
    counters.refuse(full=False)
    assert (counters.refused, counters.unserved, counters.timeouts) == (2, 1, 0)
    counters.expire(2.0, queued=True)
    counters.expire(3.0, queued=False)
    assert (counters.refused, counters.unserved, counters.timeouts) == (2, 2, 2)
    assert (counters.wait.sum, counters.queued.sum) == (5.0, 2.0)
    counters.waited(0.5, queued=True)
    assert (counters.wait.sum, counters.queued.sum, counters.timeouts) == (5.5, 2.5, 2)


def full(number: int) -> Counters:
    counters = Counters()
    for tally in (counters.wait, counters.queued, counters.use, counters.create):
        for _ in range(number):
            tally.observe(float(number))
    for _ in range(number):
        counters.count_closed("idle")
    counters.count_closed(f"only {number}")
    counters.at_once = counters.wanted = counters.timeouts = counters.refused = counters.unserved = number
    return counters


def test_what_several_pools_have_counted_is_added_up() -> None:
    counters, other = full(2), full(3)
    counters.add(other)
    for name in ("wait", "queued", "use", "create"):
        tally = getattr(counters, name)
        assert tally.counts == [0, 0, 0, 0, 0, 0, 0, 5, 0, 0]
        assert tally.sum == 13.0
    assert counters.closed == {"idle": 5, "only 2": 1, "only 3": 1}
    assert (counters.at_once, counters.timeouts, counters.refused, counters.unserved) == (5, 5, 5, 5)
    assert counters.wanted == 3  # the most at the same time, not the sum
    assert other.closed == {"idle": 3, "only 3": 1}


class Pool:
    def __init__(self, number: int) -> None:
        self.counters = full(number)
        self.over = False

    def is_over(self) -> bool:
        return self.over


def test_the_past_of_an_engine_is_added_up_as_soon_as_it_is_over() -> None:
    first, second, third = Pool(1), Pool(2), Pool(3)
    past = Past().and_of(first).and_of(second)
    assert [counters.timeouts for counters in past.counters()] == [0, 1, 2]
    first.counters.timeouts += 10  # it is still in use
    first.over = True
    later = past.and_of(third)
    assert [counters.timeouts for counters in later.counters()] == [11, 2, 3]
    assert [counters.timeouts for counters in past.counters()] == [0, 11, 2]
    del second
    assert [counters.timeouts for counters in later.and_of(third).counters()] == [13, 3, 3]


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 100.0), (0.5, 87.5), (1.0, 75.0)])
def test_a_connection_lives_up_to_a_quarter_less_than_it_may(
    monkeypatch: pytest.MonkeyPatch, drawn: float, seconds: float
) -> None:
    monkeypatch.setattr(chance, "random", lambda: drawn)
    monkeypatch.setattr(lifetime, "monotonic", lambda: 1000.0)
    assert lifetime.expiry(100.0) == 1000.0 + seconds


def test_in_a_pool_of_sqlalchemys_a_connection_ends_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(lifetime, "monotonic", lambda: now[0])
    monkeypatch.setattr(lifetime, "expiry", lambda seconds: now[0] + seconds)
    engine = create_engine("sqlite://", poolclass=QueuePool)
    lifetime.attach(engine, 60.0)

    def use(at: float = 0.0) -> Any:
        with engine.connect() as connection:
            found = connection.connection.dbapi_connection
            now[0] = at or now[0]
        return found

    first = use()
    now[0] = 1059.9
    assert use() is first
    now[0] = 1060.0  # found at checkout
    second = use()
    assert second is not first
    third = use(at=1120.0)  # found at checkin
    assert third is second
    assert use() is not second
    record = SimpleNamespace(info={})
    (checkout,) = engine.pool.dispatch.checkout
    checkout(None, record, None)  # a connection that was made before: it has no end
    record.info["dbconfig.expires"] = now[0]
    with pytest.raises(exc.DisconnectionError, match="older than pool_recycle"):
        checkout(None, record, None)
    assert record.info["dbconfig.reason"] == "recycled"
    engine.dispose()
