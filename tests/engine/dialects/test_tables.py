"""What the dialects make of settings and of answers: whole tables, with what lies at and beside each boundary."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import NotSupportedError

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine.dialects import application_name, session_reset, set_up
from dbconfig.engine.dialects.mysql import base as mysql
from dbconfig.engine.dialects.postgresql import refusal
from dbconfig.engine.dialects.sqlite import base as sqlite
from dbconfig.engine.dialects.sqlite.write_queue import Waiter, WriteQueue
from dbconfig.settings.database import DatabaseSettings
from tests.configs import Project


def of(**settings: Any) -> DatabaseSettings:
    return DatabaseSettings(url="mysql://u@h/d", **settings)


@pytest.mark.parametrize("mariadb", [True, False])
@pytest.mark.parametrize(("written", "seconds"), [("0.4s", 1), ("1s", 1), ("1.001s", 2), ("2s", 2), ("59.5s", 60)])
def test_mysql_has_whole_seconds_for_locks(written: str, seconds: int, mariadb: bool) -> None:
    expected = {"innodb_lock_wait_timeout": seconds, "lock_wait_timeout": seconds}
    assert mysql._timeouts(of(lock_timeout=written), mariadb) == expected


@pytest.mark.parametrize(
    ("written", "mariadb", "mysql_has"), [("0.4s", 0.4, 400), ("1s", 1.0, 1000), ("2.5s", 2.5, 2500)]
)
def test_mysql_counts_statements_in_milliseconds_and_mariadb_in_seconds(
    written: str, mariadb: float, mysql_has: int
) -> None:
    settings = of(statement_timeout=written)
    assert mysql._timeouts(settings, True) == {"max_statement_time": mariadb}
    assert mysql._timeouts(settings, False) == {"max_execution_time": mysql_has}


@pytest.mark.parametrize(("written", "seconds"), [("0.4s", 1), ("1s", 1), ("1.001s", 2), ("2s", 2)])
def test_only_mariadb_limits_idle_transactions(written: str, seconds: int) -> None:
    settings = of(idle_in_transaction_timeout=written)
    assert mysql._timeouts(settings, True) == {"idle_transaction_timeout": seconds}
    with pytest.raises(NotSupportedError, match="MySQL has no such limit"):
        mysql._timeouts(settings, False)


def test_without_limits_mysql_is_told_none() -> None:
    assert mysql._timeouts(of(), True) == mysql._timeouts(of(), False) == {}


class Plain:
    """A connection of PyMySQL, before any TLS."""

    class OperationalError(Exception):
        pass


def test_a_connection_that_went_on_in_plaintext_is_refused() -> None:
    refused, secure, silent = Plain(), Plain(), Plain()
    refused._secure, secure._secure = False, True  # type: ignore[attr-defined]
    with pytest.raises(Plain.OperationalError) as caught:
        mysql._refuse_plaintext(refused, None)  # type: ignore[arg-type]
    assert caught.value.args == (2026, "TLS is required, but the server does not offer it")
    mysql._refuse_plaintext(secure, None)  # type: ignore[arg-type]
    mysql._refuse_plaintext(silent, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("driver", "keys", "attached"),
    [
        ("pymysql", {}, ["shared context"]),
        ("pymysql", {"sslmode": "disable"}, ["shared context"]),
        ("pymysql", {"sslmode": "prefer"}, ["shared context"]),
        ("pymysql", {"sslmode": "require"}, ["shared context", "no plaintext"]),
        ("pymysql", {"query": {"unix_socket": "/run/s"}}, ["own context"]),
        ("pymysql", {"query": {"unix_socket": "/run/s", "ssl_ca": "ca.pem"}}, ["shared context"]),
        ("pymysql", {"query": {"unix_socket": "/run/s"}, "sslmode": "require"}, ["shared context", "no plaintext"]),
        ("aiomysql", {}, ["idle rollbacks", "as offered"]),
        ("aiomysql", {"sslmode": "disable"}, ["idle rollbacks", "as offered"]),
        ("aiomysql", {"sslmode": "prefer"}, ["idle rollbacks", "as offered"]),
        ("aiomysql", {"sslmode": "require"}, ["idle rollbacks", "as offered", "insist"]),
        ("aiomysql", {"query": {"ssl_ca": "ca.pem"}}, ["idle rollbacks", "as offered", "insist"]),
        ("asyncmy", {"sslmode": "require"}, ["idle rollbacks"]),  # which it does itself
        ("mysqldb", {}, []),
    ],
)
def test_each_driver_of_mysql_keeps_the_promise_of_sslmode(
    monkeypatch: pytest.MonkeyPatch, driver: str, keys: dict[str, Any], attached: list[str]
) -> None:
    found: list[str] = []

    def share(engine: Any, *, share_tls_context: bool) -> None:
        found.append("shared context" if share_tls_context else "own context")

    def on_connect(engine: Any, work: Any, **options: Any) -> None:
        assert (work, options) == (mysql._refuse_plaintext, {"first": True})
        found.append("no plaintext")

    aiomysql = pytest.importorskip("dbconfig.engine.dialects.mysql.aiomysql")
    monkeypatch.setattr("dbconfig.engine.dialects.mysql.pymysql.attach", share)
    monkeypatch.setattr(mysql, "on_connect", on_connect)
    monkeypatch.setattr(mysql.idle_rollbacks, "skip_idle_rollbacks", lambda engine: found.append("idle rollbacks"))
    monkeypatch.setattr(aiomysql, "take_tls_as_offered", lambda engine: found.append("as offered"))
    monkeypatch.setattr(mysql.async_tls, "insist_on_tls", lambda engine: found.append("insist"))
    for part in (mysql.xa, mysql.interrupted_statements):
        monkeypatch.setattr(part, "attach", lambda engine: None)
    engine: Any = SimpleNamespace(dialect=SimpleNamespace(driver=driver))
    mysql.attach(engine, of(**keys))
    assert found == attached


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
@pytest.mark.parametrize("driver", ["pymysql", "asyncmy", "aiomysql", "mysqldb"])
def test_each_driver_of_mysql_has_arguments_for_sslmode_or_says_that_it_has_none(
    monkeypatch: pytest.MonkeyPatch, driver: str, mode: str
) -> None:
    monkeypatch.setattr(mysql.tls, "context", lambda settings: "context")
    expected: Any = {"ssl": "context"} if mode == "require" else {}
    if mode == "disable":
        expected = {"ssl_disabled": True} if driver == "pymysql" else {"ssl": None}
    if driver == "mysqldb" or (driver, mode) == ("asyncmy", "prefer"):
        with pytest.raises(ConfigError) as caught:
            mysql._tls(of(sslmode=mode), driver)
        assert [(each.slug, each.key) for each in caught.value.problems] == [("not-applicable", "sslmode")]
    else:
        assert mysql._tls(of(sslmode=mode), driver) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("url: mysql://u@h/d\nquery:\n  read_default_file: missing.cnf\n", 3),
        ("connect_args:\n  read_default_file: missing.cnf\nurl: mysql://u@h/d\n", 2),
        ("pool_size: 2\nurl: mysql://u@h/d?read_default_file=missing.cnf\n", 2),
    ],
)
def test_an_option_file_that_is_missing_is_told_where_it_is_written(project: Project, text: str, line: int) -> None:
    profile = project.load({"mine.yaml": text}, profile="mine")
    with pytest.raises(ConfigError) as caught, Registry.from_profile(profile) as db:
        db.engine()
    (problem,) = caught.value.problems
    assert problem.location is not None
    assert (problem.slug, problem.location.line) == ("file-unreadable", line)


NEVER = float("inf")  # the moment at which an answer comes too late


class Dribble:
    """A socket that hands out what has arrived, in pieces of these sizes, and never more than it is asked for."""

    def __init__(self, data: bytes, *sizes: int) -> None:
        self.data = data
        self.sizes = list(sizes)

    def settimeout(self, value: float) -> None:
        assert value > 0

    def recv(self, size: int) -> bytes:
        most = self.sizes.pop(0) if self.sizes else len(self.data)
        given, self.data = self.data[: min(size, most)], self.data[min(size, most) :]
        return given


def message(length: int, body: bytes = b"") -> bytes:
    return struct.pack("!cI", b"N", length) + body


@pytest.mark.parametrize("sizes", [(), (1, 1, 1, 1, 1, 1, 1), (4, 1, 2, 1), (3, 2)])
def test_a_message_ends_where_it_says_in_whatever_pieces_it_comes(sizes: tuple[int, ...]) -> None:
    plug: Any = Dribble(message(7, b"abc") + message(4) + b"next", *sizes)
    assert [refusal._message(plug, NEVER) for _ in range(2)] == [(b"N", b"abc"), (b"N", b"")]
    assert plug.data == b"next"


@pytest.mark.parametrize(
    ("length", "fits"), [(3, False), (4, True), (refusal._MESSAGE_LIMIT, True), (refusal._MESSAGE_LIMIT + 1, False)]
)
def test_what_is_no_message_is_not_waited_for(length: int, fits: bool) -> None:
    plug: Any = Dribble(message(length, b"x" * (length - 4)))
    if fits:
        assert refusal._message(plug, NEVER) == (b"N", b"x" * (length - 4))
    else:
        with pytest.raises(ValueError, match="not a message"):
            refusal._message(plug, NEVER)


def test_a_server_that_hangs_up_within_a_message_is_told() -> None:
    plug: Any = Dribble(message(10, b"abc"))
    with pytest.raises(ConnectionResetError):
        refusal._message(plug, NEVER)


def of_server(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


WELCOME, ASKS = of_server(b"R", struct.pack("!I", 0)), of_server(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")
NOTICE, READY = of_server(b"N", b""), of_server(b"Z", b"I")
MISSING = of_server(b"E", b"SFATAL\0VFATAL\0C3D000\0Mdatabase\0\0")


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (MISSING, "database-missing"),
        (NOTICE + WELCOME + NOTICE + MISSING, "database-missing"),  # after a login without a password
        (ASKS + MISSING, None),  # what follows is not about what can be asked without one
        (WELCOME + READY + MISSING, None),
    ],
    ids=["first", "after a login", "after the question", "when it is ready"],
)
def test_a_server_is_asked_until_it_asks_for_a_password_or_is_ready(answer: bytes, slug: str | None) -> None:
    plug: Any = Dribble(answer)
    sent: list[bytes] = []
    plug.family, plug.sendall = socket.AF_UNIX, sent.append
    row = refusal._refusal(plug, DatabaseSettings(url="postgresql://u@h/d"), NEVER)
    assert (row and row.slug) == slug
    assert sent == [struct.pack("!II", 27, 3 << 16) + b"user\0u\0database\0d\0\0"]


@pytest.mark.parametrize(
    ("place", "denied", "says"),
    [
        (".", "", "it is a folder"),
        ("folder/new.db", "", "the folder does not exist"),
        ("new.db", ".", "permission denied"),
        ("old.db", "old.db", "permission denied"),
        ("new.db", "", "the file does not exist"),
        ("old.db", "", "the operating system denies access"),
    ],
)
def test_why_a_file_of_sqlite_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, denied: str, says: str
) -> None:
    (tmp_path / "old.db").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, kind: not denied or path != tmp_path / denied)
    assert sqlite._hindrance(tmp_path / place) == says


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, False),
        ({"pool_reset": "rollback"}, False),
        ({"pool_reset": "discard"}, True),
        ({"pool_reset_on_return": "discard"}, True),
        ({"pool_reset_on_return": "commit"}, False),
    ],
)
def test_a_session_is_reset_where_it_is_asked_for(settings: dict[str, Any], wanted: bool) -> None:
    database = Profile(name="tests", url="mysql://u@h/d", **settings).databases["default"]
    assert session_reset.is_wanted(database) is wanted


def test_of_what_set_a_connection_up_the_session_is_set_again_after_a_reset() -> None:
    engine = create_engine("sqlite://")
    told: list[tuple[str, Any]] = []
    set_up.on_connect(engine, lambda connection, record: told.append(("connection", connection)))
    for name in ("one", "two"):
        set_up.on_connect(engine, lambda connection, record, name=name: told.append((name, connection)), session=True)
    with engine.connect() as connection:
        opened = connection.connection.dbapi_connection
    assert told == [("connection", opened), ("one", opened), ("two", opened)]
    told.clear()
    set_up.set_up_session(engine, "reset", None)
    set_up.set_up_session(create_engine("sqlite://"), "of another engine", None)
    assert told == [("one", "reset"), ("two", "reset")]
    engine.dispose()


@pytest.mark.parametrize("closed_by_sqlalchemy", [True, False])
@pytest.mark.parametrize("terminates", [True, False])
def test_a_connection_that_cannot_be_set_up_is_closed_at_once_and_no_second_time(
    terminates: bool, closed_by_sqlalchemy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server counts it until it is closed, and a handler that keeps the error keeps it from being collected."""
    engine, ended = create_engine("sqlite://"), list[str]()
    monkeypatch.setattr(set_up, "_CLOSED_BY_SQLALCHEMY", closed_by_sqlalchemy)
    for name, value in {
        "has_terminate": terminates,
        "do_terminate": lambda connection: ended.append(f"{connection} terminated"),
        "do_close": lambda connection: ended.append(f"{connection} closed"),
    }.items():
        monkeypatch.setattr(engine.dialect, name, value)

    def refuse(connection: Any, record: Any) -> None:
        raise KeyboardInterrupt

    set_up.on_connect(engine, refuse, first=True)
    with pytest.raises(KeyboardInterrupt):
        engine.pool.dispatch.connect("this one", None)  # as a pool does that has opened it
    how = "this one terminated" if terminates else "this one closed"
    assert ended == ([] if closed_by_sqlalchemy else [how])


PLAIN, OPTIONS = "postgresql://u@h/d", "-c application_name=theirs"


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({}, "fallback_application_name"),
        ({"application_name": "ours"}, "application_name"),
        ({"connect_args": {"options": "-c work_mem=5MB"}}, "fallback_application_name"),
        ({"variables": {"work_mem": "5MB"}}, "fallback_application_name"),
        ({"url": f"{PLAIN}?application_name=theirs"}, None),
        ({"connect_args": {"application_name": "theirs"}}, None),
        ({"url": "mysql://u@h/d"}, "program_name"),
        ({"url": "mysql://u@h/d", "connect_args": {"program_name": "theirs"}}, None),
        ({"connect_args": {"server_settings": {"Application_Name": "theirs"}}}, None),
        ({"variables": {"Application_Name": "theirs"}}, None),
        ({"url": f"{PLAIN}?options={quote(OPTIONS)}"}, None),
        ({"connect_args": {"options": OPTIONS}}, None),
        ({"url": "sqlite://"}, None),
    ],
)
def test_a_connection_gets_a_name_unless_one_is_written(keys: dict[str, Any], name: str | None) -> None:
    settings = DatabaseSettings(**{"url": PLAIN, **keys})
    drivername = "mysql+pymysql" if settings.backend == "mysql" else "postgresql+psycopg2"
    found = application_name.named({"a": 1}, settings, drivername, "dev")
    assert found == ({"a": 1} if name is None else {name: settings.application_name or "dev", "a": 1})


class Gate:
    """A lock that notes for how long somebody would wait for it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def acquire(self, timeout: float) -> None:
        self.seconds.append(timeout)

    def locked(self) -> bool:
        return False


@pytest.mark.parametrize(("asked", "waited"), [(2.5, 2.5), (0.0, 0.0), (-1.0, 0.0)])
def test_a_writer_waits_as_long_as_it_may(asked: float, waited: float) -> None:
    queue, waiter, gate = WriteQueue(), Waiter(), Gate()
    turn = queue.try_enter()
    waiter.gate = gate  # type: ignore[assignment]
    assert queue.enter(waiter, asked) is None
    assert gate.seconds == [waited]
    assert turn is not None
    turn.release()
    assert queue.enter(waiter, asked) is not None
