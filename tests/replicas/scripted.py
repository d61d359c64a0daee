"""Servers and a clock of the test's own, on which the choice of a server for reading can be looked at step by step."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, create_engine, exc, text
from sqlalchemy.pool import NullPool

from dbconfig import DatabaseSettings, Profile
from dbconfig.replicas import health, positions, read_your_writes, routing
from dbconfig.replicas.health import Route
from dbconfig.replicas.read_your_writes import Mark, scope
from dbconfig.replicas.routing import Router


class Clock:
    """Stands still, but for those who sleep; what was agreed happens while they do."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.meanwhile()


class Server:
    """One that can be switched off, and has a position that it tells if it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.trouble: BaseException | None = None
        self.position = ""
        self.unfit = ""
        self.questions: list[str] = []
        self.connects = 0
        self.engine: Any = None

    def refuse(self) -> None:
        refused = psycopg2.OperationalError("connection refused\nIs the server running?")
        self.trouble = exc.OperationalError(None, None, refused)


class Keeper:
    """The caretaker of the process, whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.jobs: dict[object, Callable[[], float | None]] = {}
        self.delays: list[float] = []

    def add(self, key: object, job: Callable[[], float | None], delay: float = 0.0) -> None:
        self.jobs[key] = job
        self.delays.append(delay)

    def remove(self, key: object) -> None:
        self.jobs.pop(key, None)


class Scripted(Router):
    """Asks the servers of the test, and looks at them at once instead of in a thread."""

    world: World
    looks = 0

    def ask(self, connection: Connection, question: str) -> str:
        server = self.world.server_of(connection)
        server.questions.append(question)
        if server.trouble is not None:
            raise server.trouble
        connection.connection.info[positions._SERVER] = server.name
        return server.position

    def begin_look(self) -> None:
        self.looks += 1
        self.look()


class World:
    """A database with its replicas, at the addresses one:5432, two:5432, …."""

    def __init__(self, clock: Clock, keeper: Keeper) -> None:
        self.clock = clock
        self.keeper = keeper
        self.servers: dict[str, Server] = {}
        self.pool: Any = NullPool
        self.router: Any = None

    def settings(self, *replicas: dict[str, Any], **settings: Any) -> DatabaseSettings:
        written: dict[str, Any] = {"replica_max_lag": False, "pool_timeout": 1, **settings}
        profile = Profile(name="x", replicas=list(replicas), **{"url": "postgresql://app@main/shop", **written})
        return profile.databases["default"]

    def open(self, settings: Any, name: str, **how: Any) -> Engine:
        place = name.rpartition("/")[2]
        server = self.servers.setdefault(place, Server(place))

        def connect() -> sqlite3.Connection:
            server.connects += 1
            if server.trouble is not None:
                raise server.trouble
            return sqlite3.connect(":memory:", check_same_thread=False)

        server.engine = create_engine("sqlite://", poolclass=self.pool, creator=connect)
        return server.engine

    def server_of(self, connection: Connection) -> Server:
        return next(each for each in self.servers.values() if each.engine.pool is connection.engine.pool)

    def start(self, replicas: int = 2, *, weights: list[int] | None = None, **settings: Any) -> Scripted:
        hosts = ["one", "two", "three", "four"][:replicas]
        written = [{"host": host, "weight": weight} for host, weight in zip(hosts, weights or [1] * 4, strict=False)]
        router = Scripted(self.settings(*written, **settings), "shop", self.open)
        router.world = self
        self.router = router
        return router

    def replica(self, number: int) -> Server:
        return self.servers[f"replica{number}"]

    def read(self, route: Route | None = None) -> str:
        """Return the server that a session reads from."""
        with self.router.connect(route or self.router.choose()) as connection:
            connection.execute(text("SELECT 1"))
            return self.server_of(connection).name

    def reads(self, count: int) -> list[str]:
        return [self.read() for _ in range(count)]

    def look(self) -> float | None:
        (job,) = self.keeper.jobs.values()
        return job()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    clock, keeper = Clock(), Keeper()
    for module in (health, routing, read_your_writes):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(health, "caretaker", keeper)
    monkeypatch.setattr(positions, "positions_of", lambda engine: positions._POSTGRESQL)
    found = World(clock, keeper)
    monkeypatch.setattr(positions, "unfit", lambda connection: found.server_of(connection).unfit)
    yield found
    for server in found.servers.values():
        server.engine.dispose()


@pytest.fixture
def written(world: World) -> Iterator[Callable[[str], Mark]]:
    """Have written something in this context, up to a position that the primary tells if it is asked."""
    with scope({}) as opened:

        def write(position: str, **more: Any) -> Mark:
            mark = Mark(world.clock.time(), position, bool(position), **more)
            opened.marks[world.router.key] = mark
            return mark

        yield write
