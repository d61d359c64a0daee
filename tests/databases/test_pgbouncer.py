"""A real PgBouncer in transaction mode: what works, what is refused, and that no row is ever somebody else's."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from dbconfig import ConfigError, Profile, Registry
from tests.registries import Hero, Team, ask, at_once
from tests.support.pgbouncer import PgBouncer, pgbouncer
from tests.support.postgresql import PostgreSQLServer
from tests.support.proxy import Proxy
from tests.support.server import ServerMissing

DRIVERS = ("psycopg2", "psycopg")


@pytest.fixture
def bouncer(postgresql: PostgreSQLServer) -> Iterator[PgBouncer]:
    try:
        with pgbouncer(postgresql) as running:
            yield running
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=DRIVERS)
def open_registry(request: pytest.FixtureRequest, bouncer: PgBouncer) -> Iterator[Callable[..., Registry]]:
    pytest.importorskip(request.param)
    made: list[Registry] = []

    def make(**settings: object) -> Registry:
        url = bouncer.url(f"postgresql+{request.param}")
        made.append(Registry.from_profile(Profile(name="pooled", url=url, **settings)))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


LIMITS = {
    "statement_timeout": "3s",
    "lock_timeout": "2s",
    "idle_in_transaction_timeout": "20s",
    "variables": {"search_path": "public, pg_catalog", "work_mem": "5MB", "application_name": "it's me"},
}


def test_timeouts_and_variables_hold_in_every_transaction_and_leave_nothing_behind(
    open_registry: Callable[..., Registry], bouncer: PgBouncer
) -> None:
    with_limits, without = open_registry(pgbouncer=True, **LIMITS), open_registry(pgbouncer=True)

    def shown(db: Registry) -> list[str]:
        with db.session() as session:
            session.execute(text("SELECT 1"))
            names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "work_mem")
            return [ask(session, f"SHOW {name}") for name in names]

    def look() -> None:
        for _ in range(20):
            assert shown(with_limits) == ["3s", "2s", "20s", "5MB"]
            assert shown(without) == ["0", "0", "0", "4MB"]

    at_once([look] * 4)
    with with_limits.session() as session:
        session.execute(text("SET LOCAL statement_timeout = '50ms'"))
        with pytest.raises(DBAPIError, match="statement timeout"):
            session.execute(text("SELECT pg_sleep(5)"))


def test_isolation_levels_savepoints_tables_units_of_work_and_streams_work(
    open_registry: Callable[..., Registry],
) -> None:
    db = open_registry(pgbouncer=True, isolation_level="SERIALIZABLE", statement_timeout="10s")
    assert db.create_tables(Team, Hero) == ["engine_team", "engine_hero"]
    assert ask(db, "SHOW transaction_isolation") == "serializable"

    def add(session: object) -> None:
        with session.begin_nested():  # type: ignore[attr-defined]
            session.add(Team(name="one"))  # type: ignore[attr-defined]

    db.run_in_transaction(add)
    with db.session() as session:
        options = {"yield_per": 100}
        rows = session.execute(text("SELECT generate_series(1, 5000)"), execution_options=options).scalars().all()
        assert rows == list(range(1, 5001))
        assert ask(session, "SELECT count(*) FROM engine_team") == 1
    db.drop_tables(Team, Hero)


def test_a_list_in_a_variable_is_a_list(open_registry: Callable[..., Registry], bouncer: PgBouncer) -> None:
    """To SET one literal is one name."""
    bouncer.server.sql('CREATE SCHEMA "Odd, ""Name"""')
    bouncer.server.sql('CREATE TABLE "Odd, ""Name""".found (id integer)')
    path = 'PUBLIC, "$user", "Odd, ""Name"""'
    db = open_registry(pgbouncer=True, variables={"search_path": path})
    for how in ({}, {"read_only": True}, {"snapshot": True}):
        with db.session(**how) as session:
            assert ask(session, "SHOW search_path") == 'public, "$user", "Odd, ""Name"""'
            assert ask(session, "SELECT count(*) FROM found") == 0


def test_fast_begin_brings_the_limits_along(bouncer: PgBouncer, proxy: Callable[[PgBouncer], Proxy]) -> None:
    network = proxy(bouncer)
    url = bouncer.server.url("postgresql+psycopg2", port=network.port)
    limits = {**LIMITS, "variables": {**LIMITS["variables"], "app.percent": "100%s"}}
    with Registry.from_profile(Profile(name="fast", url=url, pgbouncer=True, fast_begin=True, **limits)) as db:
        db.create_tables(Team, Hero)
        costs = []
        for number in range(4):
            with db.session() as session:
                session.add(Team(id=number + 1, name="one"))
                session.commit()
            costs.append(network.round_trips())
        assert costs[3] - costs[2] == 2
        with db.session() as session:
            for _ in range(2):
                assert ask(session, "SHOW statement_timeout") == "3s"
                assert ask(session, "SHOW app.percent") == "100%s"
                options = {"yield_per": 100}
                rows = session.execute(text("SELECT generate_series(1, 500)"), execution_options=options).scalars()
                assert len(list(rows)) == 500
                session.rollback()
                rows = session.execute(text("SELECT generate_series(1, 500)"), execution_options=options).scalars()
                assert next(rows) == 1
                assert ask(session, "SHOW statement_timeout") == "3s"
                rows.close()
                session.rollback()
        with db.engine().connect() as connection:
            transaction = connection.begin_twophase()
            assert connection.scalar(text("SHOW statement_timeout")) == "3s"
            transaction.rollback()


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "not declared"])
def test_no_client_ever_gets_the_rows_of_another_statement(
    open_registry: Callable[..., Registry], declared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without precautions psycopg is given rows of other statements here, without an error."""
    registries = [open_registry(pgbouncer=declared) for _ in range(4)]
    answers: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        db = registries[number]
        for turn in range(100):
            expected = number * 1000 + turn % 7
            # A statement of its own for each client, seen again and again: the ones that would be prepared.
            statement = f"SELECT CAST(:given AS integer) + {number * 1000}"
            try:
                found = ask(db, statement, given=turn % 7)
            except Exception as error:
                errors.append(error)
            else:
                with lock:
                    answers.append((found, expected))

    with caplog.at_level(logging.WARNING, "dbconfig"):
        at_once([lambda number=number: work(number) for number in range(4)])
    assert errors == []
    assert [pair for pair in answers if pair[0] != pair[1]] == []
    assert len(answers) == 400
    if not declared and registries[0].engine().dialect.driver == "psycopg":
        assert caplog.text.count("write `pgbouncer: true`") == 4  # once for each engine


def test_a_direct_connection_is_not_taken_for_a_pooled_one(
    postgresql: PostgreSQLServer, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("psycopg")
    with Registry.from_profile(Profile(name="direct", url=postgresql.url("postgresql+psycopg"))) as db:
        with caplog.at_level(logging.WARNING, "dbconfig"), db.engine().connect() as connection:
            assert connection.connection.driver_connection.prepare_threshold == 5
        assert caplog.text == ""


def test_undeclared_startup_options_fail_with_what_to_do(open_registry: Callable[..., Registry]) -> None:
    with pytest.raises(DBAPIError, match="unsupported startup parameter") as caught:
        open_registry(statement_timeout="3s").engine().connect()
    assert "Write `pgbouncer: true`" in "".join(caught.value.__notes__)


def test_the_end_of_a_registry_does_not_cancel_the_statement_of_another_client(
    open_registry: Callable[..., Registry],
) -> None:
    mine, other = open_registry(pgbouncer=True), open_registry(pgbouncer=True)
    begun, results = threading.Event(), list[object]()

    def stay(db: Registry, seconds: float) -> None:
        try:
            with db.session() as session:
                session.execute(text("SELECT 1"))
                begun.set()
                session.execute(text(f"SELECT pg_sleep({seconds})"))
                results.append("done")
        except Exception as error:
            results.append(error)

    late = threading.Thread(target=stay, args=(mine, 10))
    late.start()
    begun.wait(60)
    begun.clear()
    fine = threading.Thread(target=stay, args=(other, 2))
    fine.start()
    begun.wait(60)
    mine.dispose(timeout=0.1)
    late.join(60)
    fine.join(60)
    assert len(results) == 2
    assert "done" in results


@pytest.mark.parametrize(
    ("settings", "key", "told"),
    [
        ({"connect_args": {"options": "-c x=1"}}, "connect_args.options", "PgBouncer rejects startup options"),
        ({"query": {"options": "-c x=1"}}, "query.options", "PgBouncer rejects startup options"),
        ({"url": "postgresql://h/d?options=-cx"}, "url", "PgBouncer rejects startup options"),
        ({"connect_args": {"prepare_threshold": 5}}, "connect_args.prepare_threshold", "would prepare statements"),
        ({"isolation_level": "AUTOCOMMIT", "lock_timeout": "1s"}, "lock_timeout", "AUTOCOMMIT has none"),
        (
            {"variables": {"default_transaction_isolation": "serializable"}},
            "variables.default_transaction_isolation",
            "is for the next transaction",
        ),
        ({"url": "mysql://h/d"}, "pgbouncer", "is a pooler for PostgreSQL"),
        ({"url": "sqlite://"}, "pgbouncer", "is a pooler for PostgreSQL"),
    ],
)
def test_what_cannot_work_is_refused_when_the_profile_is_loaded(settings: dict, key: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Profile(name="pooled", **{"url": "postgresql://h/d", "pgbouncer": True, **settings})
    assert (caught.value.problems[0].key, told in caught.value.problems[0].message) == (key, True)


def test_to_prepare_nothing_may_be_said_twice_behind_a_pgbouncer() -> None:
    settings = {"pgbouncer": True, "connect_args": {"prepare_threshold": None}}
    made = Profile(name="pooled", url="postgresql+psycopg://h/d", **settings)
    assert made.databases["default"].connect_args == {"prepare_threshold": None}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_asynchronous_engines_get_their_own_rows_and_limits(bouncer: PgBouncer, driver: str) -> None:
    pytest.importorskip(driver)
    url = bouncer.url(f"postgresql+{driver}")

    async def work(db: Registry, number: int) -> list[tuple[int, int]]:
        found = []
        for turn in range(40):
            async with db.async_session() as session:
                statement = text(f"SELECT CAST(:given AS integer) + {number * 1000}")
                answer = (await (await session.connection()).execute(statement, {"given": turn % 7})).scalar_one()
                found.append((answer, number * 1000 + turn % 7))
                assert (await (await session.connection()).execute(text("SHOW statement_timeout"))).scalar_one() == "3s"
        return found

    async def main() -> list[tuple[int, int]]:
        async with Registry.from_profile(Profile(name="pooled", url=url, pgbouncer=True, **LIMITS)) as db:
            return [pair for part in await asyncio.gather(*(work(db, n) for n in range(4))) for pair in part]

    answers = asyncio.run(main())
    assert len(answers) == 160
    assert [pair for pair in answers if pair[0] != pair[1]] == []


def test_a_unit_of_work_waits_for_a_server_that_restarts_behind_the_pooler(
    open_registry: Callable[..., Registry], postgresql: PostgreSQLServer
) -> None:
    postgresql.sql("CREATE TABLE restarted (x int)")
    db = open_registry(pgbouncer=True)
    insert = text("INSERT INTO restarted VALUES (1)")
    db.run_in_transaction(lambda session: session.execute(insert) and None)
    postgresql.stop("fast")
    attempts, start = [], threading.Timer(1.0, postgresql.start)

    def work(session: Session) -> None:
        attempts.append(1)
        session.execute(insert)

    start.start()
    try:
        db.run_in_transaction(work, timeout=60)
    finally:
        start.join()
    assert postgresql.sql("SELECT count(*) FROM restarted") == [(2,)]
