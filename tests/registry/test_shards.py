"""`shards:`: a session works on one of them, named by the call or by its context, and never on another."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import ConfigError, Profile, Registry
from tests.support.postgresql import PostgreSQLServer


class Base(SQLModel):
    metadata = MetaData()


class Order(Base, table=True):
    __tablename__ = "shard_order"
    id: int | None = Field(default=None, primary_key=True)
    city: str


SHARDS = ("eu", "us", "asia")


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry whose database `orders` is divided."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            orders: dict[str, Any] = {
                "drivername": "sqlite",
                "shards": {name: {"database": f"{tmp_path}/{name}.db"} for name in SHARDS},
            }
        else:
            server: PostgreSQLServer = request.getfixturevalue("postgresql")
            names = {name: server.create_database() for name in SHARDS}
            for name in names.values():
                stack.callback(server.drop_database, name)
            orders = {"url": server.url(), "shards": {name: {"database": each} for name, each in names.items()}}
        profile = Profile(name="tests", url="sqlite://", databases={"orders": orders})
        registry = stack.enter_context(Registry.from_profile(profile))
        registry.create_tables(Order, database="orders")
        yield registry


class Sync:
    """The calls of threads."""

    def run(self, main: Callable[[], Any]) -> Any:
        return main()

    def session(self, db: Registry, work: Callable[[Session], Any], **which: Any) -> Any:
        with db.session("orders", **which) as session:
            return work(session)

    def unit(self, db: Registry, work: Callable[[Session], Any], **which: Any) -> Any:
        return db.run_in_transaction(work, "orders", **which)


class Async:
    """The same calls in an event loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def session(self, db: Registry, work: Callable[[Session], Any], **which: Any) -> Any:
        async def main() -> Any:
            async with db.async_session("orders", **which) as session:
                return await session.run_sync(work)

        return self._runner.run(main(), context=contextvars.copy_context())

    def unit(self, db: Registry, work: Callable[[Session], Any], **which: Any) -> Any:
        async def twin(session: Any) -> Any:
            return await session.run_sync(work)

        async def main() -> Any:
            return await db.async_run_in_transaction(twin, "orders", **which)

        return self._runner.run(main(), context=contextvars.copy_context())


@pytest.fixture(params=["sync", "async"])
def style(request: pytest.FixtureRequest, db: Registry) -> Iterator[Any]:
    if request.param == "sync":
        yield Sync()
        return
    pytest.importorskip("asyncpg")
    pytest.importorskip("aiosqlite")
    with asyncio.Runner() as runner:
        yield Async(runner)
        runner.run(db.async_dispose())


def write(city: str) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        session.add(Order(city=city))
        session.flush()

    return work


def cities(session: Session) -> list[str]:
    return sorted(session.exec(select(Order.city)))


def test_a_session_works_on_the_shard_that_it_names(db: Registry, style: Any) -> None:
    style.unit(db, write("Rome"), shard="eu")
    style.unit(db, write("Boston"), shard="us")
    assert style.session(db, cities, shard="eu") == ["Rome"]
    assert style.session(db, cities, shard="us", read_only=True) == ["Boston"]
    assert style.session(db, cities, shard="asia", snapshot=True) == []


def test_a_context_works_on_its_shard_and_an_inner_one_on_another(db: Registry, style: Any) -> None:
    def on(shard: str, work: Callable[[], Any]) -> Any:
        with db.on_shard(shard):
            return work()

    on("eu", lambda: style.unit(db, write("Rome")))
    assert on("eu", lambda: style.session(db, cities)) == ["Rome"]
    with db.on_shard("eu"):
        with db.on_shard("us", "orders"):
            assert style.session(db, cities) == []
        with db.on_shard("us"):
            assert style.session(db, cities) == []
        assert style.session(db, cities) == ["Rome"]
        assert style.session(db, cities, shard="us") == []  # who names one means it


def test_without_a_shard_nothing_is_guessed(db: Registry, style: Any) -> None:
    with pytest.raises(ConfigError, match="none was chosen") as told:
        style.session(db, cities)
    assert told.value.problems[0].notes == ("shards: eu, us, asia",)
    with pytest.raises(ConfigError, match="no shard 'asai'") as told:
        style.session(db, cities, shard="asai")
    assert "did you mean 'asia'" in told.value.problems[0].help
    with pytest.raises(ConfigError, match="no shard"), db.on_shard("mars"):
        pass
    with pytest.raises(ConfigError, match="no shard"):
        db.session(shard="eu")  # the profile's own database is not divided


def test_two_threads_work_on_two_shards_at_the_same_time(db: Registry) -> None:
    both, seen = threading.Barrier(2, timeout=60), dict[str, list[str]]()

    def work(shard: str) -> None:
        with db.on_shard(shard):
            both.wait()
            db.run_in_transaction(write(shard), "orders")
            both.wait()
            with db.session("orders") as session:
                seen[shard] = cities(session)

    threads = [threading.Thread(target=work, args=(shard,)) for shard in ("eu", "us")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert seen == {"eu": ["eu"], "us": ["us"]}
    with pytest.raises(ConfigError, match="none was chosen"):
        db.session("orders")


def test_tasks_that_are_started_on_a_shard_stay_there(db: Registry) -> None:
    pytest.importorskip("asyncpg")
    pytest.importorskip("aiosqlite")

    async def place() -> str:
        await asyncio.sleep(0)
        return str(db.async_engine("orders").url.database)

    async def main() -> list[str]:
        async def on(shard: str) -> str:
            with db.on_shard(shard):
                return await asyncio.create_task(place())

        try:
            return await asyncio.gather(*(on(shard) for shard in SHARDS))
        finally:
            await db.async_dispose()

    assert asyncio.run(main()) == [db.engine("orders", shard=shard).url.database for shard in SHARDS]


def test_tables_are_made_in_every_shard_or_in_the_one_that_is_meant(db: Registry) -> None:
    assert db.drop_tables(Order, database="orders", shard="us") == ["shard_order"]
    assert db.create_tables(Order, database="orders") == ["shard_order"]  # the others have it
    with db.on_shard("eu"):
        assert db.drop_tables(Order, database="orders") == ["shard_order"]
    assert db.drop_tables(Order, database="orders/us") == ["shard_order"]
    assert db.create_tables(Order, database="orders") == ["shard_order", "shard_order"]


def test_operations_know_the_shards(db: Registry) -> None:
    assert db.shards("orders") == SHARDS
    assert db.shards() == ()
    db.wait("orders", timeout=120)
    assert db.ping("orders", shard="eu", timeout=60) > 0
    assert db.stats("orders", shard="eu").name == "tests/orders/eu"
    assert {each.name for each in db.all_stats()} >= {f"tests/orders/{shard}" for shard in SHARDS}
    with db.transaction("orders", shard="eu") as session:
        write("Oslo")(session)
    with db.session("orders", shard="eu") as session:
        assert cities(session) == ["Oslo"]


def test_a_unit_of_work_joins_that_of_its_own_shard_alone(db: Registry) -> None:
    def outer(session: Session) -> bool:
        inner = db.run_in_transaction(lambda other: other is session, "orders", shard="eu")
        elsewhere = db.run_in_transaction(lambda other: other is session, "orders", shard="us")
        return inner and not elsewhere

    assert db.run_in_transaction(outer, "orders", shard="eu")


def test_bound_tables_are_found_in_the_shard_of_the_context(tmp_path: Path) -> None:
    shards = {name: {"url": f"sqlite:///{tmp_path}/{name}.db"} for name in ("eu", "us")}
    profile = Profile(name="tests", url="sqlite://", databases={"orders": {"url": "sqlite://", "shards": shards}})
    with Registry.from_profile(profile) as db:
        db.bind(orders=Base.metadata)
        db.create_tables()
        with db.on_shard("eu"):
            db.run_in_transaction(write("Rome"))
            with db.session() as session:
                assert cities(session) == ["Rome"]
        with db.on_shard("us"), db.session() as session:
            assert cities(session) == []


def test_the_profiles_own_database_may_be_divided() -> None:
    profile = Profile(
        name="tests", url="sqlite://", pool_leak_warning="9s", shards={"a": {}, "b": {"autoflush": False}}
    )
    with Registry.from_profile(profile) as db:
        assert db.shards() == ("a", "b")
        for shard in db.shards():
            with db.transaction(shard=shard) as session:
                session.execute(text(f"CREATE TABLE only_{shard} (x)"))
        assert db.profile.database("default/b").autoflush is False
        assert db.profile.database("default/a").pool_leak_warning == 9


def test_five_hundred_shards_load_and_open_only_what_is_used(tmp_path: Path) -> None:
    shards = "".join(f"      tenant{number}: {{database: tenant{number}.db}}\n" for number in range(500))
    config = tmp_path / "config"
    config.mkdir()
    (config / "development.yaml").write_text(f"databases:\n  orders:\n    drivername: sqlite\n    shards:\n{shards}")
    started = time.monotonic()
    with Registry(config, environ={}) as db:
        assert len(db.shards("orders")) == 500
        with db.session("orders", shard="tenant250") as session:
            session.execute(text("SELECT 1"))
        assert len(db.all_stats()) == 1
        print(f"500 shards: loaded, and one used, after {time.monotonic() - started:.2f} s")
        begun = time.perf_counter()
        for _ in range(1000):
            db.session("orders", shard="tenant250").close()
        print(f"a session by its shard: {(time.perf_counter() - begun) * 1000:.1f} us")
