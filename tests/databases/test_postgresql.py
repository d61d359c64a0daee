"""PostgreSQL: addresses, passwords, startup options."""

from collections.abc import Iterator
from contextlib import closing
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Field, MetaData, SQLModel

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine import dialects
from tests.databases.secrets_in_places import PASSWORD, PLACES, opened
from tests.registries import Account, ask, from_yaml, registry
from tests.support import servers
from tests.support.processes import wait_until
from tests.support.servers import PostgreSQLServer

DRIVERS = ["psycopg2", pytest.param("psycopg", marks=pytest.mark.skipif(not find_spec("psycopg"), reason="an extra"))]


# Addresses


def test_psycopg_prepares_nothing_where_the_threshold_is_null(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = postgresql.url("postgresql+psycopg")
    for value, threshold in (("~", None), ("null", None), ("3", 3)):
        yaml = f"url: {url}\nconnect_args: {{prepare_threshold: {value}}}"
        with from_yaml(tmp_path, yaml) as db, db.engine().connect() as connection:
            assert connection.connection.driver_connection.prepare_threshold is threshold


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
def test_an_argument_that_is_null_takes_nothing_else_along(driver: str) -> None:
    pytest.importorskip(driver)
    settings = Profile(
        name="tests",
        url=f"postgresql+{driver}://h/d",
        statement_timeout="2s",
        connect_args={"options": None, "application_name": None, "sslmode": None},
    ).databases["default"]
    arguments = dialects.of("postgresql").arguments(settings, f"postgresql+{driver}")
    assert "2000" in str(arguments)
    assert "None'" not in str(arguments)  # the text


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "PostgreSQL", "postgresql+psycopg2"])
@pytest.mark.parametrize("form", ["{}", '"{}"', "'{}'", "{}\n", " {}\r\n", '"{}"\n', "{}?application_name=form"])
def test_every_form_of_a_providers_url_connects(
    scheme: str, form: str, postgresql: PostgreSQLServer, tmp_path: Path
) -> None:
    environ = {"DATABASE_URL": form.format(postgresql.url(scheme))}
    with from_yaml(tmp_path, "url: ${DATABASE_URL}", environ) as db:
        assert ask(db, "SELECT current_database()") == postgresql.database
        assert db.engine().url.drivername == "postgresql+psycopg2"
        assert ask(db, "SHOW application_name") == ("form" if "form" in form else f"{tmp_path.name}/development")


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_named_driver_is_taken(driver: str, postgresql: PostgreSQLServer) -> None:
    with registry(
        postgresql.url(f"postgresql+{driver}"),
        statement_timeout="700ms",
        variables={"application_name": "a b"},
        connect_args={"keepalives": 1},
    ) as db:
        assert db.engine().driver == driver
        assert (ask(db, "SHOW statement_timeout"), ask(db, "SHOW application_name")) == ("700ms", "a b")


@pytest.mark.parametrize("key", ["host", "query"])
def test_a_folder_of_a_socket_is_a_host(key: str, postgresql: PostgreSQLServer) -> None:
    server = postgresql
    if key == "host":
        parts: dict[str, Any] = {"drivername": "postgresql", "host": server.socket, "port": server.port}
    else:
        parts = {"url": "postgresql://", "query": {"host": server.socket, "port": server.port}}
    profile = Profile(name="tests", username=server.user, password=server.password, database=server.database, **parts)
    with Registry.from_profile(profile) as db:
        assert ask(db, "SELECT inet_server_addr() IS NULL") is True


def test_the_second_of_two_hosts_is_taken_if_the_first_does_not_answer(postgresql: PostgreSQLServer) -> None:
    server = postgresql
    hosts = f"?host={server.host}:1&host={server.host}:{server.port}"
    with registry(f"postgresql://{server.user}:{server.password}@/{server.database}{hosts}") as db:
        assert ask(db, "SELECT 1") == 1


def test_an_ipv6_address_reaches_the_driver_without_its_brackets() -> None:
    with registry("postgresql://app@[::1]:6543/shop") as db:
        engine = db.engine()
        assert engine.dialect.create_connect_args(engine.url)[1] == {
            "host": "::1",
            "dbname": "shop",
            "user": "app",
            "port": 6543,
        }


# Passwords


@pytest.mark.parametrize("place", PLACES)
def test_any_password_works_in_every_place(place: str, postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    postgresql.create_user("nasty", PASSWORD)
    with opened(place, postgresql, tmp_path) as db:
        assert ask(db, "SELECT current_user") == "nasty"


def test_a_password_in_a_file_is_read_again_for_each_new_connection(
    postgresql: PostgreSQLServer, tmp_path: Path
) -> None:
    postgresql.create_user("nasty", "the first one")
    secret = tmp_path / "secret"
    secret.write_text("the first one\n")
    secret.chmod(0o600)
    address = f"{postgresql.host}:{postgresql.port}/{postgresql.database}"
    yaml = f"url: postgresql://nasty@{address}\npassword: {{file: secret}}"
    with from_yaml(tmp_path, yaml) as db:
        assert ask(db, "SELECT current_user") == "nasty"
        postgresql.set_password("nasty", "the second one")
        secret.write_text("the second one\n")
        postgresql.terminate()
        db.engine().dispose()
        assert ask(db, "SELECT current_user") == "nasty"


# Startup options


def test_options_of_the_url_and_of_the_arguments_join_ours(postgresql: PostgreSQLServer) -> None:
    with registry(
        postgresql.url() + "?options=-c%20work_mem%3D77kB",
        connect_args={"options": "-c enable_seqscan=off"},
        lock_timeout="3s",
        idle_in_transaction_timeout="1m",
        variables={"search_path": '"$user", "odd name", public', "my.value": "back\\slash", "enable_hashjoin": False},
    ) as db:
        expected = {
            "work_mem": "77kB",
            "enable_seqscan": "off",
            "lock_timeout": "3s",
            "idle_in_transaction_session_timeout": "1min",
            "search_path": '"$user", "odd name", public',
            "my.value": "back\\slash",
            "enable_hashjoin": "off",
            "statement_timeout": "0",
        }
        assert {name: ask(db, f"SHOW {name}") for name in expected} == expected


@pytest.mark.parametrize("value", ["a\ttab", "two\nlines", "trailing\\", " leading", "it's", 'say "x"', ""])
def test_a_variable_may_have_any_text_in_it(value: str, postgresql: PostgreSQLServer) -> None:
    with registry(postgresql.url(), variables={"my.value": value}) as db:
        assert ask(db, "SHOW my.value") == value


def test_a_transaction_that_rests_too_long_is_ended_and_the_pool_goes_on(postgresql: PostgreSQLServer) -> None:
    with registry(postgresql.url(), idle_in_transaction_timeout="100ms") as db:
        with db.session() as session:
            ask(session, "SELECT 1")
            ask(session, "SELECT pg_sleep(0.3)")  # working is not resting
            pid = ask(session, "SELECT pg_backend_pid()")
            wait_until(lambda: pid not in postgresql.connections(), "the end of the idle transaction")
            with pytest.raises(DBAPIError, match=r"idle-in-transaction timeout|server closed|terminating"):
                ask(session, "SELECT 1")
        assert ask(db, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("extra", "settings", "message"),
    [
        ("?sslmod=require", {}, "'sslmod' is not a parameter of postgresql's URLs"),
        ("", {"connect_args": {"aplication_name": "x"}}, "'aplication_name' is not an argument of any postgresql"),
        ("?charset=utf8", {}, "'charset' is not a parameter of postgresql's URLs"),
        ("", {"dialect_options": {"use_native_hstor": False}}, "did you mean 'use_native_hstore'?"),
        ("", {"dialect_options": {"isolation_level": "SERIALIZABLE"}}, "'isolation_level' is a key of its own"),
        ("", {"variables": {"search_path": ["a", "b"]}}, "a session variable has one value, not a list"),
    ],
)
def test_an_unknown_name_is_told_before_anything_connects(extra: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught, registry(f"postgresql://nobody@192.0.2.1/none{extra}", **settings) as db:
        db.engine()
    assert message in str(caught.value)


def test_a_server_that_refuses_a_variable_is_quoted(postgresql: PostgreSQLServer) -> None:
    message = 'unrecognized configuration parameter "nonsense"'
    with registry(postgresql.url(), variables={"nonsense": 1}) as db, pytest.raises(OperationalError, match=message):
        ask(db, "SELECT 1")


# Tables


def test_tables_go_where_the_schema_is_translated_to(postgresql: PostgreSQLServer) -> None:
    postgresql.sql("CREATE SCHEMA tenant AUTHORIZATION app")
    with registry(postgresql.url()) as plain:
        plain.create_tables(Account)
    options = {"execution_options": {"schema_translate_map": {None: "tenant"}}}
    with _with_options(registry(postgresql.url()), options) as db:
        assert db.create_tables(Account) == ["engine_account"]
        assert db.create_tables(Account) == []
        assert db.drop_tables(Account) == ["engine_account"]
    assert postgresql.sql("SELECT table_schema FROM information_schema.tables WHERE table_name = 'engine_account'") == [
        ("public",)
    ]


def _with_options(db: Registry, options: dict[str, Any]) -> Registry:
    db.parts.plan.options.update(options)
    return db


def test_a_type_that_another_table_brought_is_not_created_again(postgresql: PostgreSQLServer) -> None:
    class Base(SQLModel):
        metadata = MetaData()

    class Colour(Enum):
        red = 1
        blue = 2

    class Car(Base, table=True):
        __tablename__ = "enum_car"
        id: int = Field(primary_key=True)
        colour: Colour

    class Bike(Base, table=True):
        __tablename__ = "enum_bike"
        id: int = Field(primary_key=True)
        colour: Colour

    with registry(postgresql.url()) as db:
        assert db.create_tables(Car) == ["enum_car"]
        assert db.create_tables(Car, Bike) == ["enum_bike"]
        with db.transaction() as session:
            session.add(Bike(id=1, colour=Colour.blue))
        assert sorted(db.drop_tables(Car, Bike)) == ["enum_bike", "enum_car"]


# TLS


@pytest.fixture(scope="module")
def secure() -> Iterator[PostgreSQLServer]:
    try:
        server = servers.postgresql(tls=True)
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    with closing(server):
        yield server


@pytest.mark.server
def test_tls_is_verified_where_the_url_says_so(secure: PostgreSQLServer) -> None:
    url = secure.url().replace("127.0.0.1", "localhost")
    ssl = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    with registry(f"{url}?sslmode=verify-full&sslrootcert={secure.certificate}") as db, db.session() as session:
        assert session.execute(ssl).scalar_one() is True
    with registry(url, connect_args={"sslmode": "disable"}) as db, db.session() as session:
        assert session.execute(ssl).scalar_one() is False
    message = 'root certificate file "/nonexistent" does not exist'
    missing = f"{url}?sslmode=verify-full&sslrootcert=/nonexistent"
    with registry(missing) as db, pytest.raises(OperationalError, match=message):
        ask(db, "SELECT 1")
