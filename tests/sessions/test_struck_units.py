"""An interrupt at any point of a unit of work: it says what is committed, and the next unit is not lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import dbconfig.registry.registry
import dbconfig.sessions
from dbconfig import CommitUncertain, Profile, Registry
from dbconfig.engine import commit_guard
from dbconfig.sessions import nesting
from tests.support.drivers import DRIVERS, Driver, params, plain
from tests.support.strikes import Place, Strike, sweep

FILES = (
    str(Path(dbconfig.sessions.__file__).parent),
    str(dbconfig.registry.registry.__file__),
    str(commit_guard.__file__),
)

Write = Callable[[int], None]


def insertion(number: int) -> Any:
    return text(f"INSERT INTO t VALUES ({number})")


def of_threads(db: Registry, way: str) -> Write:
    def unit(number: int) -> None:
        db.run_in_transaction(lambda session: session.execute(insertion(number)))

    def block(number: int) -> None:
        with db.transaction() as session:
            session.execute(insertion(number))

    return unit if way == "unit" else block


def of_a_loop(db: Registry, way: str, runner: asyncio.Runner) -> Write:
    async def unit(number: int) -> None:
        await db.async_run_in_transaction(lambda session: session.exec(insertion(number)))

    async def block(number: int) -> None:
        async with db.async_transaction() as session:
            await session.exec(insertion(number))

    write = unit if way == "unit" else block
    return lambda number: runner.run(write(number))


@pytest.fixture(params=params(DRIVERS))
def driver(request: pytest.FixtureRequest) -> Driver:
    driver: Driver = request.param
    return driver


@pytest.fixture
def count(driver: Driver, request: pytest.FixtureRequest) -> Iterator[Callable[[int], int]]:
    """How often a number is in the table, by a driver that nobody strikes."""
    with Registry.from_profile(Profile(name="counting", url=plain(driver.server).url(request))) as db:
        with db.transaction() as session:
            session.execute(text("CREATE TABLE t (x INT)"))

        def look(number: int) -> int:
            with db.session() as session:
                found: int = session.scalar(text(f"SELECT count(*) FROM t WHERE x = {number}"))
            return found

        yield look


# A strike between the making of a coroutine and its `await` leaves it so; the interrupted code cannot prevent it.
@pytest.mark.filterwarnings("ignore:coroutine '[^']*' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("way", ["unit", "block"])
def test_a_unit_that_is_struck_says_what_is_committed_and_leaves_none_that_the_next_could_join(
    driver: Driver, way: str, count: Callable[[int], int], request: pytest.FixtureRequest
) -> None:
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(Registry.from_profile(Profile(name="struck", url=driver.url(request))))
        if driver.asynchronous:
            runner = stack.enter_context(asyncio.Runner())
            stack.callback(lambda: runner.run(db.async_dispose()))
        write = of_a_loop(db, way, runner) if driver.asynchronous else of_threads(db, way)

        known: set[Place] = set()

        def attempt(strike: Strike) -> bool:
            strike = Strike(strike.number, *FILES, known=known)
            struck, after = strike.number * 2, strike.number * 2 + 1
            fell, told = True, False
            try:
                fell = strike.during(lambda: write(struck))
            except CommitUncertain:
                told = True
            assert not any(found.alive for found in nesting.found().values()), strike
            rows = count(struck)
            told = told or any("COMMIT" in note for note in strike.notes)
            if strike.raised:
                assert told or not rows, f"{strike}: committed, and no caller knows"
            assert rows <= 1, strike
            write(after)
            assert count(after) == 1, f"{strike}: the next unit is lost"
            return fell

        write(0)  # what only the first use does is not struck
        points = sweep(attempt)
        print(f"{driver.name}, {way}: struck at {points} points")
        assert points > 40
