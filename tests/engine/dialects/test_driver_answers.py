"""What a driver's connection says of itself, and what we send with the drivers of PostgreSQL: without a server."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig.engine.dialects.mysql.driver import MySQLDriver, beginning
from dbconfig.engine.dialects.mysql.mysqldb import MySQLdb
from dbconfig.engine.dialects.postgresql import pgbouncer, server_role
from dbconfig.engine.dialects.postgresql.driver import LibpqDriver, PostgreSQLDriver
from dbconfig.engine.dialects.postgresql.psycopg2 import DRIVER as PSYCOPG2
from dbconfig.engine.dialects.server_role import Answer, Role
from dbconfig.engine.pool import births
from dbconfig.engine.pool.driver import Left

# libpq's: idle, active, in a transaction, in a failed one
STATUSES = [(0, False, False, False), (1, True, True, False), (2, True, False, False), (3, True, False, True)]


def libpq_drivers() -> list[Any]:
    found: list[Any] = [
        pytest.param(LibpqDriver(), "info", id="another one"),
        pytest.param(PSYCOPG2, "get_transaction_status", id="psycopg2"),
    ]
    try:
        from dbconfig.engine.dialects.postgresql.psycopg import Psycopg
    except ImportError:
        return found
    return [*found, pytest.param(Psycopg(), "pgconn", id="psycopg")]


@pytest.mark.parametrize(("status", "inside", "waits", "failed"), STATUSES)
@pytest.mark.parametrize(("driver", "place"), libpq_drivers())
def test_libpq_knows_what_is_under_way(
    driver: Any, place: str, status: int, inside: bool, waits: bool, failed: bool
) -> None:
    answer: Any = SimpleNamespace(transaction_status=status)
    connection = SimpleNamespace(**{place: answer if place != "get_transaction_status" else lambda: status})
    assert driver.in_transaction(connection) is inside
    assert driver.awaits_answer(connection) is waits
    assert driver.in_failed_transaction(connection) is failed


def test_what_the_server_has_reported_is_text_or_nothing() -> None:
    psycopg = pytest.importorskip("dbconfig.engine.dialects.postgresql.psycopg")
    told = {b"server_version": b"15.4", b"application_name": None}
    connection = SimpleNamespace(pgconn=SimpleNamespace(parameter_status=told.get))
    assert psycopg.DRIVER.parameter(connection, "server_version") == "15.4"
    assert psycopg.DRIVER.parameter(connection, "application_name") is None


@pytest.mark.parametrize(
    ("error", "cancelled"),
    [
        ({"pgcode": "57014"}, True),
        ({"sqlstate": "57014"}, True),
        ({"pgcode": "57P01", "sqlstate": None}, False),
        ({}, False),
    ],
)
def test_a_cancelled_statement_is_known_by_its_code(error: dict[str, Any], cancelled: bool) -> None:
    class Error(Exception):
        pass

    found = Error()
    vars(found).update(error)
    assert PostgreSQLDriver().was_cancelled(found) is cancelled


def test_the_limit_of_a_connect_is_in_whole_seconds_and_never_longer_than_what_was_written() -> None:
    class Parameters:
        def __init__(self) -> None:
            self.kept: dict[str, Any] = {}

        def at_most(self, key: str, seconds: float) -> float:
            return min(seconds, 2.5)

        def set(self, key: str, value: Any) -> None:
            self.kept[key] = value

    parameters: Any = Parameters()
    LibpqDriver().limit_connect(None, None, parameters, 30.0)
    assert parameters.kept == {"connect_timeout": 3}
    LibpqDriver().limit_connect(None, None, parameters, 0.2)
    assert parameters.kept == {"connect_timeout": 1}


def test_a_statement_is_cancelled_only_by_its_own_server() -> None:
    sent: list[str] = []
    beside = SimpleNamespace(info=SimpleNamespace(backend_pid=7))
    LibpqDriver().cancel(SimpleNamespace(execute=sent.append), beside, 42)
    assert sent == ["SELECT CASE WHEN pg_backend_pid() = 7 THEN pg_cancel_backend(42) END"]


class Cursor:
    """Keeps what is executed, and answers with rows or an error."""

    def __init__(self, rows: Any = (), error: Exception | None = None) -> None:
        self.sent: list[str] = []
        self.rows, self.error = rows, error

    def execute(self, statement: str) -> None:
        self.sent.append(statement)
        if self.error is not None:
            raise self.error

    def fetchall(self) -> Any:
        return self.rows


@pytest.mark.parametrize(
    ("rows", "settled"),
    [([], True), ([(True,)], True), ([(False,)], True), ([(None,)], False)],  # None: of another age
)
def test_a_connection_that_its_client_has_left_is_ended_by_its_own_server_if_it_is_as_old(
    monkeypatch: pytest.MonkeyPatch, rows: list[Any], settled: bool
) -> None:
    monkeypatch.setattr("dbconfig.engine.dialects.postgresql.driver.monotonic", lambda: 1000.0)
    cursor, beside = Cursor(rows), SimpleNamespace(info=SimpleNamespace(backend_pid=7))
    assert LibpqDriver().end(cursor, beside, 42, Left(opened=(900.0, 900.5))) is settled
    (sent,) = cursor.sent
    for word in (
        "BETWEEN 98.500000 AND 101.000000 THEN pg_terminate_backend(abandoned.pid) END",
        "abandoned.pid = 42 ",
        "own.pid = 7 AND own.pid = pg_backend_pid()",
        "abandoned.usesysid = own.usesysid AND abandoned.datid = own.datid",
    ):
        assert word in sent


def test_a_connection_that_does_not_tell_its_number_has_none() -> None:
    assert LibpqDriver().known_number(Cursor()) is None
    assert MySQLDriver().known_number(None) is None
    assert MySQLDriver().known_number(SimpleNamespace(thread_id=lambda: 42)) == 42


def test_a_connection_whose_age_is_not_known_is_not_ended() -> None:
    cursor = Cursor()
    assert LibpqDriver().end(cursor, None, 42, LibpqDriver().leave(cursor))
    assert cursor.sent == []


def test_the_age_of_a_connection_is_known_from_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    connection, before, driver = Cursor(), births.monotonic(), LibpqDriver()
    monkeypatch.setattr(births.driver, "of", lambda dialect: SimpleNamespace(number=lambda under: 42))
    monkeypatch.setattr(births.event, "listen", lambda engine, name, work: heard.append(work))
    births.attach(SimpleNamespace(dialect=None))  # type: ignore[arg-type]  # all that it asks
    heard[0](None, SimpleNamespace(driver_connection=connection, starttime=time.time() - 60))
    assert driver.known_number(connection) == 42  # also if it is closed, when psycopg does not tell
    begun, opened = driver.leave(connection).opened or (0.0, 0.0)
    assert before <= opened <= births.monotonic()
    assert 60 <= opened - begun < 120


@pytest.mark.parametrize(
    ("rows", "settled", "killed"),
    [
        ([(7, "SELECT 1")], True, False),  # it is gone
        ([(42, None)], False, False),  # it has not begun
        ([(42, "UPDATE a\nSET b = 5")], True, True),
        ([(42, b"UPDATE a SET b = 5")], True, True),
        ([(42, "UPDATE a SET c = 5")], True, False),  # another client's, at another server
    ],
)
def test_what_a_client_has_left_to_mysql_is_ended_if_it_is_that_statement(
    rows: list[tuple[int, Any]], settled: bool, killed: bool
) -> None:
    cursor = Cursor([(number, "app", "h", "d", "Query", 1, "", info) for number, info in rows])
    left = MySQLDriver().leave(SimpleNamespace(under_way=b"UPDATE a SET b = 5"))
    assert MySQLDriver().end(cursor, None, 42, left) is settled
    assert cursor.sent == ["SHOW FULL PROCESSLIST", *(["KILL 42"] if killed else [])]


@pytest.mark.parametrize("connection", [SimpleNamespace(), SimpleNamespace(under_way=None)])
def test_without_a_statement_nothing_of_mysql_is_ended(connection: Any) -> None:
    """As with a driver that does not tell it: the ID may be another client's, at another server."""
    cursor = Cursor([(42, "app", "h", "d", "Query", 1, "", "SELECT 1")])
    assert MySQLDriver().end(cursor, None, 42, MySQLDriver().leave(connection))
    assert cursor.sent == []


@pytest.mark.parametrize(("code", "raised"), [(1094, False), (1095, True)])
def test_a_connection_that_has_gone_before_it_is_killed_is_no_error(code: int, raised: bool) -> None:
    """So that those that are asked for by the same connection are ended, too."""
    with pytest.raises(RuntimeError) if raised else nullcontext():
        MySQLDriver().cancel(Cursor(error=RuntimeError(code, "Unknown thread id: 42")), None, 42)


@pytest.mark.parametrize(
    ("statement", "compared"),
    [
        ("SELECT 'ä' ,  2\n", "SELECT'',2"),
        (bytearray(b"SELECT '\xff'"), "SELECT''"),
        ("x" * 300, "x" * 200),
        (" " * 700 + "y" * 300, "y" * 100),
    ],
)
def test_beginnings_of_statements_are_compared_in_what_every_server_displays(
    statement: str | bytearray, compared: str
) -> None:
    assert beginning(statement) == compared


@pytest.mark.parametrize(
    ("status", "inside"),
    [(0b00, True), (0b01, True), (0b10, False), (0b11, True)],  # in a transaction, in autocommit
)
def test_mysql_tells_with_each_answer_whether_a_transaction_is_open(status: int, inside: bool) -> None:
    assert MySQLDriver().in_transaction(SimpleNamespace(server_status=status)) is inside


def test_what_a_driver_of_mysql_says_of_its_session() -> None:
    driver, sent = MySQLDriver(), []
    assert driver.number(SimpleNamespace(thread_id=lambda: 42)) == 42
    driver.cancel(SimpleNamespace(execute=sent.append), None, 42)
    assert sent == ["KILL QUERY 42"]
    assert driver.was_cancelled(Exception(1317, "Query execution was interrupted"))
    assert not driver.was_cancelled(Exception(1318))
    assert not driver.was_cancelled(Exception())
    assert driver.password("pä€").encode("latin-1") == "pä€".encode()


class Server:
    """Answers the question for its role."""

    def __init__(self, *row: Any) -> None:
        self.autocommit = False
        self.during: list[Any] = []
        self._row = row

    def cursor(self) -> Server:
        return self

    def execute(self, question: str) -> None:
        self.during += [question, self.autocommit]

    def fetchone(self) -> Any:
        return self._row if self.during else None

    def close(self) -> None:
        self.during.append("closed")


@pytest.mark.parametrize(
    ("row", "strictly", "answer"),
    [
        ((True, True, None), True, Answer(Role.OTHER, "it is a standby")),
        ((False, True, "0000000A"), True, Answer(Role.READ_ONLY, "its transactions are read-only by default")),
        ((False, True, "0000001A"), False, Answer(Role.PRIMARY, "it is the primary", 26)),
        ((False, False, "00000001"), True, Answer(Role.PRIMARY, "it is the primary", 1)),
    ],
)
def test_a_server_of_postgresql_tells_its_role(row: Any, strictly: bool, answer: Answer) -> None:
    server = Server(*row)
    assert server_role.ask(server, strictly=strictly) == answer
    assert server.during == [server_role._QUESTION, True, "closed"]
    assert server.autocommit is False


@pytest.mark.parametrize(
    ("name", "value", "statement"),
    [
        ("statement_timeout", 5000, "SET LOCAL statement_timeout = '5000'"),
        ("jit", False, "SET LOCAL jit = 'off'"),
        ("jit", True, "SET LOCAL jit = 'on'"),
        ("application_name", "o'neill", "SET LOCAL application_name = 'o''neill'"),
        ("application_name", "a, b", "SET LOCAL application_name = 'a, b'"),
        ("search_path", 'Shop, "Odd ""name"""', "SET LOCAL search_path = 'shop', 'Odd \"name\"'"),
        ("SEARCH_PATH", "a,b", "SET LOCAL SEARCH_PATH = 'a', 'b'"),
        ("search_path", "", "SET LOCAL search_path = ''"),
        ("default_transaction_read_only", True, "SET LOCAL transaction_read_only = 'on'"),
    ],
)
def test_behind_a_pooler_settings_are_those_of_one_transaction(name: str, value: Any, statement: str) -> None:
    assert pgbouncer.limits_of({name: value}) == [statement]


def test_mysqlclient_keeps_no_status_and_is_asked_for_none() -> None:
    connection = object()  # no `server_status`
    assert MySQLdb().in_transaction(connection)
    assert MySQLdb().is_open(connection)
