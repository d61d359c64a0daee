"""What SQLAlchemy promises its users holds: listeners, patched drivers, `pool`, `poolclass`, `creator`."""

import asyncio
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from dbconfig import ConfigError, Registry
from tests.registries import ask, registry
from tests.support.servers import Server

QUESTION = text("SELECT 1")


def open_with(tmp_path: Path, profile: str, **given: Any) -> Registry:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "development.yaml").write_text(profile)
    return Registry(tmp_path / "config", environ={}, engine_options=given)


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/lite.db"
    return str(request.getfixturevalue(request.param).url())


def test_listeners_of_do_connect_are_called_and_may_make_the_connection(url: str) -> None:
    with registry(url) as db:
        engine, seen = db.engine(), []

        @event.listens_for(engine, "do_connect")
        def note(dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> None:
            seen.append("first")

        @event.listens_for(engine, "do_connect")
        def make(dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> Any:
            seen.append("second")
            return dialect.loaded_dbapi.connect(*arguments, **parameters)

        assert ask(db, "SELECT 1") == 1
        assert seen == ["first", "second"]


def test_a_function_in_the_place_of_the_drivers_connect_is_called(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry(url) as db:
        module, calls = db.engine().dialect.loaded_dbapi, []  # type: ignore[attr-defined]
        connect = module.connect
        monkeypatch.setattr(module, "connect", lambda *some, **more: calls.append(1) or connect(*some, **more))
        assert ask(db, "SELECT 1") == 1
        assert calls == [1]


def test_a_given_module_makes_the_connections_and_these_still_skip_what_carries_nothing(
    mariadb: Server, tmp_path: Path
) -> None:
    calls, sent = [], []

    class Loud(pymysql.connections.Connection):  # type: ignore[type-arg]
        def _execute_command(self, command: int, sql: Any) -> None:
            sent.append(sql)
            super()._execute_command(command, sql)  # type: ignore[misc]

    module = types.ModuleType("tracer")
    module.__dict__.update(vars(pymysql))
    module.connect = lambda *some, **more: calls.append(1) or Loud(*some, **more)  # type: ignore[attr-defined]
    with open_with(tmp_path, f"url: {mariadb.url('mysql+pymysql')}", module=module) as db:
        with db.transaction() as session:
            session.execute(QUESTION)
        sent.clear()
        with db.transaction() as session:
            session.execute(QUESTION)
        assert calls
        assert "ROLLBACK" not in [str(each).upper() for each in sent]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_pools_class_may_be_given(tmp_path: Path, asynchronous: bool, postgresql: Server) -> None:
    profile = f"url: {postgresql.url('postgresql+psycopg')}"
    pytest.importorskip("psycopg")
    for given in (NullPool, QueuePool):
        with open_with(tmp_path, profile, poolclass=given) as db:
            if asynchronous:

                async def use(db: Registry = db) -> Any:
                    async with db.async_engine().connect() as connection:
                        await connection.execute(QUESTION)
                    name = type(db.async_engine().pool).__name__
                    await db.async_dispose()
                    return name

                assert asyncio.run(use()) in (given.__name__, f"AsyncAdapted{given.__name__}")
            else:
                assert ask(db, "SELECT 1") == 1
                assert type(db.engine().pool) is given

    class Own(QueuePool):
        pass

    if not asynchronous:
        with open_with(tmp_path, f"{profile}\npool_size: 1\nmax_overflow: 0", poolclass=Own) as db:
            assert isinstance(db.engine().pool, Own)
            assert db.engine().pool.size() == 1


@pytest.mark.parametrize(
    ("profile", "given", "message"),
    [
        ("pool_size: 3", {"poolclass": NullPool}, "`pool_size` has no effect"),
        ("poolclass: NullPool", {"poolclass": QueuePool}, "the profile has a key for: poolclass"),
        ("", {"poolclass": "NullPool"}, "must be a class of SQLAlchemy's pools"),
        ("max_overflow: 3", {"pool": QueuePool(lambda: None)}, "`max_overflow` has no effect"),
        ("sslmode: require", {"creator": lambda: None}, "`sslmode` has no effect"),
        ("connect_timeout: 3s", {"creator": lambda: None}, "`connect_timeout` has no effect"),
        ("pgbouncer: true", {"creator": lambda: None}, "`pgbouncer` has no effect"),
        ("", {"async_creator": lambda: None}, "pass `creator` as well"),
    ],
)
def test_a_key_that_a_given_option_disables_is_refused(
    tmp_path: Path, profile: str, given: dict[str, Any], message: str
) -> None:
    with open_with(tmp_path, f"url: postgresql://app@nowhere.invalid/db\n{profile}", **given) as db:
        with pytest.raises(ConfigError) as caught:
            db.engine()
        assert message in str(caught.value)


def test_sqlite_takes_no_creator_and_names_what_it_takes(tmp_path: Path) -> None:
    db = open_with(tmp_path, "url: sqlite:///lite.db", creator=lambda: None)
    with db, pytest.raises(ConfigError, match="on SQLite, dbconfig depends on connections of its own"):
        db.engine()


_KEYS = "statement_timeout: 3s\nvariables: {search_path: 'public, a'}"
LIMITS = {
    "postgresql+psycopg2": (_KEYS, "SHOW statement_timeout", "3s"),
    "postgresql+psycopg": (_KEYS, "SHOW search_path", "public, a"),
    "mysql+pymysql": ("variables: {sql_mode: ANSI}", "SELECT instr(@@sql_mode, 'ANSI') > 0", 1),
}


@pytest.fixture(params=["creator", "pool"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("drivername", LIMITS)
def test_limits_variables_and_the_refusal_of_writes_hold_on_connections_of_a_creator(
    request: pytest.FixtureRequest, tmp_path: Path, drivername: str, way: str
) -> None:
    system = "mariadb" if drivername.startswith("mysql") else "postgresql"
    server: Server = request.getfixturevalue(system)
    keys, question, expected = LIMITS[drivername]
    with registry(server.url(drivername)) as plain:
        with plain.transaction() as session:
            session.execute(text("CREATE TABLE written (x INT)"))
        connect = plain.engine().dialect.loaded_dbapi.connect  # type: ignore[attr-defined]
        arguments = plain.engine().dialect.create_connect_args(make_url(server.url(drivername)))[1]

        def creator() -> Any:
            return connect(**arguments)

        given: dict[str, Any] = {"creator": creator} if way == "creator" else {"pool": QueuePool(creator)}
        with open_with(tmp_path, f"url: {drivername}://app@nowhere.invalid/db\n{keys}", **given) as db:
            for read_only in (False, True):
                with db.session(read_only=read_only) as session:
                    session.execute(text("SELECT 1"))
                    session.rollback()
                    assert session.execute(text(question)).scalar() == expected
            with pytest.raises(DBAPIError, match=r"(?i)read.only"), db.session(read_only=True) as session:
                session.execute(text("INSERT INTO written VALUES (1)"))
            with db.transaction() as one, db.transaction() as other:  # by a connection that is made now, too
                one.execute(text("SELECT 1"))
                other.execute(text("INSERT INTO written VALUES (2)"))
            if way == "pool":
                assert db.engine().pool is given["pool"]
        assert ask(plain, "SELECT x FROM written") == 2


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_limits_hold_on_connections_of_an_asynchronous_creator(postgresql: Server, tmp_path: Path, driver: str) -> None:
    pytest.importorskip(driver)

    async def creator(*_: Any, **__: Any) -> Any:
        if driver == "asyncpg":
            import asyncpg

            return await asyncpg.connect(postgresql.url("postgresql"))
        import psycopg

        return await psycopg.AsyncConnection.connect(postgresql.url("postgresql"))

    async def use() -> None:
        profile = f"url: postgresql+{driver}://app@nowhere.invalid/db\nstatement_timeout: 3s"
        db = open_with(tmp_path, profile, async_creator=creator)
        for engine in (db.async_session(), db.async_session(read_only=True)):
            async with engine as session:
                assert (await session.exec(text("SHOW statement_timeout"))).scalar() == "3s"
        await db.async_dispose()

    asyncio.run(use())


@pytest.fixture(autouse=True)
def _no_left_overs() -> Iterator[None]:
    yield
    import gc

    gc.collect()
