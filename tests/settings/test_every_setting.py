"""Every setting does something: a value that is not its default makes a difference that can be seen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import Pool, QueuePool

from dbconfig import ConfigError, DatabaseSettings, Profile, Registry
from dbconfig.engine.pool import caretaker
from dbconfig.registry.idle_engines import IdleDatabase
from tests.registries import Account, ask
from tests.support import clock as clocks

SERVER = "postgresql://db.internal"
LITE = "sqlite:///lite.db"


@dataclass(frozen=True)
class Case:
    """A value, what shows it, and what is then seen; without the value something else is seen."""

    value: Any
    seen: Any
    look: Callable[[Registry], Any]
    url: str | None = LITE
    beside: dict[str, Any] = field(default_factory=dict)
    needed_by: dict[str, Any] = field(default_factory=dict)  # what cannot be without the setting, and goes with it


def url(part: str) -> Callable[[Registry], Any]:
    return lambda db: getattr(db.engine().url, part)


def made_in(part: str, module: str) -> Callable[[Registry], Any]:
    """Say whether a function of a module is among those that a part of the dialect consists of; each calls the next."""

    def look(db: Registry) -> bool:
        found, waiting = set(), [vars(db.engine().dialect).get(part)]
        while waiting:
            each = waiting.pop()
            if each is not None:
                found.add(getattr(each, "__module__", ""))
                cells = [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
                waiting += [cell for cell in cells if hasattr(cell, "__closure__")]
        return any(str(name).endswith(module) for name in found)

    return look


REPLICA = {"replicas": [{"host": "db2"}]}
NO_LOOK = {"replica_max_lag": False}  # so that nothing is connected


def router(db: Registry) -> Any:
    return db.parts.engines.readers("default").router


def looks_after_rest(db: Registry) -> bool:
    db.engine()
    looks = [each for each in list(caretaker._jobs) if isinstance(each, IdleDatabase)]
    return any(db.parts.engines.looks_after(each) for each in looks)


def falls_back(db: Registry) -> bool:
    found = router(db)
    found.leave(found.replicas[0], "it is ill")
    return found.choose() is not found.replicas[0]


def pool(look: Callable[[Any], Any]) -> Callable[[Registry], Any]:
    return lambda db: look(db.engine().pool)


def line(part: str) -> Callable[[Registry], Any]:
    return pool(lambda found: getattr(found.options, part))


def dialect(part: str) -> Callable[[Registry], Any]:
    return lambda db: getattr(db.engine().dialect, part)


def option(part: str) -> Callable[[Registry], Any]:
    """Look for an argument in what the driver gets."""

    def look(db: Registry) -> Any:
        got: dict[str, Any] = {}
        engine = db.engine()

        @event.listens_for(engine, "do_connect")
        def stop(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> None:
            got.update(cparams)
            raise Stop

        with pytest.raises(Stop):
            engine.connect()
        return got.get(part)

    return look


class Stop(Exception):
    """Ends a connect before the driver is called."""


def replaced_after(seconds: float) -> Callable[[Registry], bool]:
    def look(db: Registry) -> bool:
        def connection() -> int:
            with db.engine().connect() as found:
                driver_connection = found.connection.driver_connection
                kept.append(driver_connection)
                return id(driver_connection)

        kept: list[Any] = []
        first = connection()
        with pytest.MonkeyPatch.context() as patch:
            clocks.install(patch).advance(seconds)
            return connection() != first

    return look


def warned_of_a_leak(db: Registry) -> bool:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("dbconfig.pool.leaks")
    logger.addHandler(handler)
    try:
        with db.engine().connect(), pytest.MonkeyPatch.context() as patch:
            clocks.install(patch).advance(0.1)
    finally:
        logger.removeHandler(handler)
    return bool(records)


def logged(db: Registry, words: str) -> bool:
    """Say whether a statement has these words in the log of slow statements."""
    found = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                found.set()

    logger, handler = logging.getLogger("dbconfig.slow"), Handler()
    logger.addHandler(handler)
    try:
        ask(db, "SELECT 1")
        threads = [each for each in threading.enumerate() if each.name == "dbconfig-explain"]
        for each in threads:
            each.join(30)
    finally:
        logger.removeHandler(handler)
    return found.is_set()


def logs_slow(db: Registry) -> bool:
    return logged(db, "slow statement:")


def logs_plans(db: Registry) -> bool:
    return logged(db, "plan of a slow statement:")


def tag_of_statements(db: Registry) -> str:
    sent: list[str] = []
    with db.engine().connect() as connection:
        connection.connection.driver_connection.set_trace_callback(sent.append)  # type: ignore[union-attr]
        connection.execute(text("SELECT 1"))
    return next(each for each in sent if "SELECT 1" in each).replace("SELECT 1", "")


def writes_at_once(db: Registry) -> bool:
    with db.engine().begin() as connection:
        connection.exec_driver_sql("SELECT 1")
        return not connection.connection.driver_connection.in_transaction


def session(part: str) -> Callable[[Registry], Any]:
    return lambda db: getattr(db.session(), part)


def refuses_to_drop(db: Registry) -> bool:
    try:
        db.drop_tables(Account)
    except ConfigError:
        return True
    return False


def starts_anew(db: Registry) -> bool:
    """Return whether a session finds nothing of the one before it."""
    with db.session() as session:
        session.execute(text("CREATE TEMP TABLE mine (x INT)"))
        session.commit()
    with db.session() as session:
        return session.execute(text("SELECT count(*) FROM sqlite_temp_master")).scalar() == 0


CASES: dict[str, Case] = {
    "url": Case("postgresql://h/d", "d", url("database"), None, {}),
    "drivername": Case("postgresql", "postgresql+psycopg2", url("drivername"), None),
    "username": Case("ada", "ada", url("username"), SERVER),
    "password": Case("pass word", "pass word", option("password"), SERVER),
    "host": Case("db.internal", "db.internal", url("host"), "postgresql://"),
    "port": Case(6543, 6543, url("port"), SERVER),
    "database": Case("shop", "shop", url("database"), SERVER),
    "query": Case({"application_name": "x"}, "x", lambda db: db.engine().url.query.get("application_name"), SERVER),
    "sslmode": Case("require", "require", lambda db: db.engine().url.query.get("sslmode"), SERVER),
    "sslrootcert": Case(
        __file__, __file__, lambda db: db.engine().url.query.get("sslrootcert"), SERVER, {}, {"sslmode": "verify-full"}
    ),
    "sslcert": Case(
        __file__,
        __file__,
        lambda db: db.engine().url.query.get("sslcert"),
        SERVER,
        {},
        {"sslmode": "require", "sslkey": __file__},
    ),
    "sslkey": Case(
        __file__,
        __file__,
        lambda db: db.engine().url.query.get("sslkey"),
        SERVER,
        {},
        {"sslmode": "require", "sslcert": __file__},
    ),
    "pool_size": Case(7, 7, pool(lambda found: found.size())),
    "max_overflow": Case(3, 3, pool(lambda found: found._max_overflow)),
    "pool_timeout": Case("2s", 2.0, pool(lambda found: found.timeout())),
    "pool_recycle": Case("50ms", True, replaced_after(0.1)),
    "pool_pre_ping": Case("7s", 7.0, pool(lambda found: found.options.check.rest)),
    "pool_min_idle": Case(2, 2, line("min_idle")),
    "pool_idle_timeout": Case("3s", 3.0, line("idle_timeout")),
    "pool_keepalive": Case("4s", 4.0, line("keepalive")),
    "pool_max_waiting": Case(9, 9, line("max_waiting")),
    "pool_queue_target": Case("50ms", 0.05, line("queue_target")),
    "engine_idle_timeout": Case("1m", True, looks_after_rest),
    "pool_leak_warning": Case("20ms", True, warned_of_a_leak),
    "pool_use_lifo": Case(True, True, pool(lambda found: found._pool.use_lifo)),
    "pool_reset": Case("discard", True, starts_anew),
    "pool_reset_on_return": Case("commit", "commit", pool(lambda found: found._reset_on_return.name.partition("_")[2])),
    "poolclass": Case("NullPool", "NullPool", pool(lambda found: type(found).__name__)),
    "echo": Case("debug", "debug", lambda db: db.engine().echo),
    "echo_pool": Case("debug", True, pool(lambda found: found._should_log_debug())),
    "hide_parameters": Case(True, True, lambda db: db.engine().hide_parameters),
    "logging_name": Case("mine", "mine", lambda db: db.engine().logging_name),
    "pool_logging_name": Case("mine", "mine", pool(lambda found: found.logging_name)),
    "isolation_level": Case("AUTOCOMMIT", True, writes_at_once),
    "execution_options": Case({"yield_per": 3}, 3, lambda db: db.engine().get_execution_options().get("yield_per")),
    "connect_args": Case({"application_name": "x"}, "x", option("application_name"), SERVER),
    "dialect_options": Case({"use_native_hstore": False}, False, dialect("use_native_hstore"), SERVER),
    "query_cache_size": Case(9, 9, lambda db: db.engine()._compiled_cache.capacity),
    "insertmanyvalues_page_size": Case(9, 9, dialect("insertmanyvalues_page_size")),
    "use_insertmanyvalues": Case(False, False, dialect("use_insertmanyvalues")),
    "enable_from_linting": Case(False, False, lambda db: bool(db.engine().dialect.compiler_linting)),
    "label_length": Case(9, 9, dialect("label_length")),
    "max_identifier_length": Case(77, 77, dialect("max_identifier_length"), SERVER),
    "paramstyle": Case("named", "named", dialect("paramstyle")),
    "connect_timeout": Case("3s", 3, option("connect_timeout"), SERVER),
    "statement_timeout": Case("1500ms", "-c statement_timeout=1500", option("options"), SERVER),
    "lock_timeout": Case("1500ms", 1500, lambda db: ask(db, "PRAGMA busy_timeout")),
    "idle_in_transaction_timeout": Case(
        "1m", "-c idle_in_transaction_session_timeout=60000", option("options"), SERVER
    ),
    "variables": Case({"cache_size": 77}, 77, lambda db: ask(db, "PRAGMA cache_size")),
    "pgbouncer": Case(True, None, option("options"), SERVER, {"statement_timeout": "1s"}),
    # A session of the profile as a whole would not be opened.
    "shards": Case({"a": {}, "b": {}}, ("a", "b"), lambda db: db.shards()),
    "replicas": Case([{"host": "db2"}], ["db2"], lambda db: [each.name for each in db.readers()], SERVER, NO_LOOK),
    "read_your_writes": Case(False, False, made_in("do_commit", "read_your_writes"), SERVER, REPLICA | NO_LOOK),
    "replica_max_lag": Case(False, False, lambda db: router(db)._key in caretaker._jobs, SERVER, REPLICA),
    "replica_fallback": Case(False, False, falls_back, SERVER, REPLICA | NO_LOOK),
    "application_name": Case("shop", "shop", option("application_name"), SERVER),
    "slow_statement": Case(0.000001, True, logs_slow),
    "slow_statement_plan": Case(True, True, logs_plans, LITE, {"slow_statement": 0.000001}),
    "query_tags": Case(["application"], " /*application='plain'*/", tag_of_statements),
    "fast_begin": Case(True, True, made_in("connect", "fast_begin"), SERVER),
    "expire_on_commit": Case(False, False, session("expire_on_commit")),
    "autoflush": Case(False, False, session("autoflush")),
    "protected": Case(True, True, refuses_to_drop),
}


def test_no_setting_is_left_out() -> None:
    assert CASES.keys() == DatabaseSettings.model_fields.keys()


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    monkeypatch.chdir(tmp_path)
    made: list[Registry] = []

    def make(**settings: Any) -> Registry:
        made.append(Registry.from_profile(Profile(name="plain", **settings)))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


@pytest.mark.parametrize("name", sorted(DatabaseSettings.model_fields))
def test_a_setting_can_be_seen_to_act(name: str, opened: Callable[..., Registry]) -> None:
    case = CASES[name]
    base = {**({"url": case.url} if case.url else {}), **case.beside}
    assert case.look(opened(**base, **case.needed_by, **{name: case.value})) == case.seen
    without = base or {"url": "sqlite:///other.db"}
    assert case.look(opened(**without)) != case.seen


@pytest.mark.parametrize("name", sorted(DatabaseSettings.model_fields))
def test_a_setting_has_a_description_in_one_sentence(name: str) -> None:
    described = DatabaseSettings.model_fields[name].description
    assert described
    assert described[0].isupper()
    assert not described.endswith(".")


def test_a_setting_of_create_engine_keeps_its_default() -> None:
    """Beside these, which the documentation names: pool_recycle and pool_pre_ping."""
    theirs = signature(Pool.__init__).parameters | signature(QueuePool.__init__).parameters
    for name, argument in {
        "pool_size": "pool_size",
        "max_overflow": "max_overflow",
        "pool_timeout": "timeout",
        "pool_use_lifo": "use_lifo",
    }.items():
        assert DatabaseSettings.model_fields[name].default == theirs[argument].default, name
