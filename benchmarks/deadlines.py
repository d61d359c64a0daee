"""How soon a deadline of 500 ms ends a slow statement, a wait for a full pool, and a silent server, with each driver.

Run it as `python -m benchmarks.deadlines [driver …]`; the goal is for an idle machine.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.harness import report, servers
from dbconfig import DeadlineExceeded, Profile, Registry
from tests.support.proxy import Proxy

SECONDS = 0.5
GOAL = 0.55
ROUNDS = 5
SILENT = 30.0  # what everything would take without a deadline

DRIVERS = {
    "psycopg2": "postgresql+psycopg2",
    "psycopg": "postgresql+psycopg",
    "pymysql": "mysql+pymysql",
    "sqlite3": "sqlite",
    "asyncpg": "postgresql+asyncpg",
    "psycopg-async": "postgresql+psycopg",
    "aiomysql": "mysql+aiomysql",
    "asyncmy": "mysql+asyncmy",
    "aiosqlite": "sqlite+aiosqlite",
}
ASYNCHRONOUS = ("asyncpg", "psycopg-async", "aiomysql", "asyncmy", "aiosqlite")
SLOW = {
    "postgresql": "SELECT pg_sleep(30)",
    "mysql": "SELECT SLEEP(30)",
    "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
}
RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'",
}


def _registry(url: str) -> Registry:
    tls = {"sslmode": "disable"} if url.startswith("mysql") else {}
    timeouts = {} if url.startswith("sqlite") else {"connect_timeout": SILENT}
    profile = Profile(name="bench", url=url, pool_size=1, max_overflow=0, pool_timeout=SILENT, **tls, **timeouts)
    return Registry.from_profile(profile)


class Threads:
    def __init__(self, url: str) -> None:
        self.db = _registry(url)

    def execute(self, statement: str, seconds: float | None = None) -> None:
        with self.db.deadline(SILENT if seconds is None else seconds), self.db.session() as session:
            session.execute(text(statement)).all()

    def while_held(self, work: Callable[[], float]) -> float:
        with self.db.session() as session:
            session.execute(text("SELECT 1"))
            return work()

    def took(self, statement: str) -> float:
        began = time.perf_counter()
        try:
            self.execute(statement, SECONDS)
        except DeadlineExceeded:
            return time.perf_counter() - began
        raise AssertionError("the deadline had no effect")

    def end(self) -> None:
        self.db.dispose()


class Tasks(Threads):
    """The same in an event loop; `took` measures inside of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.runner = asyncio.Runner()

    def execute(self, statement: str, seconds: float | None = None) -> None:
        self.runner.run(self._execute(statement, SILENT if seconds is None else seconds))

    async def _execute(self, statement: str, seconds: float) -> None:
        with self.db.deadline(seconds):
            async with self.db.async_session() as session:
                (await (await session.connection()).execute(text(statement))).all()

    async def _took(self, statement: str) -> float:
        began = time.perf_counter()
        try:
            await self._execute(statement, SECONDS)
        except DeadlineExceeded:
            return time.perf_counter() - began
        raise AssertionError("the deadline had no effect")

    def took(self, statement: str) -> float:
        return self.runner.run(self._took(statement))

    def while_held(self, work: Callable[[], float]) -> float:
        async def hold() -> float:
            async with self.db.async_session() as session:
                await session.connection()
                return await self._took("SELECT 1")

        return self.runner.run(hold())

    def settle(self) -> None:
        self.runner.run(asyncio.sleep(0.05))

    def end(self) -> None:
        self.runner.run(self.db.async_dispose())
        self.runner.close()
        super().end()


def measure(name: str, running: dict[str, Any], folder: Path) -> list[tuple[Any, ...]]:
    drivername = DRIVERS[name]
    system = drivername.partition("+")[0]
    server = running.get({"postgresql": "postgresql", "mysql": "mariadb"}.get(system, ""))
    kind = Tasks if name in ASYNCHRONOUS else Threads
    url = f"{drivername}:///{folder}/{name}.db" if server is None else str(server.url(drivername))
    rows: list[tuple[Any, ...]] = []
    world = kind(url)
    world.execute("SELECT 1")
    slow = [world.took(SLOW[system]) for _ in range(ROUNDS)]
    left = "–" if server is None else _left(world, server, system)
    rows.append((name, "a slow statement", *_figures(slow), left))
    world.execute("SELECT 1")
    full = [world.while_held(lambda: world.took("SELECT 1")) for _ in range(ROUNDS)]
    rows.append((name, "a full pool", *_figures(full), "–"))
    world.end()
    if server is None:
        return rows
    silent, cold = [], []
    for _ in range(ROUNDS):
        with Proxy(server.host, server.port) as network:
            world = kind(str(server.url(drivername, port=network.port)))
            world.execute("SELECT 1")
            network.swallow()
            silent.append(world.took("SELECT 1"))
            network.pass_through()
            network.cut()
            world.end()
        with Proxy(server.host, server.port) as network:
            network.mute_accept()
            world = kind(str(server.url(drivername, port=network.port)))
            cold.append(world.took("SELECT 1"))
            network.pass_through()
            network.cut()
            world.end()
    rows.append((name, "a server that fell silent", *_figures(silent), "–"))
    rows.append((name, "a server silent from the start", *_figures(cold), "–"))
    return rows


def _figures(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1000, ordered[-1] * 1000


def _left(world: Threads, server: Any, system: str) -> int:
    """Return how many statements still run on the server two seconds later; none is the answer at once."""
    driver = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql"}[system]
    end = time.perf_counter() + 2.0
    with _registry(str(server.url(driver))) as db:
        while True:
            if isinstance(world, Tasks):
                world.settle()
            with db.session() as session:
                left = int(session.execute(text(RUNNING[system])).scalar_one())
            if not left or time.perf_counter() > end:
                return left


def main() -> None:
    names = sys.argv[1:] or list(DRIVERS)
    rows: list[tuple[Any, ...]] = []
    with servers("postgresql", "mariadb") as running, tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows += measure(name, running, Path(folder))
    report(
        f"deadlines: {SECONDS * 1000:.0f} ms over what would take {SILENT:.0f} s",
        ("driver", "what", "median ms", "longest ms", "statements left on the server"),
        rows,
        goal=f"≤ {GOAL * 1000:.0f} ms on an idle machine, and nothing left on the server",
    )


if __name__ == "__main__":
    main()
