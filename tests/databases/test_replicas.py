"""Reads over real replicas: shares, lag, failures, promotion, and reading what one has written."""

import asyncio
import contextvars
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dbconfig import Profile, Registry
from dbconfig.engine import pool
from dbconfig.replicas import health, read_your_writes
from tests.groups import Group, Note, name
from tests.support import mysql, servers
from tests.support.clock import Clock
from tests.support.processes import wait_until
from tests.support.servers import MariaDBServer, ServerMissing

pytestmark = pytest.mark.server

INSERTED = "SELECT pg_current_wal_insert_lsn()"


def write(db: Registry) -> int:
    with db.transaction() as session:
        note = Note()
        session.add(note)
        session.flush()
        assert note.id is not None
        return note.id


def has(db: Registry, number: int, **how: bool) -> bool:
    with db.session(**(how or {"read_only": True})) as session:
        return session.get(Note, number) is not None


def read(db: Registry, times: int = 1) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        with db.session(read_only=True) as session:
            session.execute(text("SELECT 1"))
            found[session.connection().engine.address] += 1  # type: ignore[attr-defined]
    return found


def reads(db: Registry) -> dict[str, int]:
    return {each.name: each.reads for each in db.readers()}


def look(db: Registry, clock: Clock) -> None:
    """Let half a second pass, and wait until all servers have been looked at after it."""
    router = db._engines.readers("default").router
    assert router is not None
    clock.advance(0.5)
    now = health.time.monotonic()
    wait_until(
        lambda: bool(router._samples) and router._samples[-1][0] >= now and not router._looking, "a look at the servers"
    )


def test_reads_are_spread_by_weight(group: Group) -> None:
    with group.registry({"weight": 3}, {"weight": 1}) as db:
        expected = {name(group.replicas[0]): 300, name(group.replicas[1]): 100}
        assert read(db, 400) == expected == {k: v for k, v in reads(db).items() if v}
    with group.registry({"weight": 0}, {}) as db:
        assert read(db, 10) == {name(group.replicas[1]): 10}


def test_the_statistics_of_a_pool_say_how_its_server_serves_reads(group: Group) -> None:
    with group.registry({"weight": 3}, {"weight": 0}, replica_max_lag=10.0) as db:
        db.engine()
        for _ in range(4):
            with db.session(read_only=True) as session:
                session.execute(text("SELECT 1"))
        wait_until(
            lambda: {each.role for each in db.all_stats()} == {"primary", "reads", "replica"}, "each pool is there"
        )
        wait_until(lambda: all(each.lag is not None for each in db.all_stats() if each.reads), "the lag is known")
        found = {each.name: each for each in db.all_stats()}
        assert {name: each.reads for name, each in found.items() if each.role == "replica"} == {
            "group/replica1": 4,
            "group/replica2": 0,
        }
        assert all(each.out == "" for each in found.values())
        router = db._engines.readers("default").router
        router.leave(router.replicas[0], "it is ill")
        assert {each.name: each.out for each in db.all_stats() if each.out} == {"group/replica1": "it is ill"}


def test_threads_get_their_shares_as_well(group: Group) -> None:
    with group.registry({"weight": 2}, {"weight": 1}) as db, ThreadPoolExecutor(8) as threads:
        total = sum(threads.map(lambda _: read(db, 30), range(8)), Counter())
        assert abs(total[name(group.replicas[0])] - 160) <= 8


def test_a_session_keeps_its_server(group: Group) -> None:
    with group.registry() as db, db.session(read_only=True) as session:
        seen = set()
        for _ in range(6):
            seen.add(session.scalar(text("SHOW port")))
            session.rollback()
        assert len(seen) == 1


def test_a_snapshot_is_read_from_a_replica(group: Group) -> None:
    with group.registry() as db:
        number = write(db)
        assert has(db, number, snapshot=True)
        with db.session(snapshot=True) as session:
            assert session.scalar(text("SHOW transaction_isolation")) == "repeatable read"


def test_nothing_that_is_written_reaches_a_standby(group: Group) -> None:
    with group.registry() as db:
        for _ in range(20):
            write(db)
        assert reads(db) == {name(each): 0 for each in group.replicas}
        assert [each.connections() for each in group.replicas] == [[], []]
        with db.session(read_only=True) as session, pytest.raises(DBAPIError, match="read-only"):
            session.execute(text("INSERT INTO replica_note (text) VALUES ('x')"))


def test_a_replica_that_lags_is_never_read_after_a_write(group: Group) -> None:
    lagging, current = group.replicas
    with group.registry() as db:
        read(db, 2)
        lagging.sql("SELECT pg_wal_replay_pause()")
        for _ in range(30):
            assert has(db, write(db))
        found = reads(db)
        assert found[name(lagging)] == 1
        assert found[name(current)] + found["primary"] == 31
        # Who has written nothing may read it.
        other = threading.Thread(target=read, args=(db, 4))
        other.start()
        other.join()
        assert reads(db)[name(lagging)] == 3


def test_read_your_writes_can_be_switched_off(group: Group) -> None:
    for replica in group.replicas:
        replica.sql("SELECT pg_wal_replay_pause()")
    with group.registry(read_your_writes=False) as db:
        assert not has(db, write(db))
        assert db.write_token() == ""


def test_a_token_carries_what_was_written_to_another_process(group: Group) -> None:
    with group.registry() as db, group.registry() as elsewhere:
        for replica in group.replicas:
            replica.sql("SELECT pg_wal_replay_pause()")
        assert db.write_token() == ""
        number, token = contextvars.Context().run(lambda: (write(db), db.write_token()))
        assert token
        assert not has(elsewhere, number)
        with elsewhere.read_after(token):
            assert has(elsewhere, number)
        assert not has(elsewhere, number)
        with pytest.raises(ValueError, match="not a token"):
            elsewhere.read_after("!")
        forged = read_your_writes.to_token(
            {read_your_writes.from_token(token).popitem()[0]: read_your_writes.Mark(0, "nonsense")}
        )
        with elsewhere.read_after(forged):
            assert has(elsewhere, number)  # of the primary


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("position", ["far ahead", "nonsense", ""])
def test_a_made_up_token_holds_no_request(group: Group, position: str, asynchronous: bool) -> None:
    """It says that more was written than the primary has: no replica would ever have it."""
    if asynchronous:
        pytest.importorskip("asyncpg")
    limits = {"replica_fallback": False, "replica_max_lag": False, "pool_timeout": 60, "url": group.primary.url()}
    with group.registry(**limits) as db:
        token = contextvars.Context().run(lambda: write(db) and db.write_token())
        [(key, mark)] = read_your_writes.from_token(token).items()
        claimed = mark.position.split(":")[0] + ":FFFFFFFF/FFFFFFFF" if position == "far ahead" else position
        forged = read_your_writes.to_token({key: read_your_writes.Mark(time.time(), claimed)})

        async def in_a_loop() -> object:
            async with db.async_session(read_only=True) as session:
                found = await session.scalar(text("SELECT 1"))
            await db.async_dispose()
            return found

        def request() -> object:
            with db.read_after(forged):
                if asynchronous:
                    return asyncio.run(in_a_loop())
                with db.session(read_only=True) as session:
                    return session.scalar(text("SELECT 1"))

        started = time.monotonic()
        assert contextvars.Context().run(request) == 1
        assert time.monotonic() - started < 30  # it waits for the replicas to have what there is, not for 60 s


def test_threads_of_one_request_share_what_it_has_written(group: Group) -> None:
    for replica in group.replicas:
        replica.sql("SELECT pg_wal_replay_pause()")
    with group.registry() as db, ThreadPoolExecutor(1) as threads:

        def in_request(work: Callable[[], object]) -> object:
            return threads.submit(contextvars.copy_context().run, work).result()

        with db.read_after():
            number = in_request(lambda: write(db))
            assert in_request(lambda: has(db, number))
            assert db.write_token()
        assert not in_request(lambda: has(db, number))


def test_what_a_process_wrote_at_its_start_costs_its_requests_no_question(group: Group) -> None:
    with group.registry() as db:
        write(db)  # each request below has a copy of this context
        for _ in range(4):
            contextvars.copy_context().run(read, db, 2)
        asked = reads(db).get("primary", 0), len(group.primary.connections())
        group.primary.pause()  # who asked it now would wait
        try:
            assert sum(contextvars.copy_context().run(read, db, 4).values()) == 4
        finally:
            group.primary.resume()
        assert (reads(db).get("primary", 0), len(group.primary.connections())) == asked


def test_a_core_commit_and_a_unit_of_work_are_seen_as_well(group: Group) -> None:
    for replica in group.replicas:
        replica.sql("SELECT pg_wal_replay_pause()")
    with group.registry() as db:
        with db.engine().begin() as connection:
            connection.execute(text("INSERT INTO replica_note VALUES (1000001, 'x')"))
        assert has(db, 1000001)
        assert has(
            db, db.run_in_transaction(lambda session: (session.add(note := Note()), session.flush(), note.id)[2])
        )


def test_a_standby_that_is_killed_costs_no_caller_an_error(group: Group) -> None:
    killed, other = group.replicas
    with group.registry() as db:
        read(db, 10)
        killed.kill()
        assert read(db, 100)[name(other)] == 100
        assert "refused" in next(each.out for each in db.readers() if each.name == name(killed))
        killed.start()
        wait_until(lambda: not any(each.out for each in db.readers()), "the replica's return")
        assert read(db, 100) == {name(killed): 50, name(other): 50}


def test_a_standby_that_is_killed_under_load_costs_at_most_one_error_a_thread(group: Group) -> None:
    killed, _ = group.replicas
    errors: list[BaseException] = []
    done = [0] * 8
    stop = threading.Event()

    def reader(number: int) -> None:
        while not stop.is_set():
            try:
                read(db)
            except DBAPIError as error:
                errors.append(error)
            done[number] += 1

    def wait_for_reads() -> None:
        before = list(done)
        wait_until(lambda: all(now >= then + 20 for now, then in zip(done, before, strict=True)), "20 reads of each")

    with group.registry() as db:
        threads = [threading.Thread(target=reader, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_for_reads()
        killed.kill()
        wait_for_reads()
        stop.set()
        for thread in threads:
            thread.join()
    assert len(errors) <= 8  # statements that were under way


def test_without_any_replica_the_primary_is_read(group: Group) -> None:
    with group.registry() as db:
        number = write(db)
        for replica in group.replicas:
            replica.kill()
        assert all(has(db, number) for _ in range(10))
        assert reads(db)["primary"] == 10


def test_the_primary_can_be_forbidden(group: Group) -> None:
    with group.registry(replica_fallback=False, pool_timeout=2) as db:
        group.replicas[0].kill()
        assert read(db, 5) == {name(group.replicas[1]): 5}
        number = write(db)
        assert has(db, number)  # waited for
        assert "primary" not in reads(db) or reads(db)["primary"] == 0
        group.replicas[1].kill()
        with pytest.raises(OperationalError, match="replica_fallback is false"):
            read(db)


@pytest.mark.parametrize("fallback", [True, False])
def test_a_pool_whose_connections_are_all_in_use_is_waited_for_once(group: Group, fallback: bool) -> None:
    limits = {"pool_size": 1, "max_overflow": 0, "replica_fallback": fallback}
    with group.registry(**limits) as db, ExitStack() as stack:
        for _ in group.replicas:
            stack.enter_context(db.session(read_only=True)).execute(text("SELECT 1"))
        for engine in set(db.parts.engines._reading):
            engine.pool._timeout = 0.3  # from now on: to connect takes a busy machine its time
        with pytest.raises(PoolTimeout), db.session(read_only=True) as other:
            other.execute(text("SELECT 1"))
        assert sum(pool.stats(engine).timeouts for engine in set(db.parts.engines._reading)) == 1
        assert [each.out for each in db.readers()] == ["", ""]


def test_a_replica_that_falls_behind_is_left_out_until_it_has_caught_up(group: Group, clock: Clock) -> None:
    lagging, current = group.replicas
    with group.registry(replica_max_lag=0.4) as db:
        read(db)
        lagging.sql("SELECT pg_wal_replay_pause()")
        contextvars.Context().run(write, db)
        wait_until(lambda: any("behind" in each.out for each in db.readers()), "the lag's discovery")
        assert read(db, 10) == {name(current): 10}
        lagging.sql("SELECT pg_wal_replay_resume()")
        wait_until(lambda: not any(each.out for each in db.readers()), "the replica's return")
        for _ in range(4):
            look(db, clock)  # the primary rests, which is no lag
        assert not any(each.out for each in db.readers())


def test_replicas_do_not_lag_behind_a_primary_that_rests_in_a_new_segment(group: Group, clock: Clock) -> None:
    """The primary then points behind a page header, which no replica reaches before the next record."""
    with group.registry(replica_max_lag=0.4) as db:
        number = write(db)
        group.primary.sql("SELECT pg_switch_wal()")
        for replica in group.replicas:
            replica.catch_up()
        fresh = contextvars.Context()
        fresh.run(read, db, 2)
        for _ in range(4):
            look(db, clock)
        assert [each.out for each in db.readers()] == ["", "", ""]
        before = reads(db)["primary"]
        assert all(fresh.run(has, db, number) for _ in range(4))
        assert reads(db)["primary"] == before
        # A writer's mark, taken in such a place, is one that a replica can have.
        key = read_your_writes.key_of("group", db.profile.databases["default"])
        rested = False
        while not rested:
            group.primary.sql("SELECT pg_switch_wal()")
            for replica in group.replicas:
                replica.catch_up()
            before, place = reads(db)["primary"], group.primary.sql(INSERTED)
            read_your_writes.note(key, read_your_writes.Mark(time.time()))
            assert all(has(db, number) for _ in range(4))
            rested = (
                group.primary.sql(INSERTED) == place
            )  # else it has logged something for itself, as it does at times
        assert reads(db)["primary"] == before


def test_a_standby_that_stands_still_is_left_out_in_the_background(group: Group) -> None:
    with group.registry(replica_max_lag=1) as db:
        read(db, 4)
        wait_until(lambda: all(each.lag is not None for each in db.readers() if each.name != "primary"), "a first look")
        group.replicas[0].pause()
        wait_until(lambda: any(each.out for each in db.readers()), "the discovery")
        assert read(db, 10) == {name(group.replicas[1]): 10}
        group.replicas[0].resume()
        wait_until(lambda: not any(each.out for each in db.readers()), "the return")


def test_a_promoted_standby_takes_over_the_writes() -> None:
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary, primary.standby() as standby:
        url = (
            f"postgresql://{primary.user}:{primary.password}@/{primary.database}?host={primary.host}:{primary.port}"
            f"&host={standby.host}:{standby.port}&target_session_attrs=read-write"
        )
        replica = {"url": f"postgresql://{standby.host}:{standby.port}"}
        profile = Profile(name="group", url=url, replicas=[replica], replica_max_lag=False)
        with Registry.from_profile(profile) as db:
            db.create_tables(Note)
            first = write(db)
            assert has(db, first)
            standby.catch_up()
            primary.kill()
            standby.promote()
            second = db.run_in_transaction(
                lambda session: (session.add(note := Note()), session.flush(), note.id)[2], attempts=10
            )
            assert second is not None
            assert has(db, first)
            assert has(db, second)
            assert set(read(db, 4)) == {name(standby)}
            with db.session(read_only=True) as session, pytest.raises(DBAPIError, match="read-only"):
                session.execute(text("DELETE FROM replica_note"))


def test_a_standby_that_was_promoted_by_itself_is_not_taken_for_current() -> None:
    """It goes its own way, further than the primary: its position says nothing of what the primary has."""
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary, primary.standby() as standby:
        profile = Profile(name="parted", url=primary.url(), replicas=[{"port": standby.port}], replica_max_lag=1)
        with Registry.from_profile(profile) as db:
            db.create_tables(Note)
            standby.catch_up()
            standby.promote()
            standby.sql("CREATE TABLE own AS SELECT g, repeat('x', 500) v FROM generate_series(1, 5000) g")
            assert all(has(db, write(db)) for _ in range(10))
            assert reads(db) == {name(standby): 0, "primary": 10}
            wait_until(lambda: "promoted" in db.readers()[0].out, "the discovery")
            assert contextvars.Context().run(read, db, 4) == {"primary": 4}


def test_a_promoted_standby_does_not_lag_ever_further() -> None:
    """It is the primary now, and the only server: the positions of the one before say nothing of it."""
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary, primary.standby() as standby:
        given = {"username": primary.user, "password": primary.password, "database": primary.database}
        hosts = [f"{primary.host}:{primary.port}", f"{standby.host}:{standby.port}"]
        replica = {"host": standby.host, "port": standby.port}
        profile = Profile(
            name="moved", drivername="postgresql", host=hosts, replicas=[replica], replica_max_lag=1, **given
        )
        with Registry.from_profile(profile) as db:
            db.create_tables(Note)
            wait_until(lambda: db.readers()[0].lag == 0.0, "a first look")
            primary.stop()
            standby.promote()
            db.run_in_transaction(lambda session: session.add(Note()))
            looks = itertools.count()

            def is_current() -> bool:
                found = db.readers()[0]
                return found.out == "" and found.lag == 0.0 and next(looks) > 100

            wait_until(is_current, "the end of the lag", timeout=20)


def test_a_read_waits_for_a_primary_that_is_away_where_nobody_else_serves(group: Group) -> None:
    with group.registry(pool_timeout=120) as db:
        read(db, 2)
        for replica in group.replicas:
            replica.stop()
        group.primary.stop()
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.append(sum(read(db, 1).values())))
        reader.start()
        wait_until(lambda: all(each.out for each in db.readers() if each.name != "primary"), "the loss of all")
        group.primary.start()
        reader.join(120)
        assert found == [1]


def test_a_replica_that_is_not_ready_is_left_out_after_the_first_error(
    pair: tuple[MariaDBServer, MariaDBServer],
) -> None:
    """As a node of Galera without its cluster, which lets clients in, and answers each statement so."""
    primary, replica = pair
    answer = "SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1047, MESSAGE_TEXT = 'WSREP has not yet prepared node'"
    profile = Profile(name="pair", url=primary.url(), replicas=[{"port": replica.port}], replica_max_lag=False)
    with Registry.from_profile(profile) as db:
        with db.session(read_only=True) as session:
            assert session.scalar(text("SELECT @@port")) == replica.port
            with pytest.raises(DBAPIError):
                session.execute(text(answer))
        assert "WSREP" in db.readers()[0].out
        wait_until(lambda: db.readers()[0].out == "", "the return")


def test_mariadb_reads_what_it_wrote_by_gtid(pair: tuple[MariaDBServer, MariaDBServer]) -> None:
    primary, replica = pair
    profile = Profile(name="pair", url=primary.url(), replicas=[{"port": replica.port}], replica_max_lag=False)
    with Registry.from_profile(profile) as db:
        db.create_tables(Note)
        replica.catch_up()
        assert read(db, 5) == {name(replica): 5}
        for _ in range(20):
            assert has(db, write(db))
        with db.session(read_only=True) as session, pytest.raises(DBAPIError, match=r"(?i)read.only"):
            session.execute(text("INSERT INTO replica_note (text) VALUES ('x')"))
        replica.sql("STOP REPLICA SQL_THREAD")
        before = reads(db)[name(replica)]
        number = 0
        for _ in range(20):
            number = write(db)
            assert has(db, number)
        assert reads(db)[name(replica)] == before
        replica.sql("START REPLICA SQL_THREAD")
        replica.catch_up()
        assert has(db, number)
        assert reads(db)[name(replica)] == before + 1


# For each system: what loads it on the primary and on the replica, what switches it on there, and what counts commits.
SEMI_SYNC = {
    "mariadb": ((), (), "rpl_semi_sync_master_enabled", "rpl_semi_sync_slave_enabled", "Rpl_semi_sync_master_yes_tx"),
    "mysql": (
        ("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",),
        ("INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'",),
        "rpl_semi_sync_source_enabled",
        "rpl_semi_sync_replica_enabled",
        "Rpl_semi_sync_source_yes_tx",
    ),
}


def test_a_replica_that_has_received_a_commit_and_not_applied_it_is_not_read(
    pair: tuple[MariaDBServer, MariaDBServer],
) -> None:
    """Semi-synchronous replication waits for the former."""
    primary, replica = pair
    load, load_there, variable, variable_there, count = SEMI_SYNC["mysql" if mysql.wanted() else "mariadb"]
    for server, statements in (
        (primary, [*load, f"SET GLOBAL {variable} = ON"]),
        (replica, [*load_there, f"SET GLOBAL {variable_there} = ON", "STOP REPLICA", "START REPLICA"]),
    ):
        for statement in statements:
            server._administrate(statement)

    def received() -> int:
        return int(primary._administrate(f"SHOW GLOBAL STATUS LIKE '{count}'")[0][1])

    def is_received() -> bool:
        before = received()
        primary.sql("CREATE TABLE IF NOT EXISTS semi_sync (id int)")
        primary.sql("DROP TABLE semi_sync")
        return received() > before

    profile = Profile(name="pair", url=primary.url(), replicas=[{"port": replica.port}], replica_max_lag=False)
    with Registry.from_profile(profile) as db:
        wait_until(is_received, "the replica as a semi-synchronous one")
        db.create_tables(Note)
        replica.catch_up()
        replica.sql("STOP REPLICA SQL_THREAD")
        served, so_far = reads(db)[name(replica)], received()
        for _ in range(10):
            assert has(db, write(db))
        assert received() >= so_far + 10
        assert reads(db)[name(replica)] == served
        replica.sql("START REPLICA SQL_THREAD")
        replica.catch_up()
        number = write(db)
        replica.catch_up()
        assert has(db, number)
        assert reads(db)[name(replica)] == served + 1
    replica._administrate(f"SET GLOBAL {variable_there} = OFF")
    primary._administrate(f"SET GLOBAL {variable} = OFF")


@pytest.mark.slow
def test_sixteen_threads_that_write_and_read_never_see_an_old_state() -> None:
    """2,000 pairs here, on two standbys of which one is 500 ms behind; benchmarks/read_your_writes.py runs 10,000."""
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    late = {"recovery_min_apply_delay": "500ms"}
    with primary, primary.standby() as current, primary.standby(settings=late) as delayed:
        group = Group(primary, [current, delayed])
        with group.registry(pool_size=16) as db:
            db.create_tables(Note)

            def pairs(_: int) -> int:
                return sum(not has(db, write(db)) for _ in range(125))

            with ThreadPoolExecutor(16) as threads:
                assert sum(threads.map(pairs, range(16))) == 0
            assert sum(reads(db).values()) == 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reads_over_connections_of_its_own(group: Group) -> None:
    with group.registry() as db:
        number = write(db)
        with db.session(read_only=True) as session:
            assert session.get(Note, number)
            pid = os.fork()
            if pid == 0:
                try:
                    found = all(has(db, number) for _ in range(4)) and not has(db, -1)
                    session.close()  # the parent's
                finally:
                    os._exit(0 if found else 1)
            assert os.waitpid(pid, 0)[1] == 0
            session.rollback()
            assert session.get(Note, number)
        assert has(db, number)


def test_core_connections_read_from_the_replicas_and_see_what_was_written(group: Group) -> None:
    found = text("SELECT count(*) FROM replica_note WHERE id = :id")
    with group.registry() as db:
        for _ in range(4):
            number = write(db)
            with db.connect(read_only=True) as connection, db.begin(read_only=True) as snapshot:
                assert connection.execute(found, {"id": number}).scalar_one() == 1
                assert snapshot.execute(found, {"id": number}).scalar_one() == 1
        assert sum(reads(db).values()) == 8
        with db.connect(read_only=True) as connection, pytest.raises(DBAPIError, match="read-only"):
            connection.execute(text("INSERT INTO replica_note (text) VALUES ('x')"))
