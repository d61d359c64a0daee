"""`engine_idle_timeout`: a database that nobody uses closes whole, one in use never, and the next use opens it."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from dbconfig import ConfigError, PoolStats, Profile, Registry
from tests.support.loop_thread import LoopThread
from tests.support.postgresql import PostgreSQLServer
from tests.support.processes import wait_until

TIMEOUT = 0.2  # seconds; short, so that a test sees the end of it
ONE = text("SELECT 1")


def answer(session: Session, question: Any) -> Any:
    result = session.execute(question)
    found = result.scalar() if result.returns_rows else None
    session.commit()
    return found


class Sync:
    """The calls of threads."""

    driver = "sqlite"

    def engine(self, db: Registry, database: str, **which: Any) -> Any:
        return db.engine(database, **which)

    def ask(self, db: Registry, database: str, question: Any = ONE, **which: Any) -> Any:
        with db.session(database, **which) as session:
            return answer(session, question)

    def hold(self, db: Registry, database: str, **which: Any) -> Callable[[], None]:
        """Take a connection; return what gives it back."""
        session = db.session(database, **which)
        session.connection()
        return session.close

    def use(self, engine: Any) -> None:
        with engine.connect() as connection:
            connection.scalar(ONE)

    def readers(self, db: Registry, database: str) -> Any:
        return db.readers(database)

    def close(self, db: Registry) -> None:
        db.dispose()


class Async:
    """The same calls in an event loop."""

    driver = "sqlite+aiosqlite"

    def __init__(self) -> None:
        self._loop = LoopThread()

    def engine(self, db: Registry, database: str, **which: Any) -> Any:
        async def main() -> Any:
            return db.async_engine(database, **which)

        return self._loop.run(main())

    def ask(self, db: Registry, database: str, question: Any = ONE, **which: Any) -> Any:
        async def main() -> Any:
            async with db.async_session(database, **which) as session:
                return await session.run_sync(answer, question)

        return self._loop.run(main())

    def hold(self, db: Registry, database: str, **which: Any) -> Callable[[], None]:
        async def main() -> Any:
            session = db.async_session(database, **which)
            await session.connection()
            return session

        session = self._loop.run(main())
        return lambda: self._loop.run(session.close())

    def use(self, engine: Any) -> None:
        async def main() -> None:
            async with engine.connect() as connection:
                await connection.scalar(ONE)

        self._loop.run(main())

    def readers(self, db: Registry, database: str) -> Any:
        async def main() -> Any:
            return db.async_readers(database)

        return self._loop.run(main())

    def close(self, db: Registry) -> None:
        self._loop.run(db.async_dispose())
        self._loop.close()
        db.dispose()


@pytest.fixture(params=["sync", "async"])
def style(request: pytest.FixtureRequest) -> Any:
    if request.param == "async":
        pytest.importorskip("aiosqlite")
        pytest.importorskip("asyncpg")
        return Async()
    return Sync()


@pytest.fixture
def opened(style: Any, tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Make registries with the databases `a` and `b`, by default two files."""
    with ExitStack() as stack:

        def make(settings: dict[str, Any] | None = None, **more: Any) -> Registry:
            base = {"engine_idle_timeout": TIMEOUT, **more}
            files = {name: {"url": f"sqlite:///{tmp_path}/{name}.db", **base} for name in ("a", "b")}
            given = {name: {**settings, **base} for name in ("a", "b")} if settings is not None else files
            db = Registry.from_profile(Profile(name="tests", url="sqlite://", databases=given))
            stack.callback(style.close, db)
            return db

        yield make


def known(db: Registry) -> dict[str, PoolStats]:
    return {each.name.partition(",")[0]: each for each in db.all_stats()}


def closes(db: Registry, name: str = "tests/a") -> None:
    wait_until(lambda: not any(each.startswith(name) for each in known(db)), f"the end of {name}")


def test_a_database_that_rests_is_closed_whole_and_the_next_use_opens_it(
    style: Any, opened: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    db = opened()
    style.ask(db, "a", text("CREATE TABLE kept (x)"))
    engine = weakref.ref(getattr(style.engine(db, "a"), "sync_engine", style.engine(db, "a")))
    assert known(db)["tests/a"].idle == 1
    with caplog.at_level("INFO", "dbconfig.registry.idle"):
        closes(db)
        wait_until(lambda: bool(caplog.records), "the log record")
    assert caplog.records[0].getMessage().startswith("tests/a: closed after 0.2")
    assert (caplog.records[0].pool, caplog.records[0].database) == ("tests/a", "a")  # type: ignore[attr-defined]

    def is_gone() -> bool:
        gc.collect()
        return engine() is None

    wait_until(is_gone, "the engine's memory")
    assert style.ask(db, "a", text("SELECT count(*) FROM kept")) == 0
    closes(db)  # and again


def test_what_is_in_use_is_never_closed(style: Any, opened: Callable[..., Registry]) -> None:
    db = opened()
    back = [style.hold(db, "a"), style.hold(db, "a", read_only=True)]
    first = style.engine(db, "a")
    for _ in range(3):  # as long as it takes another one to be found at rest, three times
        style.ask(db, "b")
        closes(db, "tests/b")
    assert known(db)["tests/a"].used == 1
    back[0]()
    for _ in range(3):
        style.ask(db, "b")
        closes(db, "tests/b")
    assert style.engine(db, "a") is first  # its reading session is still open
    assert known(db)["tests/a/reads"].used == 1
    back[1]()
    closes(db)


def test_an_engine_that_was_kept_works_on_and_stays_the_one_of_its_database(
    style: Any, opened: Callable[..., Registry]
) -> None:
    db = opened()
    engine = style.engine(db, "a")
    style.use(engine)
    closes(db)
    style.use(engine)  # the registry has forgotten it, and finds it again
    assert known(db)["tests/a"].idle == 1
    closes(db)
    style.use(engine)
    assert style.engine(db, "a") is engine
    closes(db)


def test_a_pool_of_sqlalchemys_own_closes_as_well(style: Any, opened: Callable[..., Registry]) -> None:
    db = opened(poolclass="QueuePool")
    back = style.hold(db, "a")
    style.ask(db, "b")
    closes(db, "tests/b")
    assert known(db)["tests/a"].used == 1
    back()
    closes(db)


@pytest.mark.server
def test_nothing_of_a_database_and_its_replicas_stays_on_the_server(
    style: Any, opened: Callable[..., Registry], postgresql: PostgreSQLServer
) -> None:
    # The lag of the replica is asked several times within the timeout, which does not count as a use.
    settings = {"url": postgresql.url(), "replicas": [{"port": postgresql.port}], "replica_max_lag": 0.2}
    db = opened(settings, pool_min_idle=2)
    style.ask(db, "a")
    assert style.ask(db, "a", read_only=True) == 1
    assert postgresql.connections()
    wait_until(lambda: not postgresql.connections(), "the end of all connections")
    assert style.ask(db, "a", read_only=True) == 1
    reads = [each.reads for each in style.readers(db, "a")]
    assert reads in ([1, 0][: len(reads)], [0] * len(reads))  # counted anew; none, if all has closed again meanwhile
    wait_until(lambda: not postgresql.connections(), "the end of all connections, again")


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_closes_what_it_has_opened_and_nothing_of_its_parents(postgresql: PostgreSQLServer) -> None:
    databases = {"a": {"url": postgresql.url(), "engine_idle_timeout": TIMEOUT}}
    number = text("SELECT pg_backend_pid()")
    with Registry.from_profile(Profile(name="tests", url="sqlite://", databases=databases)) as db:
        with db.session("a") as session:
            ours = session.scalar(number)
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # the end of one that hangs
                with db.session("a") as other:
                    theirs = other.scalar(number)
                wait_until(lambda: not known(db), "the child's own end")
                with db.session("a") as other:
                    again = other.scalar(number)
                os._exit(0 if ours != theirs != again else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert session.scalar(number) == ours
        closes(db)


def test_a_hundred_shards_close_when_nobody_uses_them(style: Any, tmp_path: Path) -> None:
    shards = {f"s{number}": {"database": f"{tmp_path}/{number}.db"} for number in range(100)}
    orders = {"drivername": "sqlite", "engine_idle_timeout": 1.0, "shards": shards}
    db = Registry.from_profile(Profile(name="tests", url="sqlite://", databases={"orders": orders}))
    try:
        for name in db.shards("orders"):
            style.ask(db, "orders", shard=name)
        wait_until(lambda: not db.all_stats(), "the end of all databases", timeout=120)
        style.ask(db, "orders", shard="s7")
        assert list(known(db)) == ["tests/orders/s7"]
    finally:
        style.close(db)


def test_a_reload_keeps_the_looks(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    file = config / "development.yaml"
    file.write_text("url: sqlite:///app.db\nengine_idle_timeout: 1h")
    with Registry(config, environ={}) as db:
        with db.session() as session:
            session.connection()
        file.write_text(f"url: sqlite:///app.db\nengine_idle_timeout: {TIMEOUT}")
        db.reload()
        with db.session() as session:
            session.connection()
        closes(db, "development")


def test_an_engine_that_a_reload_has_left_brings_no_timeout_back(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    file = config / "development.yaml"
    file.write_text("url: sqlite:///app.db\nengine_idle_timeout: 1h")
    with Registry(config, environ={}) as db:
        kept = db.session()
        kept.connection()
        file.write_text("url: sqlite:///app.db")
        db.reload()
        kept.close()
        with db.session() as session:
            session.connection()
        kept.connection()  # a new one, of the engine that was left
        kept.close()
        assert db.parts.engines._idle == {}


def test_a_database_in_memory_is_not_closed_and_says_so() -> None:
    with pytest.raises(ConfigError, match="`engine_idle_timeout` has no effect here"):
        Profile(name="tests", url="sqlite://", engine_idle_timeout="1m")
    with pytest.raises(ConfigError, match="no effect with `poolclass: StaticPool`"):
        Profile(name="tests", url="sqlite:///app.db", engine_idle_timeout="1m", poolclass="StaticPool")


def test_no_engine_is_closed_below_a_test_that_has_replaced_it(tmp_path: Path) -> None:
    profile = Profile(name="tests", url=f"sqlite:///{tmp_path}/app.db", engine_idle_timeout=TIMEOUT)
    with Registry.from_profile(profile) as db:
        engines, factory = db.parts.engines, db.parts.engines.factory("default")
        at_rest: list[Engine] = []

        def unused(known: Any) -> bool:
            at_rest.extend(known)
            return True

        with engines.override({"default": (factory, engines.readers("default"))}):
            assert not engines.close_database(("tests", "default"), unused)
        assert engines.close_database(("tests", "default"), unused)
        assert at_rest
