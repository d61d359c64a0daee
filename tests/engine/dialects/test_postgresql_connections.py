"""What our classes add to the connections of PostgreSQL's drivers, and which arguments these get: without a server."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from psycopg2 import extensions, sql

from dbconfig import ConfigError
from dbconfig.engine.dialects.postgresql import asyncpg as asyncpg_arguments
from dbconfig.engine.dialects.postgresql import asyncpg_limits, base, fast_begin, pgbouncer, psycopg2
from dbconfig.errors import Location
from dbconfig.settings.database import DatabaseSettings

IDLE, INSIDE, FAILED = 0, 2, 3  # libpq's status of a transaction


def settings(url: str = "postgresql+asyncpg://u@h/d", **keys: Any) -> DatabaseSettings:
    return DatabaseSettings(url=url, **keys)


def problems(work: Any, *arguments: Any) -> list[Any]:
    with pytest.raises(ConfigError) as caught:
        work(*arguments)
    return list(caught.value.problems)


class Engine:
    """What `attach` asks of an engine; `connect` returns the keywords with which the driver is called."""

    def __init__(self, driver: str, *, is_async: bool = False) -> None:
        self.given: dict[str, Any] = {}
        self.dialect: Any = SimpleNamespace(driver=driver, connect=self._connect, is_async=is_async)
        self.logging_name = "default"

    def _connect(self, *arguments: Any, **keywords: Any) -> Any:
        self.given = dict(keywords)
        return SimpleNamespace()

    def connect(self, **keywords: Any) -> dict[str, Any]:
        self.dialect.connect(**keywords)
        return self.given


# psycopg


@pytest.mark.parametrize("kind", ["answers", "is silent", "fails"])
def test_a_request_to_cancel_needs_nothing_that_psycopg_3_2_lacks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wait has no limit of time; an argument for one was a TypeError, and the server was not asked."""
    pytest.importorskip("psycopg")
    from dbconfig.engine.dialects.postgresql import psycopg_tasks

    told: list[str] = []

    async def wait_conn_async(gen: Any, interval: float = 0.0) -> None:
        if kind == "fails":
            raise psycopg_tasks.psycopg.OperationalError("the server refuses it")
        if kind == "is silent":
            await asyncio.Event().wait()
        told.append(gen)

    monkeypatch.setattr(psycopg_tasks, "waiting", SimpleNamespace(wait_conn_async=wait_conn_async))
    monkeypatch.setattr(psycopg_tasks, "generators", SimpleNamespace(cancel=lambda request: "delivered"))
    monkeypatch.setattr(psycopg_tasks, "REQUEST_LIMIT", 0.01 if kind == "is silent" else 600.0)
    asyncio.run(psycopg_tasks._deliver(SimpleNamespace(finish=lambda: told.append("finished"))))
    assert told == [*(["delivered"] if kind == "answers" else []), "finished"]


# asyncpg


def test_the_word_for_tls_is_given_once() -> None:
    url = "postgresql+asyncpg://u@h/d?ssl=require"
    assert asyncpg_arguments.arguments(settings(url), {})["ssl"] == "require"
    (problem,) = problems(asyncpg_arguments.arguments, settings(f"{url}&sslmode=prefer"), {})
    assert (problem.slug, problem.key, problem.help) == ("given-twice", "query.ssl", "remove one of the two")


def test_what_asyncpg_does_not_know_is_refused_where_it_is_written() -> None:
    found = asyncpg_arguments.arguments(
        settings(connect_args={"command_timeout": 5, "max_cacheable_statement_size": 1}), {}
    )
    assert (found["command_timeout"], found["max_cacheable_statement_size"]) == (5, 1)
    # A URL for every driver, whose parameters psycopg2 knows.
    (problem,) = problems(asyncpg_arguments.arguments, settings("postgresql://u@h/d?krbsrvname=x"), {})
    assert problem.key == "query.krbsrvname"
    assert problem.help == "write it into `connect_args`, where a number is a number"
    for wrong in (
        settings("postgresql://u@h/d?keepalives=1"),
        settings("postgresql://u@h/d", connect_args={"keepalives": 1}),
    ):
        (problem,) = problems(asyncpg_arguments.arguments, wrong, {})
        assert problem.key in ("query.keepalives", "connect_args.keepalives")
        assert "psycopg accepts every keyword" in problem.help


VERIFIES, CHECKS_THE_NAME, ENCRYPTS = (ssl.CERT_REQUIRED, False), (ssl.CERT_REQUIRED, True), (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        *(({"sslmode": mode}, mode) for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")),
        *(({"sslmode": mode, "sslrootcert": "missing.pem"}, mode) for mode in ("disable", "allow", "prefer")),
        ({"sslmode": "require", "sslrootcert": "ca"}, VERIFIES),  # as in libpq
        ({"sslmode": "verify-ca", "sslrootcert": "ca"}, VERIFIES),
        ({"sslmode": "verify-full", "sslrootcert": "ca"}, CHECKS_THE_NAME),
        ({"sslrootcert": "system"}, CHECKS_THE_NAME),
        ({"sslmode": "verify-ca", "sslrootcert": "missing.pem"}, None),
        ({"sslmode": "require", "sslrootcert": "missing.pem"}, None),
        ({"sslmode": "require", "sslcert": "own"}, ENCRYPTS),
        ({"sslmode": "prefer", "sslcert": "own"}, ENCRYPTS),
        ({"sslmode": "prefer", "sslcert": "own", "sslrootcert": "missing.pem"}, ENCRYPTS),  # where it is optional
        ({"sslmode": "verify-ca", "sslcert": "own", "sslrootcert": "missing.pem"}, None),
        ({"sslmode": "require", "sslcert": "missing.pem"}, None),
    ],
    ids=str,
)
def test_sslmode_of_asyncpg_means_what_it_means_to_libpq(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str], result: Any
) -> None:
    read: list[str] = []

    def load(self: ssl.SSLContext, file: str, *_: object) -> None:
        read.append(file)
        if file == "missing.pem":
            raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    places = {name: Location("a.yaml") for name in wanted}
    if result is None:
        (problem,) = problems(asyncpg_arguments._tls, settings(), wanted, places)
        assert (problem.slug, wanted[problem.key]) == ("file-unreadable", "missing.pem")
        return
    found: Any = asyncpg_arguments._tls(settings(), wanted, places)
    assert (found if isinstance(found, str) else (found.verify_mode, found.check_hostname)) == result
    assert "missing.pem" not in read


@pytest.mark.parametrize(
    ("elsewhere", "query", "layers", "found"),
    [
        (True, {}, (), "the environment"),
        (True, {"sslcert": ("a.pem",)}, (), "the profile"),
        (True, {}, ("connect_args.sslcert",), "the profile"),
        (True, {}, ("query.sslcert",), "the profile"),
        (False, {}, (), "the profile"),
    ],
)
def test_a_parameter_is_told_where_it_counts(
    elsewhere: bool, query: dict[str, Any], layers: tuple[str, ...], found: str
) -> None:
    asked: list[Any] = []
    of: Any = SimpleNamespace(
        address=SimpleNamespace(query=query),
        layers=lambda key: [key] if key in layers else [],
        written_at=lambda *keys: asked.extend(keys) or "the profile",
    )
    default: Any = SimpleNamespace(location="the environment") if elsewhere else None
    assert asyncpg_arguments._place(of, "sslcert", default) == found
    assert asked == ([] if found == "the environment" else ["connect_args.sslcert", "query.sslcert"])


class Own(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """An application's own class."""


@pytest.mark.parametrize("reading", [False, True])
def test_asyncpg_gets_a_class_with_the_limits_that_is_the_applications_own_too(reading: bool) -> None:
    ours = asyncpg_limits.ReadingConnection if reading else asyncpg_limits.LimitedConnection
    engine: Any = Engine("asyncpg")
    asyncpg_limits.attach(engine, "SET LOCAL a = 1", reading=reading)
    for keywords, bases in (
        ({}, ()),
        ({"connection_class": asyncpg.Connection}, ()),
        ({"connection_class": Own}, (Own,)),
    ):
        found = engine.connect(password="secret", **keywords)  # not one
        assert found["password"] == "secret"  # likewise
        kind = found["connection_class"]
        assert issubclass(kind, (ours,))
        assert all(issubclass(kind, base) for base in bases)
        assert kind.limits == "SET LOCAL a = 1"
        assert issubclass(kind, asyncpg_limits.ReadingConnection) is reading


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What asyncpg's own connection would send; BEGIN, COMMIT and ROLLBACK count."""
    found: list[str] = []

    async def execute(self: Any, query: str, *arguments: Any, timeout: float | None = None) -> str:
        found.append(query)
        return "DONE"

    async def fetchrow(self: Any, query: str, *arguments: Any, **options: Any) -> str:
        found.append(query)
        return "row"

    async def prepare(self: Any, query: str, **options: Any) -> str:
        found.append(f"prepare {query}")
        return "prepared"

    def inside(self: Any) -> bool:
        begun = [number for number, query in enumerate(found) if "BEGIN" in query or "start" in query]
        ended = [number for number, query in enumerate(found) if query.startswith(("COMMIT", "ROLLBACK"))]
        return max(begun, default=-1) > max(ended, default=-1)

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    monkeypatch.setattr(asyncpg.Connection, "fetchrow", fetchrow)
    monkeypatch.setattr(asyncpg.Connection, "prepare", prepare)
    monkeypatch.setattr(asyncpg.Connection, "is_in_transaction", inside)
    return found


def bare(kind: type, **members: Any) -> Any:
    """Return a connection that was never opened."""
    ours = type(kind.__name__, (kind,), {"__init__": lambda self: None, "__del__": lambda self: None, **members})
    return ours()


def test_asyncpg_sends_the_limits_with_begin_alone(sent: list[str]) -> None:
    connection = bare(asyncpg_limits.LimitedConnection, limits="SET LOCAL a = 1")

    async def main() -> None:
        for query, *arguments in (("SELECT 1",), ("BEGIN", 7), ("ROLLBACK",), (" start  transaction;",), ("BEGIN",)):
            assert await connection.execute(query, *arguments) == "DONE"

    asyncio.run(main())
    assert sent == ["SELECT 1", "BEGIN", "ROLLBACK", "SET LOCAL a = 1;\n start  transaction;", "BEGIN"]


def test_a_reading_session_of_asyncpg_is_always_in_a_transaction(sent: list[str]) -> None:
    connection = bare(asyncpg_limits.ReadingConnection, limits="SET LOCAL a = 1")
    begun = "SET LOCAL a = 1;\nBEGIN"

    async def main() -> None:
        await connection.execute("SELECT 1")
        assert sent == ["SET LOCAL a = 1;\nSELECT 1"]  # one message is one transaction
        sent.clear()
        await connection.execute("SELECT $1", 1)
        assert sent == [begun, "SELECT $1"]
        await connection.execute("ROLLBACK")
        sent.clear()
        assert await connection.fetchrow(";") == "row"  # a ping
        assert sent == [";"]
        assert await connection.fetchrow("SELECT 2") == "row"
        assert await connection.fetchrow("SELECT 3") == "row"
        assert sent[1:] == [begun, "SELECT 2", "SELECT 3"]
        await connection.execute("ROLLBACK")
        sent.clear()
        assert await connection.prepare("SELECT 4") == "prepared"
        executed = await connection.prepare(" commit")
        assert sent == [begun, "prepare SELECT 4", " commit"]
        assert (executed.get_attributes(), executed.get_statusmsg(), await executed.fetch()) == ((), "DONE", [])

    asyncio.run(main())


# psycopg2


class Fake(extensions.connection):
    """psycopg2's connection without a server: keeps what it is asked for."""

    status = extensions.STATUS_READY
    closed: Any = 0

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """Connect to nothing."""

    def rollback(self) -> None:
        self.told.append("rollback")

    def commit(self) -> None:
        self.told.append("commit")

    def set_session(self, *arguments: Any, **keywords: Any) -> None:
        self.told.append(("set_session", *arguments, *keywords.items()))

    def tpc_begin(self, xid: Any) -> None:
        self.told.append(("tpc_begin", xid))

    def tpc_commit(self, *xid: Any) -> None:
        self.told.append(("tpc_commit", *xid))

    def tpc_rollback(self, *xid: Any) -> None:
        self.told.append(("tpc_rollback", *xid))

    def lobject(self, *arguments: Any, **keywords: Any) -> Any:
        self.told.append(("lobject", *arguments))
        return "large"

    def cursor(self, name: Any = None, **keywords: Any) -> Any:
        self.told.append(("cursor", name, keywords.get("withhold")))
        return keywords["cursor_factory"]


class Offline(fast_begin.FastBeginConnection, Fake):
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.inside = IDLE
        super().__init__("password=secret")
        assert self.took() == [("autocommit", True)]

    def get_transaction_status(self) -> int:
        return self.inside

    def _set_driver(self, *, autocommit: bool) -> None:
        self.told.append(("autocommit", autocommit))

    def _send(self, statement: str) -> None:
        self.told.append(statement)

    def took(self) -> list[Any]:
        found, self.told = self.told, []
        return found


RESET = ("set_session", "DEFAULT", "default", "default", ("autocommit", True))


def test_the_begin_that_is_due_has_the_modes_that_are_set() -> None:
    connection: Any = Offline()
    assert connection.begin_due() == "BEGIN"
    connection.limits = "SET LOCAL a = 1"
    assert connection.begin_due() == "BEGIN; SET LOCAL a = 1"
    connection.limits = ""
    connection.set_session("serializable", True, True)
    assert connection.begin_due() == "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
    connection.set_session(extensions.ISOLATION_LEVEL_REPEATABLE_READ, False, False)
    assert connection.begin_due() == "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE NOT DEFERRABLE"
    connection.set_session()  # nothing is given, nothing changes
    assert connection.begin_due() == "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE NOT DEFERRABLE"
    connection.set_session("default", "default", "DEFAULT")
    assert connection.begin_due() == "BEGIN"
    connection.inside = INSIDE
    assert connection.begin_due() == ""
    connection.inside, connection._by_driver = IDLE, True
    assert connection.begin_due() == ""
    connection._by_driver = False
    connection.set_session(autocommit=True)
    assert (connection.begin_due(), connection.autocommit) == ("", True)
    connection.set_session(autocommit=False)
    assert (connection.begin_due(), connection.autocommit) == ("BEGIN", False)


def test_isolation_levels_are_set_as_the_driver_sets_them() -> None:
    connection: Any = Offline()
    connection.inside = INSIDE
    connection.set_isolation_level(extensions.ISOLATION_LEVEL_AUTOCOMMIT)
    assert connection.took() == ["ROLLBACK"]
    assert (connection.autocommit, connection.isolation_level) == (True, None)
    connection.set_isolation_level(extensions.ISOLATION_LEVEL_SERIALIZABLE)
    assert connection.took() == ["ROLLBACK"]
    assert (connection.autocommit, connection.isolation_level) == (False, extensions.ISOLATION_LEVEL_SERIALIZABLE)
    connection.inside = IDLE
    connection.set_isolation_level(None)
    assert (connection.took(), connection.isolation_level) == ([], None)
    for value in (extensions.ISOLATION_LEVEL_DEFAULT, "default", None):
        connection.isolation_level = extensions.ISOLATION_LEVEL_SERIALIZABLE
        connection.isolation_level = value
        assert connection.isolation_level is None


@pytest.mark.parametrize(
    "name", ["autocommit", "isolation_level", "readonly", "deferrable", "set_session"], ids=lambda name: str(name)
)
def test_nothing_is_set_inside_a_transaction(name: str) -> None:
    connection: Any = Offline()
    connection.inside = INSIDE
    with pytest.raises(fast_begin.psycopg2.ProgrammingError, match="inside a transaction"):
        connection.set_session(readonly=True) if name == "set_session" else setattr(connection, name, True)
    connection.closed = 1  # the driver's own error comes with the next statement
    connection.set_session(readonly=True) if name == "set_session" else setattr(connection, name, None)


def test_each_begin_is_counted_until_its_transaction_ends() -> None:
    connection: Any = Offline()
    assert not connection.has_begun()
    connection.begin_now()
    assert (connection.took(), connection.has_begun(), connection.begun_again) == (["BEGIN"], True, False)
    connection.begin_now()  # the application has sent COMMIT itself
    assert (connection.took(), connection.has_begun(), connection.begun_again) == (["BEGIN"], True, True)
    connection.inside = INSIDE
    connection.begin_now()
    assert connection.took() == []
    connection.commit()
    assert (connection.took(), connection.has_begun(), connection.begun_again) == (["COMMIT"], False, False)
    connection.inside = IDLE
    connection.commit()
    connection.rollback()
    assert connection.took() == []
    connection.inside = FAILED
    connection.rollback()
    assert connection.took() == ["ROLLBACK"]
    connection.closed = 1
    connection.rollback()
    connection.commit()
    assert connection.took() == ["rollback", "commit"]  # the driver's own, which raise


def test_the_driver_has_a_transaction_that_only_it_can_run() -> None:
    connection: Any = Offline()
    connection.begin_by_driver()
    assert connection.took() == [("autocommit", False)]
    assert not connection.is_ours()
    connection.commit()
    assert connection.took() == ["commit", RESET]
    assert connection.is_ours()
    for modes in ((6, None, None), (None, True, None), (None, None, False)):
        connection._level, connection._readonly, connection._deferrable = modes
        connection.begin_by_driver()
        assert connection.took() == [("autocommit", False), ("set_session", *modes)]
        connection.rollback()
        assert connection.took() == ["rollback", RESET]


def test_a_named_cursor_begins_by_the_driver_or_is_held() -> None:
    connection: Any = Offline()
    connection.limits = "SET LOCAL a = 1"
    assert connection.cursor("name") is fast_begin.FastBeginCursor
    assert connection.took() == [("autocommit", False), "SET LOCAL a = 1", ("cursor", "name", False)]
    connection.inside = INSIDE
    connection.cursor("other")
    assert connection.took() == [("cursor", "other", False)]  # the driver runs this transaction
    connection.commit()
    assert connection.took() == ["commit", RESET]
    connection.cursor("held")
    assert connection.took() == [("cursor", "held", True)]  # in a transaction of ours
    connection.commit()
    assert connection.took() == ["CLOSE ALL; COMMIT"]
    connection.cursor("again")
    connection.inside = FAILED
    connection.took()
    connection.commit()
    assert connection.took() == ["COMMIT"]  # where CLOSE ALL would be an error
    connection.inside = INSIDE
    connection.cursor("lost")
    connection.rollback()
    connection.took()
    connection.commit()
    assert connection.took() == ["COMMIT"]  # a rollback has closed it
    connection.cursor("first")
    connection.lobject(5)
    connection.took()
    connection.commit()
    assert connection.took() == ["CLOSE ALL", "commit", RESET]
    connection._autocommit, connection.inside = True, IDLE
    connection.cursor("alone")
    connection.cursor()
    assert connection.took() == [("cursor", "alone", False), ("cursor", None, False)]


def test_two_phases_are_the_drivers() -> None:
    connection: Any = Offline()
    connection.limits = "SET LOCAL a = 1"
    for end in ("tpc_commit", "tpc_rollback"):
        connection.tpc_begin("xid")
        assert connection.took() == [("autocommit", False), ("tpc_begin", "xid"), "SET LOCAL a = 1"]
        connection.status = extensions.STATUS_PREPARED
        getattr(connection, end)()
        assert (connection.took(), connection.is_ours()) == ([(end,)], False)  # it has not ended
        connection.status = extensions.STATUS_READY
        getattr(connection, end)("xid")
        assert (connection.took(), connection.is_ours()) == ([(end, "xid"), RESET], True)
        getattr(connection, end)("other")  # one that was recovered
        assert connection.took() == [(end, "other")]


def test_large_objects_are_the_drivers() -> None:
    connection: Any = Offline()
    connection.limits = "SET LOCAL a = 1"
    assert connection.lobject(5) == "large"
    assert connection.took() == [("autocommit", False), "SET LOCAL a = 1", ("lobject", 5)]
    connection.inside = INSIDE
    connection.lobject(6)
    assert connection.took() == [("lobject", 6)]
    connection.commit()
    connection.took()
    connection.lobject(7)  # in a transaction that we have begun
    assert (connection.took(), connection.is_ours()) == ([("autocommit", False), ("lobject", 7)], False)
    other: Any = Offline()
    other._autocommit = True
    other.lobject(8)
    assert (other.took(), other.is_ours()) == ([("lobject", 8)], True)


def test_begin_is_joined_with_a_statement_of_any_kind() -> None:
    cursor: Any = SimpleNamespace(connection=SimpleNamespace(encoding="UTF8"))
    joined = fast_begin.FastBeginCursor._joined
    assert joined(cursor, "BEGIN; SET a = '%'", "SELECT 1", None) == "BEGIN; SET a = '%';\nSELECT 1"
    assert joined(cursor, "BEGIN; SET a = '%'", "SELECT %s", (1,)) == "BEGIN; SET a = '%%';\nSELECT %s"
    assert joined(cursor, "BEGIN", b"SELECT 1", None) == b"BEGIN;\nSELECT 1"
    assert joined(cursor, "BEGIN", sql.SQL("SELECT 1"), None) == sql.SQL("BEGIN;\n") + sql.SQL("SELECT 1")


def test_a_class_is_combined_with_the_applications_own() -> None:
    class Theirs(extensions.cursor):
        pass

    class Both(fast_begin.FastBeginCursor):
        pass

    ours = fast_begin.FastBeginCursor
    assert fast_begin.with_factory(ours, None) is fast_begin.with_factory(ours, extensions.cursor) is ours
    assert fast_begin.with_factory(ours, Both) is Both
    assert fast_begin.with_factory(ours, Theirs).__bases__ == (ours, Theirs)
    connection: Any = Offline()
    assert connection.cursor(cursor_factory=Theirs).__bases__ == (ours, Theirs)


class Reading(psycopg2.ReadingConnection, Offline):
    pass


def test_a_reading_connection_sends_its_limits_with_each_statement_outside_a_transaction() -> None:
    connection: Any = Reading()
    connection.limits = "SET LOCAL a = 1"
    assert connection.begin_due() == "BEGIN; SET LOCAL a = 1"
    connection.begin_for_stream()
    assert connection.took() == [("autocommit", False), "SET LOCAL a = 1"]
    connection._by_driver = False
    connection.begin_now()
    assert connection.took() == ["BEGIN; SET LOCAL a = 1"]
    connection.autocommit = True
    assert connection.begin_due() == "SET LOCAL a = 1"
    for begin in (connection.begin_now, connection.begin_for_stream):
        begin()
        assert connection.took() == ["BEGIN; SET LOCAL a = 1"]
    connection.inside = INSIDE
    assert connection.begin_due() == ""
    connection.begin_now()
    connection.begin_for_stream()
    assert connection.took() == []
    with pytest.raises(fast_begin.psycopg2.NotSupportedError, match="nothing to commit in two phases"):
        connection.tpc_begin("xid")


@pytest.mark.parametrize(
    ("value", "becomes"), [(None, "DEFAULT"), (True, True), (False, False), ("default", "default")]
)
def test_a_reading_option_is_reset_and_never_writing(value: Any, becomes: Any) -> None:
    told: list[Any] = []
    fake: Any = SimpleNamespace(set_session=lambda **keywords: told.append(keywords))
    psycopg2._NeverWriting.readonly.fset(fake, value)  # type: ignore[attr-defined]  # it is a property
    assert told == [{"readonly": becomes}]


def test_psycopg2_knows_whether_a_transaction_has_begun() -> None:
    driver = psycopg2.DRIVER
    for status, begun in ((extensions.STATUS_BEGIN, True), (extensions.STATUS_READY, False)):
        assert driver.has_begun(SimpleNamespace(status=status), None) is begun
    connection: Any = Offline()
    connection.status = extensions.STATUS_BEGIN
    assert driver.has_begun(connection, None) is False  # it is ours, and has sent none
    connection.begin_now()
    assert driver.has_begun(connection, None) is True
    connection.begin_by_driver()
    connection.turn += 1
    assert driver.has_begun(connection, None) is True  # the driver's, of which it knows
    connection.status = extensions.STATUS_READY
    assert driver.has_begun(connection, None) is False


def test_a_transaction_that_was_begun_twice_is_not_open() -> None:
    connection: Any = Offline()
    plain: Any = SimpleNamespace(get_transaction_status=lambda: INSIDE, begun_again=True)
    assert psycopg2.DRIVER.is_open(plain)
    connection.inside = INSIDE
    assert psycopg2.DRIVER.is_open(connection)
    connection.begun_again = True
    assert not psycopg2.DRIVER.is_open(connection)
    connection.begun_again, connection.inside = False, IDLE
    assert not psycopg2.DRIVER.is_open(connection)


@pytest.mark.parametrize(("asked", "given"), [(None, None), (True, True), (False, True), ("DEFAULT", "DEFAULT")])
def test_a_reading_connection_of_psycopg2_never_becomes_writable(
    monkeypatch: pytest.MonkeyPatch, asked: Any, given: Any
) -> None:
    told: list[Any] = []
    plain = SimpleNamespace(set_session=lambda *values: told.append(values))
    monkeypatch.setattr(psycopg2, "super", lambda: plain, raising=False)
    psycopg2._NeverWriting.set_session(plain, "SERIALIZABLE", asked, True, False)  # type: ignore[arg-type]
    assert told == [("SERIALIZABLE", given, True, False)]


SERVICE = {"host": "h", "hostaddr": "1.2.3.4", "port": "7", "user": "u"}
PLACE = {"host": "h", "hostaddr": "1.2.3.4"}


@pytest.mark.parametrize(
    ("url", "service", "written", "found"),
    [
        ("", SERVICE, (), {**PLACE, "port": "7"}),
        ("", {"port": "7"}, (), {"port": "7"}),
        ("", None, (), {}),  # there is none of this name, as the driver says itself
        ("", SERVICE, ("port",), PLACE),
        (":5", SERVICE, (), PLACE),
        ("", SERVICE, ("host",), {}),
        ("", SERVICE, ("hostaddr",), {}),
        ("other", SERVICE, (), {}),
    ],
)
def test_psycopg_is_given_the_server_of_a_service(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    service: dict[str, str] | None,
    written: tuple[str, ...],
    found: dict[str, str],
) -> None:
    lines = None if service is None else {name: SimpleNamespace(value=value) for name, value in service.items()}
    monkeypatch.setattr(base.client_defaults, "service_of", lambda settings: "shop")
    monkeypatch.setattr(base.client_defaults, "service", lambda name: lines)
    monkeypatch.setattr(base.client_defaults, "is_written", lambda settings, name: name in written)
    host, _, port = url.partition(":")
    of: Any = SimpleNamespace(address=SimpleNamespace(host=host or None, port=int(port) if port else None))
    assert base._server_of_service(of) == found
    monkeypatch.setattr(base.client_defaults, "service_of", lambda settings: None)
    assert base._server_of_service(of) == {}


# Behind a pooler


class Plain:
    """A connection of any driver."""

    def __init__(self, *, autocommit: bool, number: int = 7) -> None:
        self.autocommit = autocommit
        self.told: list[Any] = []
        self._number = number

    def cursor(self) -> Plain:
        return self

    def execute(self, statement: str) -> None:
        self.told += [statement, self.autocommit]

    def fetchone(self) -> tuple[int]:
        return (self._number,)

    def close(self) -> None:
        self.told.append("close")


def test_the_limits_are_set_at_the_start_of_each_transaction() -> None:
    engine: Any = Engine("psycopg")
    pgbouncer.set_in_transactions(engine, [])
    assert not hasattr(engine.dialect, "do_begin")
    pgbouncer.set_in_transactions(engine, ["SET LOCAL a = 1", "SET LOCAL b = 2"])
    inside, outside = Plain(autocommit=False), Plain(autocommit=True)
    engine.dialect.do_begin(inside)
    engine.dialect.do_begin(outside)
    assert inside.told == ["SET LOCAL a = 1; SET LOCAL b = 2", False, "close"]
    assert outside.told == []
    other: Any = Engine("asyncpg")
    pgbouncer.set_in_transactions(other, ["SET LOCAL a = 1", "SET LOCAL b = 2"])
    kind = other.connect()["connection_class"]
    assert issubclass(kind, asyncpg_limits.LimitedConnection)
    assert not issubclass(kind, asyncpg_limits.ReadingConnection)
    assert kind.limits == "SET LOCAL a = 1; SET LOCAL b = 2"


@pytest.mark.parametrize("autocommit", [False, True])
def test_variables_that_are_set_by_a_statement_survive_a_rollback(
    monkeypatch: pytest.MonkeyPatch, autocommit: bool
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(base, "on_connect", lambda engine, work, *, session: found.append((work, session)))
    engine: Any = Engine("psycopg2")
    base._set_by_statement(engine, {})
    assert found == []
    base._set_by_statement(engine, {"lock_timeout": 1000, "application_name": "o'neill", "jit": False})
    ((set_session, again),) = found
    assert again  # after a reset
    connection = Plain(autocommit=autocommit)
    set_session(connection, None)
    names = "set_config('application_name', 'o''neill', false), set_config('jit', 'off', false)"
    sent = f"SELECT set_config('lock_timeout', '1000', false), {names}"
    assert connection.told == [sent, True, "close"]
    assert connection.autocommit is autocommit


LIMIT = "SET LOCAL lock_timeout = '1000'"


@pytest.mark.parametrize(
    ("driver", "keys", "attached"),
    [
        ("psycopg2", {"lock_timeout": 1}, ["interrupted", "environment"]),
        ("psycopg2", {"lock_timeout": 1, "fast_begin": True}, ["interrupted", "environment", "fast begin "]),
        ("psycopg2", {"lock_timeout": 1, "pgbouncer": True}, [f"each transaction {LIMIT}"]),
        ("psycopg2", {"lock_timeout": 1, "pgbouncer": True, "fast_begin": True}, [f"fast begin {LIMIT}"]),
        ("psycopg2", {"pgbouncer": True, "isolation_level": "AUTOCOMMIT"}, []),
        ("psycopg", {"lock_timeout": 1}, ["interrupted", "plans", "environment", "distrust"]),
        ("psycopg", {"connect_args": {"prepare_threshold": 5}}, ["interrupted", "plans", "environment"]),
        ("psycopg", {"lock_timeout": 1, "pgbouncer": True}, ["plans", f"each transaction {LIMIT}"]),
        ("psycopg", {"pgbouncer": True, "isolation_level": "AUTOCOMMIT"}, ["plans"]),
        ("asyncpg", {"lock_timeout": 1}, ["interrupted"]),
        ("asyncpg", {"lock_timeout": 1, "pgbouncer": True}, [f"each transaction {LIMIT}"]),
        ("asyncpg", {"pgbouncer": True, "isolation_level": "AUTOCOMMIT"}, []),
    ],
)
def test_each_driver_gets_what_a_pooler_and_fast_begin_need(
    monkeypatch: pytest.MonkeyPatch, driver: str, keys: dict[str, Any], attached: list[str]
) -> None:
    psycopg = pytest.importorskip("dbconfig.engine.dialects.postgresql.psycopg")
    found: list[str] = []
    monkeypatch.setattr(psycopg, "forget_stale_plans", lambda engine: found.append("plans"))
    monkeypatch.setattr(base, "_set_by_statement", lambda engine, session: found.append("environment"))
    monkeypatch.setattr(fast_begin, "attach", lambda engine, kind, script: found.append(f"fast begin {script}"))
    monkeypatch.setattr(
        pgbouncer, "set_in_transactions", lambda engine, limits: found.append(f"each transaction {'; '.join(limits)}")
    )
    monkeypatch.setattr(pgbouncer, "distrust", lambda engine: found.append("distrust"))
    monkeypatch.setattr(base.interrupted_statements, "attach", lambda engine: found.append("interrupted"))
    engine: Any = Engine(driver)
    base.attach(engine, settings(f"postgresql+{driver}://u@h/d", **keys))
    assert found == attached


@pytest.mark.parametrize("pooled", [True, False])
def test_reading_sessions_without_transactions_are_guarded_or_hold_their_cursors(
    monkeypatch: pytest.MonkeyPatch, pooled: bool
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(pgbouncer, "guard_readers", lambda engine, limits: found.append(limits))
    monkeypatch.setattr(base, "hold_cursors", lambda engine: found.append("hold"))
    engine: Any = Engine("psycopg2")
    base.attach_to_readers(engine, settings("postgresql+psycopg2://u@h/d", pgbouncer=pooled, lock_timeout=1))
    assert found == ([[LIMIT]] if pooled else ["hold"])


def test_readers_get_the_connections_of_their_driver() -> None:
    limits = ["SET LOCAL a = 1", "SET LOCAL b = 2"]
    engine: Any = Engine("psycopg2")
    pgbouncer.guard_readers(engine, limits)
    kind = engine.connect()["connection_factory"]
    assert issubclass(kind, psycopg2.ReadingConnection)
    assert kind.limits == "SET LOCAL a = 1; SET LOCAL b = 2"
    connection = Offline()
    engine.dialect.do_commit(connection)
    engine.dialect.do_rollback(connection)
    assert connection.turn == 2
    engine = Engine("asyncpg")
    pgbouncer.guard_readers(engine, limits)
    kind = engine.connect()["connection_class"]
    assert issubclass(kind, asyncpg_limits.ReadingConnection)
    assert kind.limits == "SET LOCAL a = 1; SET LOCAL b = 2"
    engine = Engine("pg8000")
    pgbouncer.guard_readers(engine, limits)
    assert engine.connect() == {}


def test_an_undeclared_pooler_is_warned_of_once_and_nothing_is_prepared(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[Any] = []
    monkeypatch.setattr(pgbouncer, "on_connect", lambda engine, look: looks.append(look))
    engine: Any = Engine("psycopg")
    pgbouncer.distrust(engine)
    (look,) = looks
    for number, threshold, warnings in ((7, 5, 0), (8, None, 1), (8, None, 1)):
        driver = SimpleNamespace(info=SimpleNamespace(backend_pid=7), prepare_threshold=5)
        connection = Plain(autocommit=False, number=number)
        look(connection, SimpleNamespace(driver_connection=driver))
        assert connection.told == ["SELECT pg_backend_pid()", True, "close"]
        assert not connection.autocommit
        assert driver.prepare_threshold == threshold
        assert len(caplog.records) == warnings


# psycopg


class Told(SimpleNamespace):
    """A connection of psycopg, outside a transaction; keeps what it is asked to execute."""

    def __init__(self, *, autocommit: bool = True, status: int = IDLE) -> None:
        super().__init__(autocommit=autocommit, info=SimpleNamespace(transaction_status=status, encoding="utf-8"))
        self.told: list[Any] = []

    def execute(self, query: Any) -> None:
        self.told.append(query)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes a cursor of a reading session, whose connection keeps what is sent."""
    psycopg = pytest.importorskip("dbconfig.engine.dialects.postgresql.psycopg")

    def keep(name: str) -> Any:
        def call(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            self.connection.told.append((name, query, *arguments))
            return iter([name]) if name == "stream" else self

        return call

    for name in ("execute", "executemany", "stream"):
        monkeypatch.setattr(psycopg.psycopg.Cursor, name, keep(name))
    monkeypatch.setattr(psycopg.psycopg.ServerCursor, "execute", keep("execute"))
    monkeypatch.setattr(psycopg.psycopg.Cursor, "nextset", lambda self: self.connection.told.append("next"))

    def make(kind: str = "ReadingCursor", **state: Any) -> Any:
        return bare(getattr(psycopg, kind), connection=Told(**state), limits=("SET a = '%'", "SET b = 2"))

    return make


def test_a_reading_statement_of_psycopg_carries_its_guard(guarded: Any) -> None:
    cursor = guarded()
    assert cursor.execute("SELECT 1") is cursor
    assert cursor.connection.told == [("execute", "SET a = '%'; SET b = 2;\nSELECT 1", None), "next", "next"]
    cursor = guarded()
    cursor.execute("SELECT %s", (1,))
    assert cursor.connection.told[0] == ("execute", "SET a = '%%'; SET b = 2;\nSELECT %s", (1,))
    cursor = guarded()
    cursor.execute(b"SELECT 1")
    assert cursor.connection.told[0] == ("execute", b"SET a = '%'; SET b = 2;\nSELECT 1", None)
    cursor = guarded(status=INSIDE)
    assert cursor.execute("SELECT 1") is cursor
    assert cursor.connection.told == [("execute", "SELECT 1", None)]


@pytest.mark.parametrize(("autocommit", "begin"), [(True, "BEGIN"), (False, "")])
def test_what_cannot_carry_it_begins_a_transaction(guarded: Any, autocommit: bool, begin: str) -> None:
    for kind, work, sent, answer in (
        ("", lambda cursor: cursor.executemany("SELECT %s", [1]), ("executemany", "SELECT %s", [1]), None),
        ("", lambda cursor: list(cursor.stream("SELECT 1")), ("stream", "SELECT 1", None), ["stream"]),
        ("", lambda cursor: cursor.execute(5), ("execute", 5, None), "itself"),
        ("Server", lambda cursor: cursor.execute("SELECT 1"), ("execute", "SELECT 1", None), "itself"),
    ):
        for status, told in ((IDLE, [begin, sent]), (INSIDE, [sent])):
            cursor = guarded(f"Reading{kind}Cursor", autocommit=autocommit, status=status)
            found = work(cursor)
            assert ("itself" if found is cursor else found) == answer
            assert cursor.connection.told == told


@pytest.mark.parametrize("is_async", [False, True])
def test_a_reading_connection_of_psycopg_has_our_cursors_and_is_read_only_in_its_own_transactions(
    is_async: bool,
) -> None:
    psycopg = pytest.importorskip("dbconfig.engine.dialects.postgresql.psycopg")
    prefix = "Async" if is_async else ""
    theirs = getattr(psycopg.psycopg, f"{prefix}ServerCursor")

    class Chosen(getattr(psycopg.psycopg, f"{prefix}ClientCursor")):  # type: ignore[misc]  # by the application
        pass

    told: list[Any] = []
    driver = SimpleNamespace(cursor_factory=Chosen, server_cursor_factory=theirs)
    engine: Any = Engine("psycopg", is_async=is_async)
    engine.dialect.get_driver_connection = lambda connection: driver
    engine.dialect.set_readonly = lambda connection, value: told.append(value)
    psycopg.attach(engine, ["SET a = 1"])
    assert engine.connect(password="secret") == {"password": "secret"}  # not one
    assert told == [True]
    assert issubclass(driver.cursor_factory, (getattr(psycopg, f"{prefix}ReadingCursor"),))
    assert issubclass(driver.cursor_factory, Chosen)
    assert issubclass(driver.server_cursor_factory, (getattr(psycopg, f"{prefix}ReadingServerCursor"),))
    assert driver.cursor_factory.limits == driver.server_cursor_factory.limits == ["SET a = 1"]


@pytest.fixture
def guarded_async(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same of an asynchronous session."""
    psycopg = pytest.importorskip("dbconfig.engine.dialects.postgresql.psycopg")

    def keep(name: str) -> Any:
        async def call(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            self.connection.told.append((name, query, *arguments))
            return self

        return call

    async def stream(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        self.connection.told.append(("stream", query, *arguments))
        yield "row"

    @asynccontextmanager
    async def copy(self: Any, statement: Any, *arguments: Any, **options: Any) -> Any:
        self.connection.told.append(("copy", statement, *arguments))
        yield "copy"

    for name, found in {
        "execute": keep("execute"),
        "executemany": keep("executemany"),
        "stream": stream,
        "copy": copy,
    }.items():
        monkeypatch.setattr(psycopg.psycopg.AsyncCursor, name, found)
        if name in ("execute", "executemany", "stream"):
            monkeypatch.setattr(psycopg.psycopg.AsyncServerCursor, name, found)
    monkeypatch.setattr(psycopg.psycopg.AsyncCursor, "nextset", lambda self: self.connection.told.append("next"))

    def make(kind: str = "AsyncReadingCursor", **state: Any) -> Any:
        cursor = guarded(kind, **state)

        async def execute(query: Any) -> None:
            cursor.connection.told.append(query)

        cursor.connection.execute = execute
        return cursor

    return make


async def _streamed(cursor: Any) -> list[Any]:
    return [row async for row in cursor.stream("SELECT 1")]


async def _copied(cursor: Any) -> Any:
    async with cursor.copy("COPY t TO STDOUT") as copy:
        return copy


def test_a_reading_statement_of_a_task_carries_its_guard(guarded_async: Any) -> None:
    cursor = guarded_async()
    assert asyncio.run(cursor.execute("SELECT %s", (1,))) is cursor
    joined = "SET a = '%%'; SET b = 2;\nSELECT %s"
    assert cursor.connection.told == [("execute", joined, (1,)), "next", "next"]
    cursor = guarded_async(status=INSIDE)
    assert asyncio.run(cursor.execute("SELECT 1")) is cursor
    assert cursor.connection.told == [("execute", "SELECT 1", None)]


@pytest.mark.parametrize(("autocommit", "begin"), [(True, "BEGIN"), (False, "")])
@pytest.mark.parametrize(
    ("kind", "work", "sent", "answer"),
    [
        ("", lambda cursor: cursor.executemany("SELECT %s", [1]), ("executemany", "SELECT %s", [1]), None),
        ("", _streamed, ("stream", "SELECT 1", None), ["row"]),
        ("", _copied, ("copy", "COPY t TO STDOUT", None), "copy"),
        ("", lambda cursor: cursor.execute(5), ("execute", 5, None), "itself"),
        ("Server", lambda cursor: cursor.execute("SELECT 1"), ("execute", "SELECT 1", None), "itself"),
    ],
    ids=["executemany", "stream", "copy", "a query of another kind", "a cursor on the server"],
)
def test_what_cannot_carry_it_begins_a_transaction_of_a_task(
    guarded_async: Any, kind: str, work: Any, sent: tuple[Any, ...], answer: Any, autocommit: bool, begin: str
) -> None:
    for status, told in ((IDLE, [begin, sent]), (INSIDE, [sent])):
        cursor = guarded_async(f"AsyncReading{kind}Cursor", autocommit=autocommit, status=status)
        found = asyncio.run(work(cursor))
        assert ("itself" if found is cursor else found) == answer
        assert cursor.connection.told == told


@pytest.mark.parametrize(
    ("is_async", "own", "opened_by_ours"), [(False, None, False), (True, None, True), (True, "theirs", False)]
)
@pytest.mark.parametrize(
    ("capabilities", "cancels"),
    [(None, False), ({"has_cancel_safe": lambda: False}, False), ({"has_cancel_safe": lambda: True}, True)],
    ids=["psycopg 3.1", "libpq 16", "libpq 17"],
)
def test_a_connect_of_psycopg_is_limited_and_a_task_has_ours_where_it_can_cancel_without_blocking(
    is_async: bool,
    own: str | None,
    opened_by_ours: bool,
    capabilities: dict[str, Any] | None,
    cancels: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    psycopg = pytest.importorskip("dbconfig.engine.dialects.postgresql.psycopg")
    if capabilities is None:
        monkeypatch.delattr("psycopg.capabilities", raising=False)
    else:
        monkeypatch.setattr("psycopg.capabilities", SimpleNamespace(**capabilities), raising=False)
    kept: dict[str, Any] = {}
    parameters: Any = SimpleNamespace(
        written=lambda key: own, set=kept.__setitem__, at_most=lambda key, seconds: min(seconds, 9.5)
    )
    psycopg.DRIVER.limit_connect(SimpleNamespace(is_async=is_async), None, parameters, 20.0)
    assert kept["connect_timeout"] == 10
    assert ("async_creator_fn" in kept) is (opened_by_ours and cancels)


def test_libpq_refuses_what_another_driver_knows() -> None:
    given = settings(connect_args={"command_timeout": 5})  # of asyncpg
    for driver in ("psycopg2", "psycopg"):
        pytest.importorskip(driver)
        (problem,) = problems(base.arguments, given, f"postgresql+{driver}")
        assert (problem.slug, problem.key) == ("unknown-key", "connect_args.command_timeout")
