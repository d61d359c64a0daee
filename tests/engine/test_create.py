"""From settings to `create_engine`'s arguments."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, pool, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from dbconfig import ConfigError, DatabaseSettings, Registry
from dbconfig.engine import create
from dbconfig.engine.pool import FairPool
from tests.registries import ask, from_yaml, registry

SERVER = "postgresql://app@db.internal/shop"


def options(url: str = SERVER, extra: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    found = DatabaseSettings(url=url, **settings)
    return create.engine_options(found, "tests", found.driver(), extra)


def test_a_call_of_create_engine_can_be_copied_into_yaml(tmp_path: Path) -> None:
    yaml = f"""
        url: {SERVER}
        pool_size: 7
        max_overflow: 8
        pool_timeout: 1500ms
        pool_recycle: 1h
        pool_pre_ping: true
        pool_use_lifo: true
        echo: debug
        isolation_level: repeatable read
        connect_args: {{application_name: shop}}
        execution_options: {{yield_per: 10}}
    """
    with from_yaml(tmp_path, yaml) as db:
        engine = db.engine()
        queue: Any = engine.pool
        assert (queue.size(), queue._max_overflow, queue.timeout()) == (7, 8, 1.5)
        assert queue._pool.use_lifo is True
        assert (engine.echo, engine.get_execution_options()) == ("debug", {"yield_per": 10})
        assert engine.dialect._on_connect_isolation_level == "REPEATABLE READ"


def test_production_as_the_documentation_shows_it_reaches_the_pool(tmp_path: Path) -> None:
    yaml = "url: ${DATABASE_URL}\npool_size: 20\nmax_overflow: 40\npool_timeout: 9s"
    with from_yaml(tmp_path, yaml, {"DATABASE_URL": SERVER, "DBCONFIG_POOL_SIZE": "3"}) as db:
        queue: Any = db.engine().pool
        assert (queue.size(), queue._max_overflow, queue.timeout()) == (3, 40, 9)


@pytest.mark.parametrize(
    ("poolclass", "taken"),
    [
        (None, {"pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "line"}),
        ("QueuePool", {"pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"}),
        ("NullPool", set()),
        ("StaticPool", set()),
        ("SingletonThreadPool", {"pool_size"}),
    ],
)
def test_a_pool_gets_only_what_it_takes(poolclass: str | None, taken: set[str]) -> None:
    all_of_them = {"pool_size", "max_overflow", "pool_timeout", "pool_use_lifo", "line"}
    given = options(**({"poolclass": poolclass} if poolclass else {}))
    assert given["poolclass"] is (getattr(pool, poolclass) if poolclass else FairPool)
    assert all_of_them & given.keys() == taken


def test_the_pool_settings_of_default_yaml_do_not_disturb_a_database_in_memory(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/default.yaml").write_text("pool_size: 5\nmax_overflow: 10\npool_timeout: 30s\npool_recycle: 1m")
    with from_yaml(tmp_path, "url: sqlite://") as db:
        assert ask(db, "SELECT 1") == 1


def test_what_was_given_is_never_written_into() -> None:
    arguments = {"options": "-c work_mem=1MB"}
    settings = DatabaseSettings(url=SERVER, connect_args=arguments, lock_timeout=1)
    first, second = (create.engine_options(settings, "tests", settings.driver()) for _ in range(2))
    assert first["connect_args"] == second["connect_args"]
    assert first["connect_args"]["options"] == "-c lock_timeout=1000 -c work_mem=1MB"
    assert settings.connect_args == arguments == {"options": "-c work_mem=1MB"}


def test_no_option_and_no_url_of_an_engine_has_a_password_in_it() -> None:
    with registry("postgresql://app:planted@db/shop?sslpassword=planted", connect_args={"sslkey": "k"}) as db:
        assert db.engine().url.password is None
        assert "planted" not in db.engine().url.render_as_string(hide_password=False)


def test_the_loggers_are_named_after_the_profile_and_the_database(tmp_path: Path) -> None:
    yaml = "url: sqlite://\ndatabases:\n  facts: {url: 'sqlite://'}\n  own: {url: 'sqlite://', logging_name: mine}"
    with from_yaml(tmp_path, yaml) as db:
        names = [db.engine(database).logging_name for database in ("default", "facts", "own")]
        assert names == ["development", "development/facts", "mine"]


# Arguments that only code can express


WithOptions = Callable[..., Registry]


@pytest.fixture
def with_options(tmp_path: Path) -> WithOptions:
    """Make a registry with `engine_options`."""

    def make(yaml: str = "url: sqlite://", **given: Any) -> Registry:
        (tmp_path / "development.yaml").write_text(yaml)
        return Registry(tmp_path, environ={}, engine_options=given)

    return make


def test_a_function_is_given_in_code(with_options: WithOptions) -> None:
    with with_options(json_serializer=lambda value: json.dumps({"wrapped": value})) as db:
        assert db.engine().dialect._json_serializer([1]) == '{"wrapped": [1]}'


def test_execution_options_of_the_profile_and_of_the_code_are_joined(with_options: WithOptions) -> None:
    given = {"execution_options": {"my_option": 1, "stream_results": False}}
    yaml = "url: sqlite://\nexecution_options: {yield_per: 5, stream_results: true}"
    with with_options(yaml, **given) as db:
        assert db.engine().get_execution_options() == {"yield_per": 5, "stream_results": False, "my_option": 1}
    assert given == {"execution_options": {"my_option": 1, "stream_results": False}}


def test_what_the_profile_has_a_key_for_is_refused_in_code(with_options: WithOptions) -> None:
    with with_options(pool_size=3, echo=True) as db, pytest.raises(ConfigError, match="pool_size, echo"):
        db.engine()


def test_an_argument_that_create_engine_does_not_have_is_its_own_error(with_options: WithOptions) -> None:
    with with_options(nonsense=3) as db, pytest.raises(TypeError, match="nonsense"):
        db.engine()


# Secrets


def test_a_missing_secret_is_told_when_the_engine_is_made_and_again_after_it_vanished(tmp_path: Path) -> None:
    yaml = "url: postgresql://app@127.0.0.1:1/shop\npassword: {file: secret}"
    with from_yaml(tmp_path, yaml) as db:
        with pytest.raises(ConfigError, match="it does not exist"):
            db.engine()
        (tmp_path / "secret").write_text("x")
        (tmp_path / "secret").chmod(0o600)
        engine = db.engine()
        (tmp_path / "secret").unlink()
        with pytest.raises(ConfigError, match="it does not exist"):
            engine.connect()
        assert engine.pool.checkedout() == 0


def test_a_secret_that_others_can_read_is_a_warning_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    with from_yaml(tmp_path, f"url: {SERVER}\npassword: {{file: secret}}") as db:
        db.engine()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("password: the secret file 'secret' is readable by other users of this machine")


def test_a_driver_that_is_broken_is_told_with_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ImportError("libpq.so.5: cannot open shared object file")

    monkeypatch.setattr(create.sqlalchemy, "create_engine", broken)
    with registry(SERVER) as db, pytest.raises(ConfigError, match=r"cannot be imported: libpq\.so\.5") as caught:
        db.engine()
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_style_of_parameters_that_the_chosen_driver_does_not_take_is_told_where_it_stands(tmp_path: Path) -> None:
    db = from_yaml(tmp_path, f"url: {SERVER}\nparamstyle: numeric_dollar\n")
    with db, pytest.raises(ConfigError, match=r"psycopg2 takes format, pyformat\n.*development.yaml:2:1"):
        db.engine()


def test_a_listener_of_the_application_hears_our_connections() -> None:
    heard = []
    with registry("sqlite://") as db:
        event.listen(db.engine(), "connect", lambda *_: heard.append("connect"))
        ask(db, "SELECT 1")
    assert heard == ["connect"]


def test_a_server_that_is_not_there_is_sqlalchemys_own_error() -> None:
    for url in ("postgresql://app@127.0.0.1:1/shop", "mysql://app@127.0.0.1:1/shop"):
        with registry(url, connect_timeout=1) as db, pytest.raises(OperationalError):
            db.engine().connect()


def test_an_engine_is_made_without_connecting() -> None:
    with registry("postgresql://app@192.0.2.1/shop") as db:
        assert str(db.engine().url) == "postgresql+psycopg2://app@192.0.2.1/shop"
        with db.session():
            pass  # an empty session uses no connection


def test_echo_logs_every_statement_without_what_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    with registry("sqlite://", echo=True, hide_parameters=True) as db, db.session() as session:
        session.execute(text("SELECT :value"), {"value": "personal"})
    assert "SELECT ?" in caplog.text
    assert "personal" not in caplog.text


async def use(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass
    await engine.dispose()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("by", ["echo_pool", "logging"])
def test_the_pool_logs_where_sqlalchemys_documentation_says(
    by: str, asynchronous: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if asynchronous:
        pytest.importorskip("aiosqlite")
    found = DatabaseSettings(url=f"sqlite:///{tmp_path / 'a.db'}", echo_pool="debug" if by == "echo_pool" else False)
    if by == "logging":
        caplog.set_level("DEBUG", "sqlalchemy.pool")
    engine = create.build(found, "shop", asynchronous=asynchronous)
    if asynchronous:
        asyncio.run(use(AsyncEngine(engine)))
    else:
        engine.connect().close()
        engine.dispose()
    name = "AsyncAdaptedQueuePool" if asynchronous else "QueuePool"
    told = {record.name for record in caplog.records if "checked out from pool" in record.getMessage()}
    assert told == {f"sqlalchemy.pool.impl.{name}.shop"}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://app@/shop?unix_socket=/run/mysqld.sock", "the server"),
        ("postgresql://app@db.internal/shop", "the server db.internal"),
        ("postgresql://app@db.internal:7/shop", "the server db.internal:7"),
    ],
)
def test_a_pool_knows_what_to_call_its_server_in_an_error(url: str, told: str) -> None:
    with registry(url) as db:
        assert vars(db.engine().pool)["server"] == told
