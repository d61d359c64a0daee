"""A function that sees each connection before it is handed out may have it replaced: threads and tasks alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, event, exc
from sqlalchemy.pool import QueuePool, base
from sqlalchemy.util import await_only

from dbconfig import Profile, Registry
from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.place import Place
from tests.engine.pool.support import eventually
from tests.engine.pool.worlds import Tasks, Threads
from tests.support.drivers import ASYNCHRONOUS, Driver, params

SCHEMES = {Threads: "sqlite", Tasks: "sqlite+aiosqlite"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture(params=list(SCHEMES), ids=["threads", "tasks"])
def world(request: pytest.FixtureRequest, file: Path) -> Iterator[Threads]:
    if request.param is Tasks:
        pytest.importorskip("aiosqlite")
    sizes: dict[str, Any] = {"pool_size": 3, "max_overflow": 0, "pool_timeout": 20, "pool_pre_ping": False}
    made: Threads = request.param(f"{SCHEMES[request.param]}:///{file}", **sizes)
    yield made
    made.close()


def pool_of(world: Threads) -> Any:
    return world.engine.pool


def warm(world: Threads) -> list[Any]:
    """Open three connections; return them as inspections see them."""
    seen: list[Any] = []
    pool = pool_of(world)
    pool.inspections = (lambda connection, record: seen.append(connection),)
    for each in [world.take() for _ in range(3)]:
        world.give(each)
    pool.inspections = ()
    assert len(set(map(id, seen))) == 3
    return seen


def expire(world: Threads, record: Any) -> None:
    """Invalidate it softly, as a listener of the application does; but the pool does not close it in its next round."""
    on_loop(world, lambda: base._ConnectionRecord.invalidate(record, soft=True))


def on_loop(world: Threads, work: Callable[[], Any]) -> None:
    """Do this where the engine is used: in its event loop, if it has one."""

    async def main() -> None:
        work()

    world.loop.run(main()) if isinstance(world, Tasks) else work()


def assert_whole(world: Threads, *, idle: int | None = None) -> None:
    pool = pool_of(world)
    assert eventually(lambda: pool.checkedout() == 0)  # what is being closed has its place until that is done
    assert not pool.waiters
    assert pool.open == len(pool.idle)
    assert idle is None or pool.open == idle


def test_each_connection_that_is_handed_out_is_inspected(world: Threads) -> None:
    seen: list[Any] = []
    dbconfig_pool.inspect_each_loan(world.engine, lambda connection, record: seen.append(("first", record)))
    dbconfig_pool.inspect_each_loan(world.engine, lambda connection, record: seen.append(("second", record)))
    for _ in range(3):
        world.select()
    assert [name for name, _ in seen] == ["first", "second"] * 3
    assert len({id(record) for _, record in seen}) == 1
    # Nobody listens, and so SQLAlchemy calls nobody: the checkout is the short one.
    assert not world.engine.pool.dispatch.checkout


def test_a_pool_of_sqlalchemys_own_inspects_each_connection_too(file: Path) -> None:
    seen: list[Any] = []
    engine = create_engine(f"sqlite:///{file}", poolclass=QueuePool)
    dbconfig_pool.inspect_each_loan(engine, lambda connection, record: seen.append((connection, record)))
    for _ in range(2):
        with engine.connect() as connection:
            loan: Any = connection.connection
            assert seen.pop() == (loan.dbapi_connection, loan._connection_record)
    assert seen == []
    engine.dispose()


def test_the_pool_after_a_disposal_inspects_too_and_so_does_one_with_listeners(world: Threads) -> None:
    seen: list[str] = []
    dbconfig_pool.inspect_each_loan(world.engine, lambda connection, record: seen.append("inspected"))
    event.listen(world.engine, "checkout", lambda connection, record, proxy: seen.append("heard"))
    world.select()
    world.dispose()
    world.select()
    assert seen == ["inspected", "heard"] * 2


def test_a_connection_that_an_inspection_refuses_is_replaced_and_no_other(world: Threads) -> None:
    connections = warm(world)
    refused: list[Any] = []

    def inspect(connection: Any, record: Any) -> None:
        if not refused:
            refused.append(connection)
            raise exc.DisconnectionError("not this one")
        connections.append(connection)

    pool_of(world).inspections = (inspect,)
    assert world.select() == 1
    assert refused[0] is connections[0]
    assert connections[-1] not in connections[:3]
    assert_whole(world, idle=3)
    for each in [world.take() for _ in range(3)]:
        world.give(each)
    assert set(map(id, connections[-3:])) & set(map(id, connections[1:3])) == set(map(id, connections[1:3]))


def test_an_inspection_that_finds_the_server_gone_ends_all_connections_of_that_time(world: Threads) -> None:
    connections = warm(world)
    refused: list[Any] = []

    def inspect(connection: Any, record: Any) -> None:
        if not refused:
            refused.append(connection)
            raise exc.InvalidatePoolError("gone")
        assert connection not in connections

    pool = pool_of(world)
    before = pool.generation
    pool.inspections = (inspect,)
    assert world.select() == 1
    assert refused == connections[:1]
    assert pool.generation == before + 1
    for each in [world.take() for _ in range(3)]:
        world.give(each)
    assert_whole(world, idle=3)


def test_an_old_connection_that_is_found_gone_leaves_the_new_ones_alone(world: Threads) -> None:
    """It was in use while all were invalidated, and is inspected again where a listener reconnects."""
    warm(world)
    pool = pool_of(world)

    def inspect(connection: Any, record: Any) -> None:
        if connection in old:
            old.remove(connection)
            pool.invalidate_all()  # somebody else has found it at the same moment
            raise exc.InvalidatePoolError("gone")

    old = [record_of(pool.idle[0]).dbapi_connection]
    before = pool.generation
    pool.inspections = (inspect,)
    assert world.select() == 1
    assert pool.generation == before + 1
    assert_whole(world, idle=1)


def record_of(idle: Any) -> Any:
    return idle.connection if isinstance(idle, Place) else idle


@pytest.mark.parametrize(
    ("raised", "told"), [(exc.DisconnectionError, exc.InvalidRequestError), (RuntimeError, RuntimeError)]
)
def test_an_inspection_that_refuses_every_connection_is_an_error_that_costs_no_place(
    world: Threads, raised: type[Exception], told: type[Exception]
) -> None:
    def inspect(connection: Any, record: Any) -> None:
        raise raised("never")

    warm(world)
    pool_of(world).inspections = (inspect,)
    for _ in range(4):
        with pytest.raises(told):
            world.select()
    assert_whole(world)
    pool_of(world).inspections = ()
    assert world.together(6, 2) == []
    assert_whole(world)


def test_a_connection_that_expired_on_its_way_back_is_renewed_before_it_is_inspected(world: Threads) -> None:
    seen: list[Any] = []
    connections = warm(world)
    pool_of(world).inspections = (lambda connection, record: seen.append(connection),)
    record = record_of(pool_of(world).idle[0])
    assert record.dbapi_connection is connections[0]
    expire(world, record)
    assert world.select() == 1
    assert len(seen) == 1
    assert seen[0] is not None
    assert seen[0] not in connections
    assert_whole(world, idle=3)


def test_a_caller_whose_connection_cannot_be_renewed_keeps_no_place_while_its_error_is_kept(world: Threads) -> None:
    """A handler may keep the error, and with it all that its traceback refers to; the others need the place."""
    warm(world)
    pool = pool_of(world)
    refused = ConnectionRefusedError("the server has restarted")
    connect = world.engine.dialect.connect

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise refused

    expire(world, record_of(pool.idle[0]))
    world.engine.dialect.connect = refuse  # type: ignore[method-assign]  # of this engine alone
    with pytest.raises(ConnectionRefusedError) as caught:
        world.select()
    assert caught.value is refused
    world.engine.dialect.connect = connect  # type: ignore[method-assign]
    assert_whole(world)
    for each in [world.take() for _ in range(3)]:
        world.give(each)
    assert_whole(world, idle=3)


def test_a_refused_connection_is_replaced_where_the_machines_clock_was_set_back(
    world: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = warm(world)
    seen: list[Any] = []

    def inspect(connection: Any, record: Any) -> None:
        seen.append(connection)
        if len(seen) == 1:
            raise exc.DisconnectionError("not this one")

    pool_of(world).inspections = (inspect,)
    monkeypatch.setattr(base, "time", SimpleNamespace(time=lambda: 0.0))  # SQLAlchemy compares with it
    assert world.select() == 1
    assert seen[0] is connections[0]
    assert seen[1] not in connections
    assert_whole(world, idle=3)


# -- what only tasks can do: an inspection that awaits


@pytest.fixture
def tasks(file: Path) -> Iterator[Tasks]:
    pytest.importorskip("aiosqlite")
    made = Tasks(f"sqlite+aiosqlite:///{file}", pool_size=1, max_overflow=0, pool_timeout=20)
    yield made
    made.close()


def test_a_review_leaves_a_connection_that_is_being_inspected_alone(tasks: Tasks) -> None:
    (pool, seen) = (pool_of(tasks), [])
    tasks.select()

    def inspect(connection: Any, record: Any) -> None:
        await_only(asyncio.sleep(0))
        pool._mend(monotonic())  # as a review does that comes at this moment
        seen.append(connection)
        if len(seen) == 1:
            raise exc.DisconnectionError("not this one")
        await_only(asyncio.sleep(0))
        pool._mend(monotonic())

    pool.inspections = (inspect,)
    assert tasks.together(3, 2) == []
    assert len(set(map(id, seen))) == 2, "one was refused; the other was not taken away"
    assert_whole(tasks, idle=1)


def test_a_caller_that_is_cancelled_in_an_inspection_costs_no_place(tasks: Tasks) -> None:
    pool = pool_of(tasks)
    tasks.select()

    async def main() -> None:
        begun = asyncio.Event()

        def inspect(connection: Any, record: Any) -> None:
            if not begun.is_set():
                begun.set()
                await_only(asyncio.sleep(600))

        pool.inspections = (inspect,)
        task = asyncio.create_task(tasks._select("SELECT 1"))
        await begun.wait()
        waiting = asyncio.create_task(tasks._select("SELECT 2"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await waiting == 2

    tasks.loop.run(asyncio.wait_for(main(), 60))
    assert_whole(tasks, idle=1)


@pytest.mark.parametrize("driver", params(ASYNCHRONOUS))
def test_no_listener_of_ours_stands_in_the_short_way_of_any_asynchronous_driver(
    driver: Driver, request: pytest.FixtureRequest
) -> None:
    url = driver.url(request)

    async def listeners() -> list[str]:
        async with Registry.from_profile(Profile(name="production", url=url)) as db:
            dispatch = db.async_engine().sync_engine.pool.dispatch
            return [name for name in ("checkout", "reset", "checkin") if getattr(dispatch, name)]

    assert asyncio.run(listeners()) == []
