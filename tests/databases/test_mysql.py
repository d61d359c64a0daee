"""MariaDB, and MySQL as far as it is the same: addresses, passwords, session variables, TLS."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymysql.constants import CLIENT
from sqlalchemy import text
from sqlalchemy.exc import NotSupportedError, OperationalError

from dbconfig import ConfigError, DatabaseSettings, Profile, Registry
from dbconfig.engine.dialects.mysql import base
from tests.databases.secrets_in_places import PASSWORD, PLACES, opened
from tests.registries import Hero, Team, ask, from_yaml, names, registry
from tests.support import mysql, servers
from tests.support.processes import wait_until
from tests.support.servers import MariaDBServer

# SQLAlchemy rejects mariadb:// at MySQL.
MARIADBS = [] if mysql.wanted() else ["mariadb", "mariadb+pymysql"]


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", *MARIADBS, "MySQL"])
@pytest.mark.parametrize("form", ["{}", '"{}"', "'{}'", "{}\n", '"{}"\n', "{}?charset=utf8mb4"])
def test_every_form_of_a_providers_url_connects(scheme: str, form: str, mariadb: MariaDBServer, tmp_path: Path) -> None:
    environ = {"DATABASE_URL": form.format(mariadb.url(scheme))}
    with from_yaml(tmp_path, "url: ${DATABASE_URL}", environ) as db:
        assert ask(db, "SELECT DATABASE()") == mariadb.database
        assert db.engine().driver == "pymysql"


def test_a_socket_is_a_parameter_of_the_url(mariadb: MariaDBServer) -> None:
    server = mariadb
    with registry(f"mysql://{server.user}:{server.password}@/{server.database}?unix_socket={server.socket}") as db:
        assert ask(db, "SELECT USER()") == "app@localhost"


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy", "aiomysql"])
@pytest.mark.parametrize("where", ["host", "url"])
def test_a_host_that_is_a_path_is_the_socket(driver: str, where: str, mariadb: MariaDBServer) -> None:
    login = {"username": mariadb.user, "password": mariadb.password, "database": mariadb.database}
    profile = Profile(name="p", drivername=f"mysql+{driver}", host=str(mariadb.socket), **login)
    if where == "url":
        host = str(mariadb.socket).replace("/", "%2F")
        url = f"mysql+{driver}://{mariadb.user}:{mariadb.password}@{host}/{mariadb.database}"
        profile = Profile(name="p", url=url)

    async def user() -> object:
        async with Registry.from_profile(profile) as db, db.async_session() as session:
            return await session.scalar(text("SELECT USER()"))

    if driver == "pymysql":
        with Registry.from_profile(profile) as db:
            assert ask(db, "SELECT USER()") == "app@localhost"
    else:
        assert asyncio.run(user()) == "app@localhost"


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy", "aiomysql"])
def test_a_connection_that_cannot_be_set_up_is_closed_once(
    driver: str, mariadb: MariaDBServer, caplog: pytest.LogCaptureFixture
) -> None:
    profile = Profile(name="p", url=mariadb.url(f"mysql+{driver}"), variables={"no_such_variable": 1})

    async def use_in_task() -> None:
        async with Registry.from_profile(profile) as db, db.async_session() as session:
            await session.scalar(text("SELECT 1"))

    def use() -> None:
        with Registry.from_profile(profile) as db:
            ask(db, "SELECT 1")

    with pytest.raises(OperationalError, match="no_such_variable"):
        use() if driver == "pymysql" else asyncio.run(use_in_task())
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == []
    wait_until(lambda: mariadb.connections(user=mariadb.user) == [], "the end of the connection")


@pytest.mark.parametrize("sslmode", [None, "prefer"])
def test_aiomysql_asks_for_tls_only_where_it_is_offered(sslmode: str | None, mariadb: MariaDBServer) -> None:
    pytest.importorskip("aiomysql")

    async def flags() -> int:
        profile = Profile(name="p", url=mariadb.url("mysql+aiomysql"), sslmode=sslmode)
        async with Registry.from_profile(profile) as db, db.async_session() as session:
            raw: Any = await (await session.connection()).get_raw_connection()
            return int(raw.driver_connection.client_flag)

    assert not asyncio.run(flags()) & CLIENT.SSL  # MySQL answers "Bad handshake"


def test_two_sockets_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="both as the host and as 'unix_socket'"):
        Profile(name="p", url="mysql://u@%2Frun%2Fa.sock/d?unix_socket=/run/b.sock")


@pytest.mark.parametrize("place", PLACES)
def test_any_password_works_in_every_place(place: str, mariadb: MariaDBServer, tmp_path: Path) -> None:
    mariadb.create_user("nasty", PASSWORD)
    with opened(place, mariadb, tmp_path) as db:
        assert ask(db, "SELECT USER()").startswith("nasty@")


def test_every_character_comes_back(mariadb: MariaDBServer) -> None:
    with registry(mariadb.url()) as db:
        db.create_tables(Team, Hero)
        with db.transaction() as session:
            session.add(Hero(name="Zoë 🦊 %s 'quoted' \\"))
        assert names(db) == ["Zoë 🦊 %s 'quoted' \\"]


def test_a_variable_is_set_after_the_drivers_own_and_may_have_any_text_in_it(mariadb: MariaDBServer) -> None:
    variables = {
        "collation_connection": "utf8mb4_bin",  # SET NAMES would undo it
        "sql_mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES",
        "default_week_format": 3,
    }
    with registry(mariadb.url(), variables=variables) as db:
        assert ask(db, "SELECT @@collation_connection") == "utf8mb4_bin"
        assert ask(db, "SELECT @@sql_mode") == "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"
        assert ask(db, "SELECT @@default_week_format") == 3
    for each in ("it's", 'say "x"', "back\\slash", "100%s", "é€"):
        with registry(mariadb.url(), variables={"sql_mode": each}) as db, pytest.raises(OperationalError) as caught:
            ask(db, "SELECT 1")
        cause: Any = caught.value.orig
        assert cause.args[1] == f"Variable 'sql_mode' can't be set to the value of '{each}'"


def test_a_transaction_that_rests_too_long_is_ended_and_the_pool_goes_on(mariadb: MariaDBServer) -> None:
    with registry(mariadb.url(), idle_in_transaction_timeout="500ms") as db:
        if mysql.wanted():
            with pytest.raises(NotSupportedError, match="MySQL has no such limit"):
                ask(db, "SELECT 1")
            return
        with db.session() as session:
            assert ask(session, "SELECT @@idle_transaction_timeout") == 1  # whole seconds
            number = ask(session, "SELECT CONNECTION_ID()")
            db.create_tables(Team)
            ask(session, "SELECT count(*) FROM engine_team")
            wait_until(lambda: number not in mariadb.connections(), "the end of the idle transaction")
            with pytest.raises(OperationalError, match=r"gone away|Lost connection|closed"):
                ask(session, "SELECT 1")
        assert ask(db, "SELECT 1") == 1


@pytest.mark.parametrize("on_mariadb", [True, False])
def test_each_server_gets_the_timeouts_in_its_own_words(on_mariadb: bool) -> None:
    settings = DatabaseSettings(url="mysql://h/d", statement_timeout=1.5, lock_timeout="300ms")
    found = base._timeouts(settings, mariadb=on_mariadb)
    statement = {"max_statement_time": 1.5} if on_mariadb else {"max_execution_time": 1500}
    assert found == {**statement, "innodb_lock_wait_timeout": 1, "lock_wait_timeout": 1}


def test_what_mysql_does_not_have_is_told_at_the_first_connection() -> None:
    settings = DatabaseSettings(url="mysql://h/d", idle_in_transaction_timeout=1)
    with pytest.raises(NotSupportedError, match="MySQL has no such limit"):
        base._timeouts(settings, mariadb=False)


@pytest.mark.parametrize(
    ("extra", "settings", "message"),
    [
        ("?ssl_verify_cert=false", {}, "write it into `connect_args`, where values have types"),
        ("?sslmod=require", {}, "'sslmod' is not a parameter of mysql's URLs"),
        ("", {"connect_args": {"options": "-c x=1"}}, "'options' is not an argument of any mysql driver"),
        ("", {"connect_args": {"read_timout": 1}}, "'read_timout' is not an argument of any mysql driver"),
        ("", {"dialect_options": {"use_native_hstore": False}}, "is not an argument of mysql's dialect"),
        ("", {"variables": {"sql_mode": {"a": 1}}}, "a session variable has one value, not a mapping"),
    ],
)
def test_an_unknown_name_is_told_before_anything_connects(extra: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught, registry(f"mysql://nobody@192.0.2.1/none{extra}", **settings) as db:
        db.engine()
    assert message in str(caught.value)


# TLS


@pytest.mark.parametrize("driver", ["mysql+pymysql", "mysql+aiomysql", "mysql+asyncmy"])
@pytest.mark.parametrize(
    ("text", "slug", "key"),
    [
        ("connect_args: {ssl_ca: /nowhere.pem}", "file-unreadable", "connect_args.ssl_ca"),
        ("connect_args: {ssl_cert: /nowhere.pem}", "file-unreadable", "connect_args.ssl_cert"),
        ("connect_args: {ssl: {ca: /nowhere.pem}}", "file-unreadable", "connect_args.ssl.ca"),
        ("query: {ssl_ca: /nowhere.pem}", "file-unreadable", "query.ssl_ca"),
        ("connect_args: {charset: klingon}", "invalid-value", "connect_args.charset"),
        ("query: {charset: klingon}", "invalid-value", "query.charset"),
    ],
)
def test_what_no_connect_can_use_is_told_at_its_place_and_not_as_a_server_that_is_down(
    driver: str, text: str, slug: str, key: str, tmp_path: Path
) -> None:
    with from_yaml(tmp_path, f"url: {driver}://u@127.0.0.1:1/d\n{text}\n") as db, pytest.raises(ConfigError) as caught:
        asyncio.run(_async_engine(db)) if driver != "mysql+pymysql" else db.engine()
    (problem,) = caught.value.problems
    assert (problem.slug, problem.key, problem.location.line) == (slug, key, 2)


async def _async_engine(db: Registry) -> None:
    db.async_engine()


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the TLS contexts that are made."""
    made: list[int] = []
    make: Callable[..., ssl.SSLContext] = ssl.create_default_context

    def count(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(1)
        return make(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", count)
    return made


@pytest.fixture(scope="module")
def secure() -> Iterator[MariaDBServer]:
    try:
        server = servers.mariadb(tls=True)
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


def _cipher(db: Registry) -> str:
    with db.session() as session:
        return str(session.connection().exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1])


@pytest.mark.server
def test_connections_share_one_tls_context(secure: MariaDBServer, contexts: list[int]) -> None:
    verified = f"{secure.url()}?ssl_ca={secure.certificate}"
    with registry(verified, poolclass="NullPool") as db:
        assert [bool(_cipher(db)) for _ in range(4)] == [True] * 4
    assert contexts == [1]


@pytest.mark.server
def test_the_authority_is_checked_where_the_url_names_one(secure: MariaDBServer, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=stranger"]
    subprocess.run([*command, "-keyout", tmp_path / "key.pem", "-out", stranger], check=True, capture_output=True)
    url = f"{secure.url()}?ssl_ca={stranger}"
    with registry(url) as db, pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(db, "SELECT 1")
    with registry(secure.url(), connect_args={"ssl_disabled": True}) as db:
        assert _cipher(db) == ""


def test_a_server_without_tls_is_reached_without_making_a_context_each_time(
    mariadb: MariaDBServer, contexts: list[int]
) -> None:
    with registry(mariadb.url(), poolclass="NullPool") as db:
        assert [ask(db, "SELECT 1") for _ in range(4)] == [1] * 4
    assert len(contexts) <= 1  # older drivers make none unless asked
    with registry(f"mysql://app:{mariadb.password}@/{mariadb.database}?unix_socket={mariadb.socket}") as db:
        ask(db, "SELECT 1")
    assert len(contexts) <= 1
