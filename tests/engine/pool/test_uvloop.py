"""The asynchronous pool on uvloop: what it promises on asyncio's own loop, by the same tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.drivers import ASYNCHRONOUS, Driver, params

from . import test_tasks
from .test_tasks import Engines

THE_SAME = [
    "test_waiters_are_served_in_the_order_of_arrival",
    "test_a_burst_makes_few_connections",
    "test_one_deadline_bounds_wait_connect_and_check",
    "test_what_rests_too_long_is_closed_down_to_pool_min_idle",
    "test_a_connection_that_died_while_it_rested_is_seen_without_a_round_trip",
    "test_a_connect_that_fails_hands_its_place_on",
    "test_cancellations_at_any_moment_lose_nothing",
    "test_a_close_that_never_ends_is_cut_off_and_a_second_cancellation_does_not_stop_it",
    "test_connections_in_use_at_dispose_close_when_they_come_back",
]


@pytest.mark.parametrize("driver", params(ASYNCHRONOUS))
@pytest.mark.parametrize("name", THE_SAME)
def test_the_pool_works_the_same_on_uvloop(
    name: str,
    driver: Driver,
    request: pytest.FixtureRequest,
    proxy: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uvloop = pytest.importorskip("uvloop")
    test = getattr(test_tasks, name)
    given = {
        "engines": Engines(request, driver, uvloop.new_event_loop),
        "proxy": proxy,
        "monkeypatch": monkeypatch,
        "seed": 0,
    }
    test(**{wanted: given[wanted] for wanted in inspect.signature(test).parameters})
