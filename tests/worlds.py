"""A registry of each driver, synchronous or not, with the same few verbs, so that each behaviour is tested in both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import DeadlineExceeded, Profile, Registry
from tests.support.drivers import Driver, params
from tests.support.proxy import Proxy

FOREVER = {
    "postgresql": "SELECT pg_sleep(600)",
    "mariadb": "SELECT SLEEP(600)",
    "": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
}
RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'",
}
# Without a deadline each of these tests would take 60 s at least.
LONG = 60.0


class World:
    """A registry of one driver, in a thread or in an event loop."""

    def __init__(self, driver: Driver, request: pytest.FixtureRequest, folder: Path) -> None:
        pytest.importorskip(driver.module)
        self.drivername, self.is_async = driver.scheme, driver.asynchronous
        self.kind = kind = driver.server
        self.server: Any = request.getfixturevalue(kind) if kind else None
        self.file = folder / "app.db"
        self.forever = FOREVER[kind]
        self.runner = asyncio.Runner() if self.is_async else None
        self.made: list[Registry] = []

    def open(self, at: Proxy | None = None, *, port: int | None = None, **settings: Any) -> Registry:
        if self.server is None:
            url = f"{self.drivername}:///{self.file}"
        else:
            place = {} if at is None and port is None else {"port": port or at.port}  # type: ignore[union-attr]
            url = str(self.server.url(self.drivername, **place))
        settings = {"pool_size": 1, "max_overflow": 0, "pool_timeout": LONG, **settings}
        if self.kind == "mariadb":
            settings["sslmode"] = "disable"
        self.made.append(Registry.from_profile(Profile(name="tests", url=url, **settings)))
        return self.made[-1]

    def run(
        self, work: Callable[[Any], Any], db: Registry, *, transaction: bool = False, read_only: bool = False
    ) -> Any:
        """Call a function of a session's `do`, which executes a statement and returns its value."""
        if self.runner is None:
            with db.transaction() if transaction else db.session(read_only=read_only) as session:
                return work(Doing(session))

        async def main() -> Any:
            from sqlalchemy.util import greenlet_spawn

            opened = db.async_transaction() if transaction else db.async_session(read_only=read_only)
            async with opened as session:
                return await greenlet_spawn(work, Doing(session.sync_session))

        return self.loop(main())

    def loop(self, work: Any) -> Any:
        assert self.runner is not None
        return self.runner.run(work, context=copy_context())  # otherwise a runner has a context of its own

    def turn(self) -> bool:
        """Let the event loop, if there is one, go on for a moment."""
        if self.runner is not None:
            self.loop(asyncio.sleep(0.01))
        return True

    def created(self, db: Registry) -> int:
        return sum(stats.created for stats in db.all_stats())

    def do(self, db: Registry, statement: str = "SELECT 1") -> Any:
        return self.run(lambda session: session(statement), db)

    def fails(self, db: Registry, seconds: float, statement: str = "SELECT 1", **how: Any) -> DeadlineExceeded:
        """Return the error that ends a statement, in good time."""
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught, db.deadline(seconds):
            self.run(lambda session: session(statement), db, **how)
        assert time.monotonic() - began < LONG / 2
        return caught.value

    def end(self) -> None:
        for db in self.made:
            if self.runner is not None:
                self.runner.run(db.async_dispose())
            db.dispose()
        if self.runner is not None:
            self.runner.close()


class Doing:
    def __init__(self, session: Any) -> None:
        self.session = session

    def __call__(self, statement: str) -> Any:
        result = self.session.execute(text(statement))
        return result.scalar() if result.returns_rows else None


def worlds(drivers: Iterable[Driver]) -> Any:
    return pytest.mark.parametrize("world", params(drivers), indirect=True)
