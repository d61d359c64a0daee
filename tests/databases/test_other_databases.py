"""Dialects that SQLAlchemy finds and that nothing here knows: DuckDB, and other drivers of PostgreSQL and MySQL."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Field, MetaData, SQLModel, select

from dbconfig import ConfigError, Profile, Registry, load
from dbconfig.settings import generic_systems
from tests.cli.conftest import Project
from tests.cli.conftest import project as project
from tests.support.documents import ROOT, blocks
from tests.support.servers import Server


class Base(SQLModel):
    metadata = MetaData()


class Fact(Base, table=True):
    __tablename__ = "generic_fact"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = Field(max_length=40)


SYSTEMS = {
    "duckdb": ("duckdb_engine", None),
    "postgresql+pg8000": ("pg8000", "postgresql"),
    "mysql+mysqlconnector": ("mysql.connector", "mariadb"),
}


@pytest.fixture(params=SYSTEMS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    package, fixture = SYSTEMS[request.param]
    pytest.importorskip(package)
    if fixture is None:
        return f"duckdb:///{tmp_path}/facts.duckdb"
    server: Server = request.getfixturevalue(fixture)
    if "pg8000" in request.param:
        server.hash_password_as_usual()
    found = server.url(request.param)
    # MariaDB has none of MySQL's collation names, which this driver asks for.
    return found + "?collation=utf8mb4_general_ci" if "mysqlconnector" in found else found


def opened(url: str, **settings: Any) -> Registry:
    return Registry.from_profile(Profile(name="generic", url=url, **settings))


@pytest.fixture
def db(url: str) -> Iterator[Registry]:
    with opened(url) as found:
        found.create_tables(Fact)
        yield found


def names(db: Registry, **how: Any) -> list[str]:
    with db.session(**how) as session:
        return sorted(session.exec(select(Fact.name)))


@pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection")
class TestEveryVerb:
    def test_sessions_transactions_and_units_of_work(self, db: Registry) -> None:
        with db.transaction() as session:
            session.add(Fact(id=1, name="one"))
        db.run_in_transaction(lambda session: session.add(Fact(id=2, name="two")))
        with db.session() as session:
            session.add(Fact(id=3, name="three"))
            session.commit()

        def fail() -> None:
            with db.transaction() as session:
                session.add(Fact(id=4, name="four"))
                session.flush()
                raise LookupError

        with pytest.raises(LookupError):
            fail()
        assert names(db) == ["one", "three", "two"]

    def test_core(self, db: Registry) -> None:
        with db.begin() as connection:
            connection.execute(text("INSERT INTO generic_fact VALUES (1, 'one')"))
        with db.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM generic_fact")).scalar_one() == 1

    def test_reading_sessions_are_on_the_same_engine_and_refuse_a_flush(self, db: Registry) -> None:
        with db.transaction() as session:
            session.add(Fact(id=1, name="one"))
        assert names(db, read_only=True) == ["one"]
        with db.session(read_only=True) as session:
            session.add(Fact(id=2, name="two"))
            with pytest.raises(InvalidRequestError, match="a read-only session"):
                session.flush()
        with pytest.raises(InvalidRequestError, match="snapshot=True is not supported on"):
            names(db, snapshot=True)

    def test_tables_ping_wait_statistics_and_an_end(self, db: Registry) -> None:
        assert db.create_tables(Fact) == []
        assert db.ping() > 0
        db.wait(timeout=30)
        assert db.stats().created >= 1
        assert db.drop_tables(Fact) == ["generic_fact"]
        db.dispose(timeout=10)

    def test_the_pool_is_ours_and_its_settings_act(self, url: str) -> None:
        with opened(url, pool_size=1, max_overflow=0, pool_timeout="500ms") as db:
            with db.engine().connect(), pytest.raises(Exception, match="QueuePool limit of size 1 overflow 0"):
                db.engine().connect()
            assert db.stats().timeouts == 1


def test_a_database_in_memory_has_the_pool_that_its_dialect_asks_for() -> None:
    pytest.importorskip("duckdb_engine")
    with opened("duckdb:///:memory:") as db:
        assert type(db.engine().pool).__name__ == "SingletonThreadPool"
        db.create_tables(Fact)
        with db.transaction() as session:
            session.add(Fact(id=1, name="one"))
        assert names(db) == names(db, read_only=True) == ["one"]


def test_the_password_is_read_for_each_connection_and_shown_nowhere(postgresql: Server, tmp_path: Path) -> None:
    pytest.importorskip("pg8000")
    postgresql.hash_password_as_usual()
    secret = tmp_path / "password"
    secret.write_text(postgresql.password)
    secret.chmod(0o600)
    parts = {"username": postgresql.user, "host": postgresql.host, "port": postgresql.port}
    profile = Profile(
        name="p", drivername="postgresql+pg8000", database=postgresql.database, password={"file": str(secret)}, **parts
    )
    with Registry.from_profile(profile) as db:
        assert db.ping() > 0
        assert postgresql.password not in repr(db.engine()) + repr(db.profile)
    secret.write_text("another")
    with Registry.from_profile(profile) as db, pytest.raises(Exception, match="password authentication failed"):
        db.ping()


REFUSED = {
    "sslmode": "require",
    "sslrootcert": "/etc/ssl/ca.pem",
    "statement_timeout": "5s",
    "lock_timeout": "5s",
    "idle_in_transaction_timeout": "5s",
    "connect_timeout": "5s",
    "variables": "{a: b}",
    "pgbouncer": "true",
    "replicas": "[{host: other}]",
    "replica_max_lag": "10s",
    "application_name": "shop",
    "pool_reset": "discard",
    "fast_begin": "true",
    "paramstyle": "named",
}
ALLOWED = {
    "pool_size": "3",
    "pool_recycle": "10m",
    "pool_pre_ping": "5s",
    "pool_max_waiting": "9",
    "echo": "true",
    "execution_options": "{logging_token: x}",
    "connect_args": "{config: {threads: 1}}",
    "dialect_options": "{}",
    "expire_on_commit": "false",
    "protected": "true",
    "query_cache_size": "9",
}


@pytest.mark.parametrize(
    "url", ["duckdb:///facts.duckdb", "postgresql+pg8000://app@db/shop", "mssql+pyodbc://app@db/x"]
)
def test_keys_that_need_knowledge_of_the_system_are_refused_and_the_others_act(url: str, tmp_path: Path) -> None:
    for key, value in {**REFUSED, **ALLOWED}.items():
        (tmp_path / "development.yaml").write_text(f"url: {url}\n{key}: {value}\n")
        if key in ALLOWED:
            load("development", path=tmp_path, environ={})
            continue
        with pytest.raises(ConfigError) as raised:
            load("development", path=tmp_path, environ={})
        (problem,) = raised.value.problems
        assert (problem.slug, problem.key) == ("not-applicable", key)
        assert "only its SQLAlchemy dialect is known" in problem.message


def test_what_all_profiles_share_need_not_fit_a_generic_database(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("connect_timeout: 5s\nstatement_timeout: 30s\npool_size: 7\n")
    (tmp_path / "development.yaml").write_text("url: duckdb:///facts.duckdb\n")
    settings = load("development", path=tmp_path, environ={}).databases["default"]
    assert (settings.pool_size, settings.statement_timeout, settings.is_generic) == (7, None, True)


URLS = {
    "mssql+pyodbc://app@db/shop": "pip install pyodbc",
    "mssql+pymssql://app@db/shop": "pip install pymssql",
    "oracle+oracledb://app@db/shop": "pip install oracledb",
    "snowflake://app@account/shop/public?warehouse=w": "pip install snowflake-sqlalchemy",
    "cockroachdb://app@db:26257/shop": "pip install sqlalchemy-cockroachdb psycopg2-binary",
    "bigquery://project/shop": "pip install sqlalchemy-bigquery",
    "clickhousedb://app@db/shop": "pip install clickhouse-connect",
    "sqlite+libsql://db.example?authToken=x": "pip install sqlalchemy-libsql",
    "mariadb+mariadbconnector://app@db/shop": "pip install mariadb",
    "trino://app@db:8080/hive": "pip install 'trino[sqlalchemy]'",
}


@pytest.mark.parametrize("url", URLS)
def test_a_dialect_that_is_not_installed_names_its_package_when_the_engine_is_made(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generic_systems.Generic, "installed", False)
    db = opened(url)  # what the files say is right
    with pytest.raises(ConfigError) as raised:
        db.engine()
    (problem,) = raised.value.problems
    assert (problem.slug, problem.help) == ("missing-driver", URLS[url])


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mongodb://db/shop", "unsupported database 'mongodb'"),
        ("sqlserver://db/shop", "did you mean 'mssql+pyodbc'"),
        ("oracle://db/shop", "did you mean 'oracle+oracledb'"),
        ("postgresql+pg800://db/shop", "unsupported driver 'pg800' of postgresql"),
        ("duckbd:///x", "unsupported database 'duckbd'"),
    ],
)
def test_what_no_dialect_is_known_for_is_refused_at_load(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        Profile(name="p", url=url)


def test_a_dialect_of_an_installed_package_needs_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic_systems, "_entry_points", lambda: frozenset({"acme", "postgresql+acme"}))
    for name in ("acme", "postgresql+acme"):
        settings = Profile(name="p", url=f"{name}://u@h/d").databases["default"]
        assert (settings.backend, settings.driver()) == (name, name)


def test_an_asynchronous_engine_of_a_synchronous_dialect_is_refused() -> None:
    async def engine() -> None:
        opened("duckdb:///:memory:").async_engine()

    with pytest.raises(ConfigError, match="duckdb is a synchronous driver, and this is an asynchronous engine"):
        asyncio.run(engine())


def test_the_profile_of_the_documentation_and_the_commands(project: Project) -> None:
    pytest.importorskip("duckdb_engine")
    (block,) = (each for each in blocks(ROOT / "docs" / "databases.md", "yaml") if "duckdb" in each.text)
    project.profile(block.text)
    (project.folder / "data").mkdir()
    for command in ("validate", "check", "ping", "list", "show", "wait"):
        result = project.run(command)
        assert result.code == 0, result.text
    assert "duckdb:///data/facts.duckdb" in project.run("list").out
    assert "ok      query" in project.run("check").out
    shell = project.run("shell")
    assert (shell.code, "`dbconfig shell` does not support duckdb" in shell.err) == (2, True)
