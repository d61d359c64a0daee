"""What our classes add to the connections of MySQL's drivers, and which arguments these get: without a server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from pymysql.connections import Connection
from pymysql.err import OperationalError

from dbconfig import ConfigError
from dbconfig.engine.dialects.mysql import asyncmy, base, idle_rollbacks, pymysql, session_reset
from dbconfig.engine.dialects.mysql.driver import AsynchronousMySQLDriver
from dbconfig.engine.dialects.mysql.mysqldb import MySQLdb
from dbconfig.settings.database import DatabaseSettings

# Rollbacks


class Asynchronous:
    """A connection of asyncmy or aiomysql: keeps what is sent."""

    def __init__(self, **state: bool) -> None:
        self.sent: list[Any] = []
        self.aborted: list[str] = []
        vars(self).update(state)

    async def query(self, sql: Any, unbuffered: Any = "default") -> Any:
        self.sent.append((sql, unbuffered))
        if isinstance(sql, BaseException):
            raise sql
        return 7

    async def _execute_command(self, command: Any, sql: Any) -> Any:
        self.sent.append(sql)
        return 7

    async def commit(self) -> None:
        self.sent.append("COMMIT")

    async def rollback(self) -> None:
        self.sent.append("ROLLBACK")

    def close(self) -> None:
        self.aborted.append("close")


@pytest.mark.parametrize(
    ("sound", "broken"), [({"closed": False}, {"closed": True}), ({"connected": True}, {"connected": False})]
)
def test_nothing_is_rolled_back_where_nothing_was_sent(sound: dict[str, bool], broken: dict[str, bool]) -> None:
    async def main() -> None:
        connection: Any = idle_rollbacks._tracked(Asynchronous)(**sound)
        await connection.rollback()  # what was sent before is not known
        await connection.rollback()
        assert connection.sent == ["ROLLBACK"]
        assert await connection._execute_command(3, "SELECT 1") == 7
        await connection.rollback()
        await connection.rollback()
        assert connection.sent == ["ROLLBACK", "SELECT 1", "ROLLBACK"]
        await connection._execute_command(3, "SELECT 2")
        await connection.commit()
        await connection.rollback()
        assert connection.sent[3:] == ["SELECT 2", "COMMIT"]
        vars(connection).update(broken)
        await connection.rollback()  # the driver raises its error
        assert connection.sent[5:] == ["ROLLBACK"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "reported"),
    [(asyncio.CancelledError(), True), (KeyboardInterrupt(), True), (OperationalError(1213, "deadlock"), False)],
)
def test_a_statement_of_a_task_that_was_interrupted_is_reported_and_its_error_raised(
    error: BaseException, reported: bool
) -> None:
    connection: Any = idle_rollbacks._tracked(Asynchronous)()
    told: list[Any] = []
    connection.interrupted = told.append

    async def main() -> None:
        assert (await connection.query("a"), await connection.query("b", True)) == (7, 7)
        assert (connection.sent, told) == ([("a", False), ("b", True)], [])
        with pytest.raises(type(error)) as caught:
            await connection.query(error)
        assert caught.value is error

    asyncio.run(main())
    assert told == [error] * reported


@pytest.mark.parametrize("writer", [True, False], ids=["aiomysql", "asyncmy"])
def test_a_closed_connection_does_not_wait_for_the_end_of_tls(writer: bool) -> None:
    connection: Any = idle_rollbacks._tracked(Asynchronous)()
    beneath = SimpleNamespace(abort=lambda: connection.aborted.append("abort"))
    transport = SimpleNamespace(_ssl_protocol=SimpleNamespace(_transport=beneath))
    vars(connection).update({"_writer": SimpleNamespace(_transport=transport)} if writer else {"_transport": transport})
    connection.close()
    assert connection.aborted == ["close", "abort"]  # in this order: the driver takes leave of the server first
    plain: Any = idle_rollbacks._tracked(Asynchronous)()
    plain.close()
    assert plain.aborted == ["close"]


class Synchronous(Connection):
    """A connection of PyMySQL without a socket: keeps what is sent."""

    open: Any = True

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.error: BaseException | None = None

    def query(self, sql: Any, unbuffered: Any = "default") -> Any:
        self.sent.append((sql, unbuffered))
        if self.error is not None:
            raise self.error
        return 7

    def begin(self) -> None:
        self.sent.append("BEGIN")

    def commit(self) -> None:
        self.sent.append("COMMIT")

    def rollback(self) -> None:
        self.sent.append("ROLLBACK")

    def __del__(self) -> None: ...


@pytest.fixture
def tracked() -> Any:
    connection: Any = Synchronous()
    connection.__class__ = pymysql._tracking(Synchronous)
    return connection


def test_a_class_is_tracked_once() -> None:
    ours = pymysql._tracking(Synchronous)
    assert issubclass(ours, pymysql.Tracking)
    assert issubclass(ours, Synchronous)
    assert pymysql._tracking(ours) is ours
    assert pymysql._tracking(pymysql.Tracking) is pymysql.Tracking


def test_pymysql_reads_rows_as_it_is_asked_to(tracked: Any) -> None:
    assert (tracked.query("a"), tracked.query("b", True), tracked.query("c", False)) == (7, 7, 7)
    assert tracked.sent == [("a", False), ("b", True), ("c", False)]


def test_pymysql_rolls_back_nothing_where_nothing_was_sent(tracked: Any) -> None:
    tracked.rollback()
    tracked.rollback()
    assert tracked.sent == ["ROLLBACK"]
    tracked.query("a")
    tracked.rollback()
    tracked.begin()
    tracked.rollback()
    tracked.begin()
    tracked.commit()
    tracked.rollback()
    assert tracked.sent[2:] == ["ROLLBACK", "BEGIN", "ROLLBACK", "BEGIN", "COMMIT"]
    tracked.open = False
    tracked.rollback()  # the driver raises its error
    assert tracked.sent[-2:] == ["COMMIT", "ROLLBACK"]


def test_a_call_that_was_struck_closes_and_an_answer_of_the_server_does_not(
    tracked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(pymysql, "_force_close", closed.append)
    for error, closes in ((OperationalError(1213, "deadlock"), False), (KeyboardInterrupt(), True)):
        tracked.error = error
        with pytest.raises(type(error)):
            tracked.query("a")
        assert closed == [tracked] * closes


@pytest.mark.parametrize(
    ("by_status", "answer", "is_open"),
    [
        (False, None, False),
        (False, SimpleNamespace(description=(), open=True), False),
        (True, None, True),  # nothing was asked since
        (True, SimpleNamespace(description=(), open=False), True),  # of rows: their status is kept
        (True, SimpleNamespace(description=None, open=True), True),
        (True, SimpleNamespace(description=None, open=False), False),
    ],
)
def test_asyncmy_reads_in_the_answer_what_it_does_not_keep(
    monkeypatch: pytest.MonkeyPatch, by_status: bool, answer: Any, is_open: bool
) -> None:
    monkeypatch.setattr(AsynchronousMySQLDriver, "is_open", lambda self, connection: by_status)
    monkeypatch.setattr(AsynchronousMySQLDriver, "says_open", lambda self, answer: answer.open, raising=False)
    assert asyncmy.DRIVER.is_open(SimpleNamespace(_result=answer)) is is_open


# Descriptors


def test_mysqlclient_has_a_descriptor_from_one_version_on() -> None:
    new, old = SimpleNamespace(fileno=lambda: 3), SimpleNamespace()
    assert MySQLdb().plug(new) is new
    assert MySQLdb().plug(old) is None


# Arguments


def settings(url: str, **keys: Any) -> DatabaseSettings:
    return DatabaseSettings(url=url, **keys)


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy", "aiomysql"])
def test_what_the_url_has_is_not_given_twice(driver: str) -> None:
    name = f"mysql+{driver}"
    pytest.importorskip(driver)
    found = base.arguments(settings(f"{name}://u@h/d", connect_timeout="2.5s"), name)
    assert (found["charset"], found["connect_timeout"]) == ("utf8mb4", 3)
    found = base.arguments(settings(f"{name}://u@h/d?charset=latin1&connect_timeout=7"), name)
    assert not {"charset", "connect_timeout"} & found.keys()


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy", "aiomysql"])
@pytest.mark.parametrize(
    ("asked", "keys", "encrypted"),
    [
        ("", {}, False),
        ("&ssl_cipher=HIGH", {}, True),
        ("", {"connect_args": {"ssl_verify_cert": True}}, True),
        ("", {"sslmode": "require"}, True),
        ("", {"sslmode": "disable"}, False),
    ],
)
def test_a_unix_socket_is_encrypted_where_that_is_asked_for_and_nowhere_else(
    driver: str, asked: str, keys: dict[str, Any], encrypted: bool
) -> None:
    """The socket may lead to a proxy on its way to another machine; else TLS only costs each connect its time."""
    name = f"mysql+{driver}"
    pytest.importorskip(driver)
    found = base.arguments(settings(f"{name}://u@/d?unix_socket=/run/db.sock{asked}", **keys), name)
    is_on = not found.get("ssl_disabled") if driver == "pymysql" else found.get("ssl") is not None
    assert is_on is encrypted


@pytest.mark.parametrize("place", ["connect_args", "query"])
@pytest.mark.parametrize("limit", ["read_timeout", "write_timeout"])
def test_a_time_limit_that_aiomysql_has_not_is_refused_with_what_limits_the_time_there(place: str, limit: str) -> None:
    """A profile that names no driver may have it: for synchronous engines PyMySQL has it."""
    pytest.importorskip("aiomysql")
    given = {place: {limit: 3, "ssl_cipher": "HIGH"} if place == "query" else {limit: 3, "compress": True}}
    with pytest.raises(ConfigError) as caught:
        base.arguments(settings("mysql://u@h/d", **given), "mysql+aiomysql")
    first, *others = [(problem.slug, problem.key, problem.help) for problem in caught.value.problems]
    help = "limit the time with `statement_timeout`, or with asyncio.timeout() around the call"
    assert first == ("unknown-key", f"{place}.{limit}", help)
    # Advice about time would mislead a user who wanted something else; and TLS in a URL is translated for aiomysql.
    assert others == ([] if place == "query" else [("unknown-key", "connect_args.compress", "")])


@pytest.mark.parametrize("place", ["connect_args", "query"])
def test_an_unknown_character_set_is_refused(place: str) -> None:
    url = "mysql+pymysql://u@h/d"
    wrong = (
        settings(f"{url}?charset=nonsense") if place == "query" else settings(url, connect_args={"charset": "nonsense"})
    )
    with pytest.raises(ConfigError) as caught:
        base.arguments(wrong, "mysql+pymysql")
    assert [(problem.slug, problem.key) for problem in caught.value.problems] == [("invalid-value", f"{place}.charset")]


# Sessions


@pytest.mark.parametrize("key", ["pool_reset", "pool_reset_on_return"])
def test_a_driver_that_cannot_reset_is_refused_by_the_key_that_asks_for_it(key: str) -> None:
    """The user has to find the line in the profile."""
    engine: Any = SimpleNamespace(dialect=SimpleNamespace(driver="mysqldb"))
    with pytest.raises(ConfigError) as caught:
        base.session_reset(engine, settings("mysql+mysqldb://u@h/d", **{key: "discard"}))
    (problem,) = caught.value.problems
    assert (problem.slug, problem.key) == ("not-applicable", key)
    assert problem.message == f"`{key}: discard` is unsupported with mysqldb"


class Resettable:
    """A driver's connection, and SQLAlchemy's around it: keeps what is sent."""

    def __init__(self, *, autocommit: bool) -> None:
        self.sent: list[Any] = []
        self._autocommit = autocommit

    def cursor(self) -> Any:
        return SimpleNamespace(
            execute=self.sent.append,
            fetchone=lambda: ("utf8mb4", "utf8mb4_bin"),
            close=lambda: self.sent.append("close"),
        )

    def get_autocommit(self) -> bool:
        return self._autocommit

    def _execute_command(self, command: int, argument: Any) -> None:
        self.sent.append((command, argument))

    def _read_ok_packet(self) -> None:
        self.sent.append("ok")

    def query(self, script: str) -> None:
        self.sent.append(script)


@pytest.mark.parametrize(("autocommit", "bit"), [(True, 1), (False, 0)])
@pytest.mark.parametrize(("level", "is_set"), [(None, False), ("AUTOCOMMIT", False), ("SERIALIZABLE", True)])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_reset_session_is_as_it_was_after_the_login(
    autocommit: bool, bit: int, level: str | None, is_set: bool, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Any] = []
    levels: list[Any] = []
    monkeypatch.setattr(session_reset, "on_connect", lambda engine, work: works.append(work))

    class OfTasks(Resettable):
        async def _execute_command(self, command: int, argument: Any) -> None:  # type: ignore[override]  # of asyncio
            super()._execute_command(command, argument)

        async def _read_ok_packet(self) -> None:  # type: ignore[override]  # likewise
            super()._read_ok_packet()

        async def query(self, script: str) -> None:  # type: ignore[override]  # likewise
            super().query(script)

    monkeypatch.setattr(session_reset, "await_only", asyncio.run)
    driver = (OfTasks if is_async else Resettable)(autocommit=autocommit)
    dialect = SimpleNamespace(
        is_async=is_async,
        get_driver_connection=lambda connection: SimpleNamespace(__wrapped__=connection),  # of a tracer
        set_isolation_level=lambda connection, level: levels.append(level),
    )
    reset = session_reset.of_driver(SimpleNamespace(dialect=dialect), level)  # type: ignore[arg-type]  # all it asks of
    record = SimpleNamespace(info={})
    works[0](driver, record)
    assert driver.sent == ["SELECT @@character_set_client, @@collation_connection", "close"]
    driver.sent.clear()
    reset(driver, record)
    script = f"SET NAMES utf8mb4 COLLATE utf8mb4_bin, autocommit = {bit}"
    assert driver.sent == [(0x1F, "" if is_async else b""), "ok", script]
    assert levels == [level] * is_set
