"""A registry's `dispose()` without a limit of time: what is in use closes when it is returned, with every pool."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from dbconfig.engine import create
from tests.support.drivers import DRIVERS
from tests.worlds import World, worlds


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(request.param, request, tmp_path)
    gc.disable()  # the collector would close what a pool has kept
    try:
        yield made
        made.end()
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [None, "QueuePool"])
@worlds(DRIVERS)
def test_a_connection_in_use_closes_when_it_is_returned_and_its_engine_goes_on(world: World, kind: str | None) -> None:
    if world.is_async:
        create.check_version()
    db = world.open(**({} if kind is None else {"poolclass": kind}))
    closed: list[Any] = []
    kept: list[Any] = []

    if world.runner is None:
        engine = db.engine()
        _count_closes(engine, closed)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            kept.append(engine.pool)
            db.dispose()
            assert closed == []
        assert len(closed) == 1
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
    else:

        async def main() -> None:
            engine = db.async_engine()
            _count_closes(engine.sync_engine, closed)
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                kept.append(engine.pool)
                await db.async_dispose()
                assert closed == []
            assert len(closed) == 1
            for _ in range(2):
                async with engine.connect() as connection:
                    assert await connection.scalar(text("SELECT 1")) == 1

        world.loop(main())
    assert len(closed) == 1  # its new pool keeps its connection


def _count_closes(engine: Any, closed: list[Any]) -> None:
    for name in ("close", "close_detached"):
        event.listen(engine, name, lambda connection, *_: closed.append(connection))
