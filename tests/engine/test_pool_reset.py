"""`pool_reset: discard`: what a session has set for itself, for good, is gone for the next user of its connection."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from dbconfig import ConfigError, Registry
from tests.registries import registry
from tests.support.drivers import DRIVERS, Driver, params

POSTGRESQL = {
    "search_path": ("SET search_path TO tenant_a", "SELECT current_setting('search_path') = 'tenant_a'"),
    "a role": ("SET ROLE pg_monitor", "SELECT current_user = 'pg_monitor'"),
    "a temporary table": ("CREATE TEMP TABLE tt (x INT)", "SELECT to_regclass('pg_temp.tt') IS NOT NULL"),
    "an advisory lock": (
        "SELECT pg_advisory_lock(4711)",
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
    ),
    "LISTEN": ("LISTEN news", "SELECT EXISTS (SELECT FROM pg_listening_channels())"),
}
MYSQL = {
    "sql_mode": ("SET SESSION sql_mode = ''", "SELECT @@sql_mode = ''"),
    "a variable": ("SET @who = 'tenant_a'", "SELECT @who IS NOT NULL"),
    "a lock": ("SELECT get_lock('of the test', 1)", "SELECT is_used_lock('of the test') <=> connection_id()"),
    "a temporary table": ("CREATE TEMPORARY TABLE tt (x INT)", ""),
    "character set": ("SET NAMES latin1", "SELECT @@character_set_client <> 'utf8mb4'"),
}
SQLITE = {
    "a temporary table": ("CREATE TEMP TABLE tt (x INT)", "SELECT count(*) FROM sqlite_temp_master"),
    "a PRAGMA": ("PRAGMA cache_size = 77", "SELECT cache_size = 77 FROM pragma_cache_size"),
}
IDENTITY = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT connection_id()"}
LIMITS = {
    "postgresql": ("SHOW statement_timeout", "3s"),
    "mariadb": ("SELECT concat(@@max_statement_time, ' ', @@character_set_client)", "3.000000 utf8mb4"),
    "sqlite": ("PRAGMA foreign_keys", 1),
}
Run = Callable[..., Any]


@pytest.fixture(params=params(DRIVERS))
def place(request: pytest.FixtureRequest) -> tuple[str, str, bool]:
    driver: Driver = request.param
    return driver.server or "sqlite", driver.url(request), driver.asynchronous


def use(db: Registry, asynchronous: bool, *works: Callable[[Connection], Any], read_only: bool = False) -> list[Any]:
    """Let each function have a session's connection, one session after the other, in one pool."""
    if not asynchronous:
        found = []
        for work in works:
            with db.session(read_only=read_only) as session:
                found.append(work(session.connection()))
        return found

    async def run() -> list[Any]:
        found = []
        for work in works:
            async with db.async_session(read_only=read_only) as session:
                found.append(await session.run_sync(lambda sync, work=work: work(sync.connection())))
        await db.async_dispose()
        return found

    return asyncio.run(run())


def leave(system: str) -> Callable[[Connection], Any]:
    def work(connection: Connection) -> Any:
        if system == "postgresql":
            connection.execute(text("SET ROLE NONE"))
        for statement, _ in {"postgresql": POSTGRESQL, "mariadb": MYSQL, "sqlite": SQLITE}[system].values():
            connection.execute(text(statement))
        connection.commit()
        return identity(system)(connection)

    return work


def identity(system: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.execute(text(IDENTITY[system])).scalar() if system in IDENTITY else None


def left(system: str) -> Callable[[Connection], list[str]]:
    def work(connection: Connection) -> list[str]:
        found = []
        for name, (_, question) in {"postgresql": POSTGRESQL, "mariadb": MYSQL, "sqlite": SQLITE}[system].items():
            if question and connection.execute(text(question)).scalar():
                found.append(name)
        if system == "mariadb":
            try:
                connection.execute(text("SELECT * FROM tt"))
            except DBAPIError:
                connection.rollback()
            else:
                found.append("a temporary table")
        return found

    return work


@pytest.fixture
def settings(place: tuple[str, str, bool]) -> dict[str, Any]:
    pool = {"pool_size": 1, "max_overflow": 0}
    return pool if place[0] == "sqlite" else {**pool, "statement_timeout": "3s"}


@pytest.fixture
def granted(place: tuple[str, str, bool], request: pytest.FixtureRequest) -> None:
    if place[0] == "postgresql":
        request.getfixturevalue("postgresql").sql("GRANT pg_monitor TO app")


@pytest.mark.parametrize("key", ["pool_reset", "pool_reset_on_return"])
@pytest.mark.usefixtures("granted")
def test_nothing_of_a_session_reaches_the_next_one(
    place: tuple[str, str, bool], settings: dict[str, Any], key: str
) -> None:
    system, url, asynchronous = place
    with registry(url, **settings, **{key: "discard"}) as db:
        before, found, after = use(db, asynchronous, leave(system), left(system), identity(system))
        assert found == []
        assert before == after  # the connection itself is kept, where that is cheaper


@pytest.mark.usefixtures("granted")
def test_without_it_all_of_that_is_there(place: tuple[str, str, bool], settings: dict[str, Any]) -> None:
    system, url, asynchronous = place
    with registry(url, **settings) as db:
        _, found = use(db, asynchronous, leave(system), left(system))
        assert sorted(found) == sorted({"postgresql": POSTGRESQL, "mariadb": MYSQL, "sqlite": SQLITE}[system])


@pytest.mark.parametrize("read_only", [False, True])
def test_limits_and_the_refusal_of_writes_survive_a_reset(
    place: tuple[str, str, bool], settings: dict[str, Any], read_only: bool
) -> None:
    system, url, asynchronous = place
    question, expected = LIMITS[system]

    def ask(connection: Connection) -> Any:
        return connection.execute(text(question)).scalar()

    def write(connection: Connection) -> str:
        try:
            connection.execute(text("CREATE TABLE written (x INT)"))
            connection.commit()
        except DBAPIError:
            return "refused"
        return "written"

    with registry(url, **settings, pool_reset="discard", isolation_level="SERIALIZABLE") as db:
        works = [ask, ask, write]
        if system != "sqlite":
            works.append(_level(system))
        found = use(db, asynchronous, *works, read_only=read_only)
        assert found[:3] == [expected, expected, "refused" if read_only else "written"]
        if system != "sqlite" and not read_only:
            assert found[3] == "serializable"


def _level(system: str) -> Callable[[Connection], str]:
    question = "SHOW transaction_isolation" if system == "postgresql" else "SELECT lower(@@tx_isolation)"
    return lambda connection: str(connection.execute(text(question)).scalar())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pgbouncer": True, "pool_reset": "discard"}, "whichever server connection is free"),
        ({"pgbouncer": True, "pool_reset_on_return": "discard"}, "whichever server connection is free"),
        ({"poolclass": "NullPool", "pool_reset": "discard"}, "each connection is used once"),
        ({"pool_reset_on_return": "commit", "pool_reset": "discard"}, "contradicts"),
        ({"pool_reset": "everything"}, "must be one of rollback, discard"),
    ],
)
def test_what_cannot_be_reset_is_refused_when_the_profile_is_loaded(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry("postgresql://app@db/shop", **keys)
    assert message in str(caught.value)
