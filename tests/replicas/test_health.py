"""Which servers are healthy, which are out of rotation, and how far each one lags."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pymysql
import pytest
from sqlalchemy import Connection, Engine, exc
from sqlalchemy.pool import StaticPool

from dbconfig.engine.pool.deadline import DeadlineExceeded
from dbconfig.replicas import health, positions
from tests.replicas.scripted import World


def test_a_server_is_looked_at_after_a_while_and_read_again_when_it_answers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    router = world.start()
    one, two = router.replicas
    assert world.keeper.jobs == {}  # nothing to do while all are well, and nobody asks how far they are
    world.replica(1).refuse()
    world.read(one)
    assert world.keeper.delays == [health.FIRST_PAUSE]
    assert one.again == world.clock.now + health.FIRST_PAUSE
    asked = world.replica(1).connects
    assert world.look() == health.FIRST_PAUSE
    assert world.replica(1).connects == asked  # too early
    pauses = []
    for _ in range(8):
        world.clock.now = one.again
        world.look()
        pauses.append(one.again - world.clock.now)
    assert pauses == [1, 2, 4, 8, 15, 15, 15, 15]
    world.replica(1).trouble = None
    world.clock.now = one.again
    with caplog.at_level(logging.INFO):
        assert world.look() == health.LONGEST_LOOK
    assert f"shop: replica {one.address} is back in rotation" in caplog.text
    assert (one.out, one.pause) == ("", health.FIRST_PAUSE)
    assert set(world.reads(2)) == {"replica1", "replica2"}
    assert world.look() is None
    assert two.out == ""


def test_the_first_reason_for_which_a_server_is_out_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    router = world.start()
    one = router.replicas[0]
    router.leave(one, "the first")
    again = one.again
    world.clock.now += 1
    router.leave(one, "the second")
    assert (one.out, one.again) == ("the first", again)
    assert len(caplog.records) == 1
    assert len(world.keeper.delays) == 1


@pytest.mark.parametrize(("lag", "seconds"), [(1, 0.25), (8, 2.0), (60, health.LONGEST_LOOK)])
def test_how_far_the_replicas_are_is_looked_at_in_time(world: World, lag: float, seconds: float) -> None:
    router = world.start(replica_max_lag=lag)
    assert world.keeper.delays == [seconds]
    assert world.look() == seconds
    assert router.looks == 1
    router.replicas[0].out = "ill"
    router.replicas[0].again = world.clock.now + 100
    assert world.look() == min(seconds, health.FIRST_PAUSE)


def test_each_database_has_a_job_of_its_own_until_it_rests(world: World) -> None:
    first, second = world.start(replica_max_lag=8), world.start(replica_max_lag=8)
    assert len(world.keeper.jobs) == 2
    first.rest()
    (job,) = world.keeper.jobs.values()
    assert job() == 2.0
    assert (first.looks, second.looks) == (0, 1)


def test_a_server_is_marked_as_asked_while_its_position_is_asked_for(world: World) -> None:
    router = world.start(2, replica_max_lag=8)
    router.primary  # noqa: B018  # opened
    routes = [router.primary, *router.replicas]
    found: list[list[bool]] = []
    ask = router.ask

    def noting(connection: Connection, question: str) -> str:
        found.append([route.asked for route in routes])
        return ask(connection, question)

    router.ask = noting  # type: ignore[method-assign]  # of this one router
    assert not any(route.asked for route in routes)
    world.replica(2).trouble = OSError("gone")
    world.look()
    assert found == [[True, False, False], [False, True, False]]  # the third one refuses the connection
    assert not any(route.asked for route in routes)


def test_only_a_wait_that_used_up_the_callers_time_is_no_fault_of_the_server() -> None:
    caused = DeadlineExceeded("late")
    caused.__cause__ = OSError("gone")
    timeout = exc.TimeoutError("the pool is exhausted")
    silent = exc.TimeoutError("the server did not answer")
    silent.__cause__ = OSError("gone")
    found = [health.is_exhausted(error) for error in (caused, DeadlineExceeded("late"), timeout, silent, OSError())]
    assert found == [True, True, True, False, False]


def test_one_look_at_a_time(world: World) -> None:
    router = world.start(replica_max_lag=8)
    router._looking = True
    assert world.look() == 2.0
    assert router.looks == 0
    router.look()
    assert world.look() == 2.0
    assert router.looks == 1


def test_where_no_thread_can_be_started_nobody_looks_any_more(world: World) -> None:
    router = world.start(replica_max_lag=8)

    def begin_look() -> None:
        raise RuntimeError("can't start new thread")

    router.begin_look = begin_look  # type: ignore[method-assign]  # of this one router
    assert world.look() is None


def test_the_lag_is_how_long_ago_the_primary_was_there(world: World) -> None:
    router = world.start(1, replica_max_lag=8)
    route = router.replicas[0]
    router.primary  # noqa: B018  # opened, so that it can be given a position
    primary, replica = world.servers["reads"], world.replica(1)
    replica.position = "0/10"
    assert (world.look(), route.lag) == (2.0, None)  # nothing is known of the primary
    lags = []
    for position in ("1:0/10", "1:0/20", "1:0/30", "1:0/30", "1:0/40", "1:0/40", "1:0/40"):
        primary.position = position
        world.look()
        lags.append(route.lag)
        world.clock.now += 2
    assert lags == [0.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert route.out == "it is 10.0 s behind (replica_max_lag is 8 s)"
    assert world.read() == "reads"
    replica.position = "0/38"
    world.look()
    assert route.lag == 6.0
    assert route.out == ""


def test_what_the_primary_had_long_ago_is_forgotten(world: World) -> None:
    router = world.start(1, replica_max_lag=2)
    router.primary  # noqa: B018  # opened, so that it can be given a position
    world.servers["reads"].position = "1:0/10"
    kept = health.KEPT + 4 * 2
    world.look()
    began = world.clock.now
    world.clock.now = began + kept
    world.look()
    assert [at for at, _ in router._samples] == [began, began + kept]
    world.clock.now += 0.5
    world.servers["reads"].position = ""
    world.look()
    assert [at for at, _ in router._samples] == [began + kept]


def test_a_replica_that_was_promoted_is_out_until_it_follows_again(world: World) -> None:
    router = world.start(1, replica_max_lag=8)
    route = router.replicas[0]
    router.primary  # noqa: B018  # opened, so that it can be given a position
    world.servers["reads"].position = "1:0/20"
    world.replica(1).position = "0/20"
    world.look()
    assert (route.lag, route.out) == (0.0, "")
    world.replica(1).position = "2:0/20"
    world.look()
    assert route.out == "it was promoted, and no longer follows this primary"
    assert route.lag is None
    assert route.again == world.clock.now + health.FIRST_PAUSE
    world.servers["reads"].position = "2:0/30"  # the primary is another one: what the one before had says nothing
    world.clock.now = route.again
    world.look()
    assert [position for _, position in router._samples] == [positions._POSTGRESQL.parse("2:0/30")]


def test_a_node_that_answers_and_is_not_ready_is_out(world: World) -> None:
    router = world.start(1, replica_max_lag=8)
    route = router.replicas[0]
    world.replica(1).unfit = "it is a donor"
    world.look()
    assert (route.out, route.pause) == ("it is a donor", health.FIRST_PAUSE)
    world.clock.now = route.again
    world.look()
    assert (route.out, route.pause) == ("it is a donor", 2 * health.FIRST_PAUSE)
    world.replica(1).unfit = ""
    world.clock.now = route.again
    world.look()
    assert route.out == ""


def test_a_primary_that_does_not_answer_is_no_fault_of_its_replicas(world: World) -> None:
    router = world.start(1, replica_max_lag=8)
    router.primary  # noqa: B018  # opened, so that it can refuse
    world.servers["reads"].refuse()
    world.look()
    assert router.replicas[0].out == ""
    assert router._samples == health.deque()
    assert router._looking is False


def test_behind_an_address_with_ever_new_servers_the_last_hundred_are_known(world: World) -> None:
    router = world.start(1)
    route = router.replicas[0]
    for number in range(health.MOST_SERVERS + 5):
        router.note_position(route, str(number), "0/10")
    router.note_position(route, "50", "")
    assert len(route.servers) == health.MOST_SERVERS
    assert next(iter(route.servers)) == "5"
    assert list(route.servers.items())[-1] == ("50", None)


def test_after_the_end_nobody_looks_and_what_a_look_has_opened_is_closed(world: World) -> None:
    router = world.start(1, replica_max_lag=8)
    world.pool = StaticPool
    (job,) = world.keeper.jobs.values()
    router.rest()
    assert world.keeper.jobs == {}
    router.leave(router.replicas[0], "ill")
    assert world.keeper.jobs == {}
    ended: list[Engine] = []
    for engine in router.engines():
        engine.dispose = lambda *_, engine=engine: ended.append(engine)  # type: ignore[method-assign]
    job()
    assert world.replica(1).connects == 0
    assert world.servers["reads"].engine in router.engines()
    assert router.replicas[0].engine_itself in ended


@pytest.mark.parametrize(
    ("number", "out"), [(1047, "WSREP has not yet prepared node"), (1064, ""), (1213, "")], ids=str
)
def test_a_server_that_serves_nobody_is_left_out_by_its_error(world: World, number: int, out: str) -> None:
    router = world.start(url="mysql+pymysql://app@main/shop")
    (route, other) = router.replicas
    error = pymysql.err.OperationalError(number, "WSREP has not yet prepared node")
    (tell,) = route.engine_itself.dialect.dispatch.handle_error
    with route.connect() as connection:
        tell(SimpleNamespace(original_exception=error, connection=None))  # of a connect, whose caller looks at it
        assert route.out == ""
        tell(SimpleNamespace(original_exception=error, connection=connection))
    assert (out in route.out, bool(route.out), other.out) == (True, bool(out), "")
