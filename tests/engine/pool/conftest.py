"""Engines of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.engine.pool.twins import Async, Stock, Sync
from tests.engine.pool.worlds import WORLDS, World, opener


@pytest.fixture(params=["sync", "stock", "async"])
def twin(request: pytest.FixtureRequest) -> Iterator[Callable[..., Sync]]:
    """Make engines, of one kind in each run of the test: ours, QueuePool by name, async; disposed of afterwards."""
    made: list[Sync] = []
    kinds: dict[str, type[Sync]] = {"sync": Sync, "stock": Stock, "async": Async}

    def make(server: Any, at: Any = None, **settings: Any) -> Sync:
        made.append(kinds[request.param](server, at, **settings))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name == "other tasks" else ()) for name in WORLDS])
def world(request: pytest.FixtureRequest) -> World:
    """Open an engine of threads, or of tasks: `with world(server, proxy, pool_size=2) as opened`."""
    return opener(WORLDS[request.param])
