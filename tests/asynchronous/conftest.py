"""A registry for each asynchronous driver, on a fresh database."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbconfig import Profile, Registry

DRIVERS = {
    "sqlite-file": ("sqlite", "sqlite+aiosqlite", "aiosqlite"),
    "sqlite-memory": ("sqlite", "sqlite+aiosqlite", "aiosqlite"),
    "asyncpg": ("postgresql", "postgresql+asyncpg", "asyncpg"),
    "psycopg": ("postgresql", "postgresql+psycopg", "psycopg"),
    "asyncmy": ("mariadb", "mysql+asyncmy", "asyncmy"),
    "aiomysql": ("mariadb", "mysql+aiomysql", "aiomysql"),
}


@pytest.fixture(params=list(DRIVERS))
def driver(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(DRIVERS[request.param][2])
    return str(request.param)


@pytest.fixture
def url(driver: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; for a server with the driver in it."""
    system, drivername, _ = DRIVERS[driver]
    if system == "sqlite":
        return "sqlite://" if driver.endswith("memory") else f"sqlite:///{tmp_path / 'app.db'}"
    return str(request.getfixturevalue(system).url(drivername))


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    pool = {} if url == "sqlite://" else {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5}
    with Registry.from_profile(Profile(name="tests", url=url, **pool)) as made:
        yield made
    gc.collect()  # a connection that was forgotten warns now, in the test that forgot it


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in a loop of its own; whatever the loop leaves open warns, and fails the test."""

    def runner(work: Coroutine[Any, Any, Any]) -> Any:
        result = asyncio.run(asyncio.wait_for(work, 60))
        gc.collect()
        return result

    return runner
