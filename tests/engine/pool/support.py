"""What the tests of the pool share: settings with defaults, engines made of them, callers in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.pool import Pool

from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.errors import of_connect, of_statement
from dbconfig.engine.pool.options import Connected, LineOptions
from dbconfig.engine.pool.ping import Check
from dbconfig.engine.pool.tasks import TaskPool
from dbconfig.engine.pool.threads import FairPool


class Judge:
    """Asks the tables of errors, as an engine's own judge does, which knows settings besides."""

    full = 0

    def connects_again(self, error: BaseException) -> bool:
        row = of_connect(error)
        return row is not None and row.connects_again

    def ends_connection(self, error: BaseException) -> bool:
        row = of_statement(error)
        return row is not None and row.ends_connection

    def refuses_writes(self, error: BaseException) -> bool:
        row = of_statement(error)
        return row is not None and row.fate is Fate.READ_ONLY

    def read_only_because(self, connected: Connected) -> str:
        return ""


JUDGE = Judge()


@dataclass(frozen=True)
class Settings:
    """The settings of a database as the pool sees them, with the documented defaults."""

    pool_size: int = 5
    max_overflow: int = 10
    pool_timeout: float = 30.0
    pool_recycle: float = 1800.0
    pool_pre_ping: bool | float = 1.0
    pool_use_lifo: bool = False
    pool_min_idle: int = 0
    pool_idle_timeout: float | None = 600.0
    pool_keepalive: float | None = 120.0
    pool_max_waiting: int | None = None
    pool_queue_target: float | None = None
    pool_leak_warning: float | None = None
    poolclass: str | None = None
    connect_timeout: float = 5.0
    statement_timeout: float | None = None
    origins: dict[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> object:
        return self.origins.get(key, "default")


def engine_of(
    url: URL | str, *, read_only: bool = False, create: dict[str, Any] | None = None, **settings: Any
) -> Engine:
    """Make an engine as the registry does."""
    chosen = Settings(**settings)
    arguments: dict[str, Any] = dict(create or {})
    if make_url(url).drivername == "mysql+pymysql":
        # PyMySQL would read all the certificates of this machine for each connection: 45 ms of CPU.
        arguments.setdefault("connect_args", {"ssl_disabled": True})
    engine = create_engine(
        url, **dbconfig_pool.pool_arguments(chosen, name="testing/default", patient=True, judge=JUDGE), **arguments
    )
    driver = driver_protocol.of(engine.dialect)
    dbconfig_pool.attach(engine, chosen, name="testing/default", read_only=read_only, judge=JUDGE, driver=driver)
    return engine


@contextmanager
def running_engine(url: URL | str, **settings: Any) -> Iterator[Engine]:
    engine = engine_of(url, **settings)
    try:
        yield engine
    finally:
        engine.dispose()


def impatient(engine: Any, seconds: float) -> None:
    """Let callers of a pool wait for so long at most from now on: what has connected had the time of a busy machine."""
    getattr(engine, "sync_engine", engine).pool._timeout = seconds


def through(proxy: Any, url: URL | str) -> URL:
    """Let a URL lead through a proxy."""
    return make_url(url).set(host=proxy.host, port=proxy.port)


class FakeConnection:
    """A DBAPI connection that does nothing."""

    def __init__(self) -> None:
        self.closed = False

    def rollback(self) -> None: ...
    def commit(self) -> None: ...
    def cursor(self) -> Any: ...
    def close(self) -> None:
        self.closed = True


class FakeServer:
    """Connects, fails to, or takes its time, as told."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.attempts = 0
        self.error: BaseException | None = None
        self.errors: list[BaseException] = []  # of the next attempts, one each
        self.delay = 0.0
        self.gate: threading.Event | None = None

    def connect(self) -> FakeConnection:
        self.attempts += 1
        if self.gate is not None:
            self.gate.wait(30)
        time.sleep(self.delay)
        if self.errors:
            raise self.errors.pop(0)
        if self.error is not None:
            raise self.error
        connection = FakeConnection()
        self.made.append(connection)
        return connection

    @property
    def open(self) -> int:
        return sum(not connection.closed for connection in self.made)


def fair_pool(server: FakeServer, *, line: LineOptions | None = None, **arguments: Any) -> FairPool:
    return FairPool(server.connect, line=line or LineOptions(judge=JUDGE), **arguments)


def helpers() -> list[threading.Thread]:
    """Return the threads that connect, of any pool."""
    return [thread for thread in threading.enumerate() if thread.name == "dbconfig-connect"]


@contextmanager
def callers(count: int = 16) -> Iterator[Callable[..., Future[Any]]]:
    """Yield what runs a function in a thread of its own."""
    with ThreadPoolExecutor(count) as executor:
        yield executor.submit


def eventually(condition: Callable[[], bool], within: float = 30.0) -> bool:
    """Wait until something is so; the limit only proves that it does not hang."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def assert_whole(pool: Pool) -> None:
    """Nothing is in use, nobody waits, and no place is lost."""
    assert isinstance(pool, FairPool | TaskPool)
    assert eventually(lambda: pool.connecting == 0), "a connect never ends"
    assert len(pool.waiters) == 0
    if isinstance(pool, TaskPool):  # its closes are tasks
        assert eventually(lambda: pool.open == len(pool.idle)), "a connection is lost, or a close never ends"
    assert pool.open == len(pool.idle)


__all__ = ["Check", "FakeServer", "LineOptions", "Settings", "assert_whole", "callers", "engine_of", "eventually"]


DRIVERS = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}


def url_of(server: Any, at: Any = None, driver: str | None = None) -> str:
    """Return the URL of a server, or of the proxy before it, for the driver that all of us have."""
    place = {} if at is None else {"host": at.host, "port": at.port}
    kind = "postgresql" if server.driver.startswith("postgres") else "mysql"
    return str(server.url(driver or DRIVERS[kind], **place))
