"""Which server a reading session reads from."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg2
import pymysql
import pytest
from sqlalchemy import Connection, exc, text
from sqlalchemy.pool import QueuePool, StaticPool
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import deadline
from dbconfig.replicas import positions, routing
from dbconfig.replicas.read_your_writes import Mark
from dbconfig.replicas.readers import open_readers
from dbconfig.replicas.routing import AsyncRouter
from tests.replicas.scripted import Scripted, World

at = positions._POSTGRESQL.parse  # how far a server is, as it is kept


# Which server


def test_the_weights_decide_how_often_a_server_is_read(world: World) -> None:
    router = world.start(3, weights=[3, 1, 0])
    assert world.reads(8) == ["replica1", "replica1", "replica2", "replica1"] * 2
    assert [route.reads for route in router.replicas] == [6, 2, 0]
    assert world.clock.slept == []


@pytest.mark.parametrize(
    ("weights", "turns"),
    [([1, 1], "12"), ([2, 2], "12"), ([4, 2], "121"), ([1, 2, 3], "321323"), ([0, 1], "2"), ([0, 0], "")],
)
def test_the_turns_are_few_and_evenly_spread(world: World, weights: list[int], turns: str) -> None:
    router = world.start(len(weights), weights=weights)
    names = {route: str(number) for number, route in enumerate(router.replicas, 1)}
    assert "".join(names[route] for route in router.turns) == turns


@pytest.mark.parametrize(
    ("written", "name"),
    [({"host": "one", "port": 6000}, "one:6000"), ({"host": "one"}, "one:5432"), ({"host": "/run/pg"}, "/run/pg")],
)
def test_a_server_is_called_by_its_address(world: World, written: dict[str, Any], name: str) -> None:
    router = Scripted(world.settings(written), "shop", world.open)
    assert [each.name for each in router.stats()] in ([name], [name.partition(":")[0]])


def test_a_server_that_fails_is_left_out_and_another_one_serves(world: World, caplog: pytest.LogCaptureFixture) -> None:
    router = world.start()
    one, two = router.replicas
    world.replica(1).refuse()
    with caplog.at_level(logging.WARNING):
        assert world.read(one) == "replica2"
    assert (one.out, two.out) == ("connection refused", "")
    assert (one.reads, two.reads) == (0, 1)
    assert [record.getMessage() for record in caplog.records] == [
        f"shop: replica {one.address} is out of rotation: connection refused"
    ]
    assert world.reads(3) == ["replica2"] * 3
    assert world.replica(1).connects == 1  # nobody's request asks it again
    assert world.read(one) == "replica2"  # a session that had chosen it before neither
    assert world.replica(1).connects == 1


def test_what_one_cannot_serve_is_spread_over_the_others(world: World) -> None:
    router = world.start(4)
    world.replica(1).refuse()
    one = router.replicas[0]
    found = set()
    for _ in range(60):
        one.out = ""
        found.add(world.read(one))
    assert found == {"replica2", "replica3", "replica4"}


def test_without_replicas_the_primary_is_read_and_never_left_out(world: World) -> None:
    router = world.start()
    for number in (1, 2):
        world.replica(number).refuse()
    assert world.read() == "reads"
    assert router.choose() is router.primary
    assert world.read() == "reads"
    assert router.primary.reads == 2
    assert [route.reads for route in router.replicas] == [0, 0]
    assert [(each.name, each.weight, each.reads) for each in router.stats()] == [
        ("one", 1, 0),
        ("two", 1, 0),
        ("primary", 0, 2),
    ]
    router.leave(router.primary, "it is ill")
    assert router.primary.out == ""


def test_a_primary_that_is_away_is_waited_for_as_long_as_any_session_would(world: World) -> None:
    router = world.start()
    primary = router.primary
    world.servers["reads"].refuse()
    with pytest.raises(exc.OperationalError, match="refused"):
        world.read(primary)
    assert world.clock.slept == [routing.PRIMARY_STEP] * 4  # pool_timeout is a second
    world.clock.meanwhile = lambda: setattr(world.servers["reads"], "trouble", None)
    assert world.read(primary) == "reads"
    assert world.clock.slept == [routing.PRIMARY_STEP] * 5


@pytest.mark.parametrize(
    "trouble",
    [
        exc.TimeoutError("the pool is full"),
        deadline.DeadlineExceeded("late"),
        exc.OperationalError(None, None, psycopg2.OperationalError('FATAL:  database "shop" does not exist')),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_a_primary_whose_error_does_not_pass_is_not_waited_for(world: World, trouble: BaseException) -> None:
    primary = world.start().primary
    world.servers["reads"].trouble = trouble
    with pytest.raises(type(trouble)):
        world.read(primary)
    assert world.clock.slept == []


@pytest.mark.parametrize("has_written", [False, True])
def test_a_full_pool_is_no_illness_and_no_other_pool_is_waited_for(
    world: World, written: Callable[..., Mark], has_written: bool
) -> None:
    router = world.start()
    if has_written:
        written("1:0/10")
    world.replica(1).trouble = exc.TimeoutError("the pool is full")
    with pytest.raises(exc.TimeoutError):
        world.read(router.replicas[0])
    assert [route.out for route in router.replicas] == ["", ""]
    assert world.replica(2).connects == 0


def test_a_timeout_that_the_server_is_the_cause_of_is_an_illness(world: World) -> None:
    router = world.start()
    world.replica(1).trouble = late = exc.TimeoutError("no connection")
    late.__cause__ = ConnectionRefusedError()
    assert world.read(router.replicas[0]) == "replica2"
    assert router.replicas[0].out == "no connection"


def test_a_server_is_left_out_for_an_error_without_words_too(world: World) -> None:
    router = world.start()
    world.replica(1).trouble = ConnectionResetError()
    assert world.read(router.replicas[0]) == "replica2"
    assert router.replicas[0].out == "ConnectionResetError"


def test_without_fallback_the_primary_is_never_read_and_the_error_says_why_no_other(world: World) -> None:
    router = world.start(replica_fallback=False)
    world.replica(1).refuse()
    world.replica(2).trouble = BlockingIOError("no")
    with pytest.raises(exc.OperationalError, match=r"one.*: connection refused; two.*: no.*fallback") as caught:
        world.read(router.replicas[0])
    assert caught.value.__cause__ is world.replica(2).trouble
    assert router.choose() is router.replicas[0]
    assert "reads" not in world.servers
    assert world.clock.slept == []


# Read your writes


def test_who_has_written_reads_where_it_is(world: World, written: Callable[..., Mark]) -> None:
    router = world.start(4)
    written("1:0/20")
    one, _, three, _ = router.replicas
    world.replica(1).position, world.replica(3).position = "0/1F", "0/20"
    three.servers["replica3"] = at("0/20")
    assert world.read(one) == "replica3"  # the only one of the others of which that is known
    assert [route.reads for route in router.replicas] == [0, 0, 1, 0]
    assert (world.replica(2).connects, world.replica(4).connects) == (0, 0)
    assert (one.lagged_at, three.lagged_at, one.out) == (world.clock.now, 0.0, "")
    assert one.servers == {"replica1": at("0/1F")}
    assert one.position == at("0/1F")


def test_where_nobody_has_it_the_primary_is_read(world: World, written: Callable[..., Mark]) -> None:
    router = world.start()
    written("1:0/20")
    for number in (1, 2):
        world.replica(number).position = "0/1F"
    assert world.reads(2) == ["reads", "reads"]
    assert router.primary.reads == 2
    asked = [world.replica(number).connects for number in (1, 2)]
    assert world.read(router.primary) == "reads"  # chosen when no replica could be read from: it has all there is
    assert [world.replica(number).connects for number in (1, 2)] == asked
    world.replica(2).position = "0/20"
    world.clock.now += 1
    assert world.read(router.replicas[1]) == "replica2"


def test_who_lagged_a_moment_ago_is_asked_last(world: World, written: Callable[..., Mark]) -> None:
    router = world.start(3)
    one, two, three = router.replicas
    mark = written("1:0/20")
    one.lagged_at = two.lagged_at = world.clock.now - routing.LATELY / 2
    assert next(router._candidates(one, mark)) is three
    two.servers["replica2"] = at("0/20")  # it has caught up
    assert set(itertools.islice(router._candidates(one, mark), 2)) == {two, three}
    assert list(router._candidates(one, mark))[-1] is one
    assert next(router._candidates(one, None)) is one
    for moment in (routing.LATELY, 0.5):  # long enough ago
        one.lagged_at = world.clock.now - moment
        assert next(router._candidates(one, mark)) is one


def test_a_server_that_is_known_to_have_it_is_not_asked(world: World, written: Callable[..., Mark]) -> None:
    world.pool = StaticPool  # a connection that is kept, and of which the server is known
    router = world.start(1)
    written("1:0/20")
    world.replica(1).position = "0/20"
    assert world.reads(3) == ["replica1"] * 3
    assert len(world.replica(1).questions) == 1
    written("1:0/30")
    world.replica(1).position = "0/30"
    assert world.read() == "replica1"
    assert world.replica(1).questions == [positions._POSTGRESQL.replica] * 2
    assert router.replicas[0].position == at("0/30")


def test_a_replica_that_does_not_answer_is_out_and_the_next_one_is_asked(
    world: World, written: Callable[..., Mark]
) -> None:
    router = world.start()
    written("1:0/20")
    world.pool = StaticPool
    one, two = router.replicas
    world.replica(2).position = "0/20"
    one.engine_itself.dispose()
    question = router.ask

    def ask(connection: Connection, text: str) -> str:
        if world.server_of(connection) is world.replica(1):
            raise TimeoutError("no answer within 2 s")
        return question(connection, text)

    router.ask = ask  # type: ignore[method-assign]  # of this one router
    assert world.read(one) == "replica2"
    assert (one.out, two.out) == ("no answer within 2 s", "")
    assert one.reads == 0


def test_a_read_that_is_interrupted_while_it_asks_closes_its_connection(
    world: World, written: Callable[..., Mark]
) -> None:
    router = world.start(1)
    written("1:0/20")
    found: list[Connection] = []

    def ask(connection: Connection, question: str) -> str:
        found.append(connection)
        raise KeyboardInterrupt

    router.ask = ask  # type: ignore[method-assign]  # of this one router
    with pytest.raises(KeyboardInterrupt):
        world.read()
    assert [connection.closed for connection in found] == [True]


def test_a_lagging_replica_does_not_keep_a_connection(world: World, written: Callable[..., Mark]) -> None:
    world.pool = QueuePool
    router = world.start(1)
    written("1:0/20")
    world.replica(1).position = "0/1F"
    with router.connect(router.replicas[0]) as connection:
        assert world.server_of(connection).name == "reads"
        assert world.replica(1).engine.pool.checkedout() == 0


@pytest.mark.parametrize("claimed", [False, True])
def test_without_fallback_a_replica_is_waited_for(world: World, written: Callable[..., Mark], claimed: bool) -> None:
    router = world.start(replica_fallback=False)
    mark = written("1:0/20", claimed=claimed)
    router.primary  # noqa: B018  # opened, so that it can be given a position
    world.servers["reads"].position = "1:0/20"
    for number in (1, 2):
        world.replica(number).position = "0/1F"

    def catch_up() -> None:
        if len(world.clock.slept) == 3:
            world.replica(2).position = "0/20"

    world.clock.meanwhile = catch_up
    assert world.read() == "replica2"
    assert set(world.clock.slept) == {routing.WAIT_STEP}
    assert len(world.clock.slept) in (3, 4)  # the one that is asked first may be the other one
    assert mark.position == "1:0/20"
    assert not mark.claimed
    assert world.servers["reads"].questions == [positions._POSTGRESQL.primary] * claimed


def test_without_fallback_the_wait_ends_with_pool_timeout(world: World, written: Callable[..., Mark]) -> None:
    world.start(1, replica_fallback=False)
    written("1:0/20")
    world.replica(1).position = "0/1F"
    with pytest.raises(exc.OperationalError, match=r"one.*: behind"):
        world.read()
    assert sum(world.clock.slept) == pytest.approx(1.0, abs=2 * routing.WAIT_STEP)


def test_a_deadline_ends_the_wait_for_a_replica(world: World, written: Callable[..., Mark]) -> None:
    world.start(1, replica_fallback=False)
    written("1:0/20")
    world.replica(1).position = "0/1F"
    with deadline.Deadline(60) as limit:
        world.clock.meanwhile = lambda: setattr(limit, "at", 0.0) if len(world.clock.slept) == 2 else None
        with pytest.raises(deadline.DeadlineExceeded, match="a replica was awaited") as caught:
            world.read()
    assert caught.value.connection_is_whole
    assert len(world.clock.slept) == 2


@pytest.mark.parametrize("position", ["1:0/21", "1:what?"])
def test_nobody_waits_for_a_position_that_somebody_made_up(
    world: World, written: Callable[..., Mark], position: str
) -> None:
    router = world.start(1, replica_fallback=False)
    mark = written(position, claimed=True)
    router.primary  # noqa: B018  # opened, so that it can be given a position
    world.servers["reads"].position = "1:0/20"
    world.replica(1).position = "0/20"
    assert world.read() == "replica1"
    assert mark.position == "1:0/20"


def test_a_claim_stands_where_the_primary_does_not_tell_its_position(
    world: World, written: Callable[..., Mark], caplog: pytest.LogCaptureFixture
) -> None:
    router = world.start(1, replica_fallback=False)
    mark = written("1:0/20", claimed=True)
    router.primary  # noqa: B018  # opened, so that it can refuse
    world.servers["reads"].refuse()
    world.replica(1).position = "0/1F"
    with pytest.raises(exc.OperationalError, match="behind"):
        world.read()
    assert mark.claimed
    assert mark.position == "1:0/20"
    assert "shop: the primary does not report its position, reads go by time: " in caplog.text


def test_what_was_just_committed_gets_its_position_from_the_primary_once(
    world: World, written: Callable[..., Mark]
) -> None:
    router = world.start(1)
    mark = written("")
    router.primary  # noqa: B018  # opened, so that it can be given a position
    world.servers["reads"].position = "1:0/20"
    world.replica(1).position = "0/20"
    assert world.reads(2) == ["replica1"] * 2
    assert mark.position == "1:0/20"
    assert world.servers["reads"].questions == [positions._POSTGRESQL.primary]


@pytest.mark.parametrize(
    ("lag", "seconds"),
    [(False, 10.0), (3, 3.0)],  # as docs/faults.md says
)
def test_without_a_position_the_primary_is_read_for_a_while(
    world: World, written: Callable[..., Mark], lag: Any, seconds: float
) -> None:
    router = world.start(1, replica_max_lag=lag)
    mark = written("")
    mark.asked = True  # and the primary told none
    world.replica(1).position = "0/20"
    assert world.read() == "reads"
    world.clock.now += seconds
    assert world.read() == "reads"
    world.clock.now += 0.001
    assert world.read() == "replica1"
    assert router.mark() is None


def test_what_nobody_can_know_is_no_reason_to_read_by_time(world: World, written: Callable[..., Mark]) -> None:
    router = world.start(1)
    written("")

    def ask(connection: Connection, question: str) -> str:
        raise positions.CannotKnow("Pgpool-II")

    router.ask = ask  # type: ignore[method-assign]  # of this one router
    with pytest.raises(positions.CannotKnow):
        world.read()


@pytest.mark.parametrize("position", ["1:0/30", "nonsense"])
def test_a_position_that_no_replica_has_or_that_is_none_is_not_covered(
    world: World, written: Callable[..., Mark], position: str
) -> None:
    router = world.start(1)
    mark = written(position)
    route = router.replicas[0]
    route.servers["replica1"] = at("0/20")
    assert router._covers(at("0/20"), route, mark) is False
    assert router._covers(None, route, mark) is False
    assert router._covers(at("0/20"), route, Mark(0.0, "", True)) is False
    assert router._may_have(route, mark) is False


def test_where_writes_are_not_watched_nobody_is_asked(world: World, written: Callable[..., Mark]) -> None:
    router = world.start(1, read_your_writes=False)
    written("1:0/20")
    assert router.mark() is None
    assert world.read() == "replica1"
    assert world.replica(1).questions == []


# Sessions


def test_a_session_stays_on_the_server_that_it_began_on(world: World) -> None:
    readers = open_readers(world.settings({"host": "one"}, {"host": "two"}), "shop", world.open, None)
    world.replica(1).refuse()
    with readers.plain() as session:
        assert session.get_bind(bind=world.replica(1).engine) is world.replica(1).engine
        chosen: Any = session.get_bind()
        assert chosen.address == "one"
        session.execute(text("SELECT 1"))
        stays: Any = session.get_bind()
        assert stays.address == "two"
        session.commit()
        world.replica(1).trouble = None
        assert world.server_of(session.connection()) is world.replica(2)


# In an event loop


def async_router(world: World) -> AsyncRouter:
    def open_(settings: Any, name: str, **how: Any) -> Any:
        return SimpleNamespace(sync_engine=world.open(settings, name))

    return AsyncRouter(world.settings({"host": "one"}), "shop", open_)


def test_in_an_event_loop_a_look_is_a_task_that_is_kept_until_it_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("greenlet")
    seen: list[Any] = []

    async def main() -> AsyncRouter:
        router = async_router(world)
        done = asyncio.Event()

        def look() -> None:
            gc.collect()
            seen.extend((len(router._looks), deadline.current()))
            done.set()

        router.look = look  # type: ignore[method-assign]  # of this one router
        with deadline.Deadline(60):
            router.begin_look()
            await done.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not router._looks
        paused: list[float] = []

        async def sleep(seconds: float) -> None:
            paused.append(seconds)

        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            await greenlet_spawn(router.pause, 2.5)
        assert paused == [2.5]
        return router

    router = asyncio.run(main())
    assert seen == [1, None]
    assert world.clock.slept == []  # nobody else has to wait with it
    gc.collect()
    with pytest.raises(RuntimeError, match=r"the event loop has ended|Event loop is closed"):
        router.begin_look()


@pytest.fixture
def galera(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Have servers with positions of MariaDB, and connections that are kept."""
    monkeypatch.setattr(positions, "positions_of", lambda engine: positions._MARIADB)
    world.pool = QueuePool
    return world


def test_a_node_of_galera_applies_what_its_cluster_has_before_it_tells_its_position(
    galera: World, written: Callable[..., Mark]
) -> None:
    galera.start(replicas=1).primary.dispose()  # opened by being named
    main = galera.servers["reads"]
    main.position = galera.replica(1).position = "wsrep:cluster:7"
    written("")
    assert galera.read() == "replica1"
    assert main.questions == [positions._MARIADB.primary, positions._MARIADB.settled]
    written("")
    assert galera.read() == "replica1"
    assert main.questions[2:] == [positions._MARIADB.settled]  # where the connection leads is known by now


def test_a_node_of_galera_is_read_in_the_place_of_a_replica_once_it_has_applied_what_its_cluster_has(
    galera: World, written: Callable[..., Mark], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that took the commit may be gone, and this one have received it, without having applied it."""
    router = galera.start(replicas=1)
    router.primary.dispose()  # opened by being named
    main = galera.servers["reads"]
    main.position, galera.replica(1).position = "wsrep:cluster:7", "wsrep:cluster:6"
    written("wsrep:cluster:7")
    busy = [TimeoutError("no answer within 2 s"), pymysql.err.OperationalError(1205, "Lock wait timeout exceeded")]
    ask = router.ask

    def late(connection: Connection, question: str) -> str:
        if question == positions._MARIADB.settled and busy:
            raise busy.pop(0)
        return ask(connection, question)

    monkeypatch.setattr(router, "ask", late)
    assert galera.read() == "reads"
    assert busy == []
    assert galera.clock.slept == [routing.PRIMARY_STEP] * 2


def test_a_node_of_galera_that_does_not_get_there_in_time_is_not_read(
    galera: World, written: Callable[..., Mark], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = galera.start(replicas=1)
    written("wsrep:cluster:7")

    def late(connection: Connection, question: str) -> str:
        raise TimeoutError("no answer within 2 s")

    monkeypatch.setattr(router, "ask", late)
    with pytest.raises(exc.OperationalError, match="no answer within 2 s"):
        galera.read()
    assert galera.clock.slept == [routing.PRIMARY_STEP] * 4  # pool_timeout is a second
    assert router.primary.pool.checkedout() == 0


def test_a_node_of_galera_is_not_waited_for_where_no_position_is_known(
    galera: World, written: Callable[..., Mark], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = galera.start(replicas=1)
    galera.replica(1).refuse()
    written("").asked = True  # a commit of which the primary could not say how far it was
    asked: list[str] = []
    monkeypatch.setattr(router, "ask", lambda connection, question: asked.append(question))
    assert galera.read() == "reads"
    assert asked == []


def test_a_node_of_galera_is_waited_for_if_the_one_that_was_written_to_could_not_tell_its_position(
    galera: World, written: Callable[..., Mark]
) -> None:
    router = galera.start(replicas=1)
    router.primary.dispose()  # opened by being named
    main = galera.servers["reads"]
    main.position = galera.replica(1).position = "wsrep:cluster:7"
    written("")
    galera.read()
    written("").asked = True  # as after a lock wait timeout of a node that has lost its cluster
    galera.replica(1).refuse()
    main.position = "wsrep:cluster:8"
    main.questions.clear()
    assert galera.read() == "reads"
    assert main.questions == [positions._MARIADB.settled]
    assert router.primary.pool.checkedout() == 0


@pytest.mark.parametrize("which", ["primary", "settled"])
def test_a_deadline_that_ends_while_a_node_is_asked_is_raised_as_it_is(
    galera: World, written: Callable[..., Mark], monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    router = galera.start(replicas=1)
    galera.replica(1).position = "wsrep:cluster:6"
    written("wsrep:cluster:7" if which == "settled" else "")

    def late(connection: Connection, question: str) -> str:
        raise deadline.DeadlineExceeded("the deadline is over")

    monkeypatch.setattr(router, "ask", late)
    with pytest.raises(deadline.DeadlineExceeded):
        galera.read()
    assert router.primary.pool.checkedout() == 0
    assert [route.out for route in router.replicas] == [""]


def test_other_servers_of_mariadb_are_asked_once_for_each_connection_what_they_are(
    galera: World, written: Callable[..., Mark]
) -> None:
    galera.start(replicas=1).primary.dispose()  # opened by being named
    main = galera.servers["reads"]
    main.position, galera.replica(1).position = "0-1-7", "0-1-6"
    written("0-1-7")
    assert galera.reads(3) == ["reads"] * 3
    assert main.questions == [positions._MARIADB.primary]
