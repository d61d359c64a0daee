"""Units of work with each driver, in threads and in tasks: one test says what both do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlmodel import Session

from dbconfig import Profile, Registry
from tests.support.drivers import BY_NAME, of, plain

WITHOUT_TLS = "?ssl_disabled=true"  # PyMySQL needs 30 ms to prepare it for each connection

Work = Callable[[Session], Any]


@dataclass
class Units:
    """A driver, and how it runs a function of a (synchronous) session."""

    system: str
    asynchronous: bool
    url: str
    direct: str  # the same database, by a driver without asyncio
    settings: dict[str, Any] = field(default_factory=dict)

    def open(self, **settings: Any) -> Registry:
        return Registry.from_profile(Profile(name="units", url=self.url, **{**self.settings, **settings}))

    def run(self, work: Work, db: Registry | None = None, **how: Any) -> Any:
        """Run a unit of work."""
        with db or self.open() as opened:
            if not self.asynchronous:
                return opened.run_in_transaction(work, **how)
            return asyncio.run(_in_task(opened, lambda: opened.async_run_in_transaction(_awaiting(work), **how)))

    def transaction(self, work: Work) -> Any:
        """Run it in `transaction()`."""
        with self.open() as db:
            if not self.asynchronous:
                with db.transaction() as session:
                    return work(session)

            async def within() -> Any:
                async with db.async_transaction() as session:
                    return await session.run_sync(work)

            return asyncio.run(_in_task(db, within))

    def session(self, work: Work) -> Any:
        """Run it in `session()`, and commit."""
        with self.open() as db:
            if not self.asynchronous:
                with db.session() as session:
                    result = work(session)
                    session.commit()
                    return result

            async def within() -> Any:
                async with db.async_session() as session:
                    result = await session.run_sync(work)
                    await session.commit()
                    return result

            return asyncio.run(_in_task(db, within))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what a statement answers, past the library."""
        engine = create_engine(self.direct)
        try:
            with engine.begin() as connection:
                result = connection.execute(text(statement))
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()


def _awaiting(work: Work) -> Any:
    async def awaited(session: Any) -> Any:
        return await session.run_sync(work)

    return awaited


async def _in_task(db: Registry, work: Callable[[], Any]) -> Any:
    try:
        return await work()
    finally:
        await db.async_dispose()


def units_of(name: str, request: pytest.FixtureRequest) -> Units:
    driver = BY_NAME[name]
    direct = plain(driver.server).url(request) + (WITHOUT_TLS if driver.server == "mariadb" else "")
    return Units(driver.server or "sqlite", driver.asynchronous, driver.url(request), direct)


@pytest.fixture(params=BY_NAME)
def units(request: pytest.FixtureRequest) -> Units:
    """Each driver in turn, with a table `t (x INT)` in a fresh database."""
    found = units_of(request.param, request)
    found.sql("CREATE TABLE t (x INT)")
    return found


@pytest.fixture(params=[each.name for each in of("postgresql")])
def postgresql_units(request: pytest.FixtureRequest) -> Units:
    found = units_of(request.param, request)
    found.sql("CREATE TABLE t (x INT)")
    return found


@pytest.fixture(params=[each.name for each in of("mariadb")])
def mariadb_units(request: pytest.FixtureRequest) -> Units:
    found = units_of(request.param, request)
    found.sql("CREATE TABLE t (id INT PRIMARY KEY, x INT)")
    found.sql("INSERT INTO t VALUES (1, 0), (2, 0)")
    return found


@pytest.fixture(params=[each.name for each in of("")])
def sqlite_units(request: pytest.FixtureRequest) -> Units:
    found = units_of(request.param, request)
    found.sql("CREATE TABLE t (x INT PRIMARY KEY)")
    return found
