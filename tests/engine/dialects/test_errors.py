"""One meaning for each error: units of work, the pool, `wait`, `check` and the failover all read the same row."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import re
import socket
import sqlite3
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from dbconfig import Profile, Registry
from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import Fate, Meaning
from dbconfig.engine.dialects.mysql import errors as mysql
from dbconfig.engine.dialects.postgresql import errors as postgresql
from dbconfig.errors.catalogue import CATALOGUE
from tests.support.servers import MariaDBServer


def of_libpq(words: str) -> DBAPIError:
    """An error as psycopg2 raises it for a connection attempt: no code, only words."""
    return OperationalError(None, None, psycopg2.OperationalError(words))


def of_mysql(
    number: int, words: str, inner: BaseException | None = None, *, statement: str | None = None
) -> DBAPIError:
    cause = pymysql.err.OperationalError(number, words)
    cause.__cause__ = inner
    return OperationalError(statement, None, cause)


def of_state(state: str, words: str = "", function: str = "") -> DBAPIError:
    """An error of a statement as psycopg raises it: SQLSTATE, and the server's function that raised it."""

    class Diagnostics:
        source_function = function

    class Error(Exception):
        sqlstate = state
        diag = Diagnostics()

    return OperationalError("UPDATE t SET n = 1", None, Error(words))


def row_of(error: DBAPIError) -> Meaning:
    row = errors.of_connect(error) if error.statement is None else errors.of_statement(error)
    assert row is not None
    return row


# Each of these was judged in two ways by two parts of the program.


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (of_mysql(2003, "Can't connect to MySQL server on 'db'", FileNotFoundError(2, "No such file")), "refused"),
        (of_mysql(1203, "User app already has more than 'max_user_connections' connections"), "too-many-connections"),
        (of_mysql(1226, "User 'app' has exceeded the 'max_user_connections' resource"), "too-many-connections"),
        (of_mysql(2003, "Can't connect to MySQL server on 'db'", socket.gaierror(-3, "Temporary")), "host-unknown"),
        (of_libpq('could not translate host name "db" to address: Name or service not known'), "host-unknown"),
        (of_libpq("could not translate host name: Temporary failure in name resolution"), "host-unknown"),
        (of_libpq("connection to server at 10.0.0.1, port 5432 failed: Connection timed out"), "timed-out"),
        (of_libpq("timeout expired"), "timed-out"),
        (of_libpq("FATAL:  terminating connection due to administrator command"), "connection-lost"),
        (of_libpq("FATAL:  the database system is starting up"), "starting-up"),
        (of_libpq("connection to server failed: session is read-only"), "no-primary"),
        (of_libpq("FATAL:  server login has been failing, cached error (server_login_retry)"), "starting-up"),
    ],
    ids=lambda value: str(getattr(value, "orig", value))[:40],
)
def test_a_connection_attempt_that_time_may_cure_is_repeated_by_everybody(error: DBAPIError, slug: str) -> None:
    row = row_of(error)
    assert row.slug == slug
    assert row.connects_again
    assert errors.fate_of(error) in (Fate.ABSENT, Fate.LOST)


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (of_mysql(1045, "Access denied for user"), "login-rejected"),
        (of_mysql(1226, "User 'app' has exceeded the 'max_connections_per_hour' resource"), "connection-failed"),
        (
            of_mysql(2003, "Can't connect", ssl.SSLCertVerificationError(1, "certificate verify failed")),
            "tls-untrusted",
        ),
        (of_mysql(2026, "SSL connection error: certificate verify failed"), "tls-untrusted"),
        (of_libpq('FATAL:  password authentication failed for user "app"'), "login-rejected"),
        (of_libpq('FATAL:  database "shop" does not exist'), "database-missing"),
        (of_libpq('root certificate file "ca.pem" does not exist: No such file or directory'), "tls-untrusted"),
    ],
    ids=lambda value: str(getattr(value, "orig", value))[:40],
)
def test_a_connection_attempt_that_will_fail_again_is_final_for_everybody(error: DBAPIError, slug: str) -> None:
    row = row_of(error)
    assert row.slug == slug
    assert not row.connects_again
    assert errors.fate_of(error) is Fate.FINAL


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "refused"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "unreachable"),
        (TimeoutError("timed out"), "timed-out"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "connection-lost"),
        (EOFError("0 bytes read on a total of 4 expected bytes"), "connection-lost"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "host-unknown"),
        # Its number is OpenSSL's: 1 is no "Operation not permitted".
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "tls-untrusted"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "connection-lost"),
        (ConnectionError("unexpected connection_lost() call"), "connection-lost"),
        (ConnectionError("of a kind that nobody knows"), "connection-lost"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("backend", ["postgresql", "mysql"])
def test_errors_that_are_no_drivers_have_a_meaning_too(error: BaseException, slug: str, backend: str) -> None:
    row = errors.of_connect(error, backend)
    assert row is not None
    assert row.slug == slug


def test_a_server_of_mysql_that_does_not_greet_is_silent_and_does_not_close_a_connection() -> None:
    error = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query (timed out)")
    of_connect, of_statement = errors.of_connect(error, "mysql"), errors.of_statement(error, "mysql")
    assert of_connect is not None
    assert of_statement is not None
    assert (of_connect.slug, of_statement.slug) == ("timed-out", "connection-lost")


@pytest.mark.parametrize("drivername", ["mysql+pymysql", "mysql+asyncmy", "mysql+aiomysql"])
def test_a_silent_server_is_told_as_one(mariadb: MariaDBServer, drivername: str) -> None:
    db = Registry.from_profile(
        Profile(name="silent", url=mariadb.url(drivername), connect_timeout="1s", pool_timeout="2s")
    )

    async def connect_in_task() -> None:
        async with db, db.async_engine().connect():
            pass

    def connect() -> None:
        with db:
            db.engine().connect()

    attempt = connect if drivername == "mysql+pymysql" else lambda: asyncio.run(connect_in_task())
    mariadb.pause()
    try:
        with pytest.raises((DBAPIError, TimeoutError)) as raised:
            attempt()
    finally:
        mariadb.resume()
    assert "dbconfig[timed-out]" in "\n".join(raised.value.__notes__)


def test_a_connection_error_that_asyncpg_makes_itself_means_what_it_says() -> None:
    row = errors.of_connect(ConnectionError('PostgreSQL server at "h:1" rejected SSL upgrade'), "postgresql")
    assert row is not None
    assert row.slug == "tls-refused"


@pytest.mark.parametrize(("backend", "slug"), [("postgresql", "not-a-database"), ("mysql", "tls-refused")])
def test_what_is_no_tls_is_another_program_or_a_mysql_that_has_none(backend: str, slug: str) -> None:
    """MySQL's TLS begins after the server's greeting, PostgreSQL's after its one-letter answer."""
    row = errors.of_connect(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), backend)
    assert row is not None
    assert row.slug == slug


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (of_mysql(1205, "Lock wait timeout exceeded", statement="UPDATE t"), Fate.CONFLICT),
        (of_mysql(1213, "Deadlock found", statement="UPDATE t"), Fate.CONFLICT),
        (of_mysql(3024, "maximum statement execution time exceeded", statement="SELECT"), Fate.FINAL),
        (of_mysql(1969, "max_statement_time exceeded", statement="SELECT"), Fate.FINAL),
        (of_mysql(1290, "running with the --secure-file-priv option", statement="SELECT"), Fate.FINAL),
        (of_mysql(1290, "Der Server läuft mit der Option --read-only", statement="UPDATE t"), Fate.READ_ONLY),
        (of_mysql(1290, "running with the --super-read-only option", statement="UPDATE t"), Fate.READ_ONLY),
        (of_mysql(1792, "Cannot execute statement in a READ ONLY transaction", statement="UPDATE t"), Fate.READ_ONLY),
        (of_mysql(1836, "Running in read-only mode", statement="UPDATE t"), Fate.READ_ONLY),
        (of_mysql(1047, "WSREP has not yet prepared node for application use", statement="SELECT"), Fate.ABSENT),
        (of_mysql(1047, "Unknown command", statement="SELECT"), Fate.FINAL),
        (of_mysql(1064, "You have an error near 'lost connection'", statement="SELECT"), Fate.FINAL),
        (of_state("40001"), Fate.CONFLICT),
        (of_state("40003"), Fate.UNCERTAIN),
        (of_state("08007"), Fate.UNCERTAIN),
        (of_state("25P02"), Fate.FINAL),
        (of_state("57P01"), Fate.LOST),
        (of_state("57P02"), Fate.LOST),
        (of_state("57P03"), Fate.ABSENT),
        (of_state("57P04"), Fate.FINAL),
        (of_state("57P05"), Fate.LOST),
        (of_state("53300"), Fate.ABSENT),
        (of_state("55P03"), Fate.CONFLICT),
        (of_state("0A000", "gecachter Plan darf den Ergebnistyp nicht ändern", "RevalidateCachedQuery"), Fate.CONFLICT),
        (of_state("0A000", "cross-database references are not implemented", "DeconstructQualifiedName"), Fate.FINAL),
        (of_state("58P01", "could not open file: No such file or directory"), Fate.FINAL),
        (of_state("08P01", "server conn crashed?"), Fate.ABSENT),
        (of_state("08P01", "insufficient data left in message"), Fate.FINAL),
    ],
    ids=lambda value: str(getattr(value, "orig", value))[:40],
)
def test_a_statements_error_has_one_fate_whatever_the_servers_language(error: DBAPIError, fate: Fate) -> None:
    error.connection_invalidated = fate is Fate.READ_ONLY  # the engine has seen that it is the server that refuses
    assert errors.fate_of(error) is fate


# What a row says of the connection, of the next attempt, and of the transaction, where the fate does not decide it. A
# connection that is kept after its server has closed it fails the next caller; one that is not is only opened again.
ENDS = {postgresql: {"57P04", "25P04"}, mysql: {1180}}
TRIES_AGAIN = {postgresql: {"57014"}, mysql: {1969, 3024}}
ROLLS_BACK = {postgresql: set[str](), mysql: {1213, 1020, 1613, 1614, 3101, 1206}}


@pytest.mark.parametrize("table", ENDS, ids=lambda table: table.__name__.split(".")[-2])
def test_of_each_code_it_is_known_whether_the_connection_ends_with_it(table: ModuleType) -> None:
    by_fate = {code for code, row in table.CODES.items() if row.fate in (Fate.LOST, Fate.ABSENT)}
    assert {code for code, row in table.CODES.items() if row.ends_connection} == by_fate | ENDS[table]
    assert not by_fate & ENDS[table]
    by_fate |= {code for code, row in table.CODES.items() if row.fate is Fate.CONFLICT}
    assert {code for code, row in table.CODES.items() if row.connects_again} == by_fate | TRIES_AGAIN[table]
    assert {code for code, row in table.CODES.items() if row.rolls_back} == ROLLS_BACK[table]


def test_the_applications_own_read_only_is_final() -> None:
    assert errors.fate_of(of_state("25006")) is Fate.FINAL
    assert errors.fate_of(of_mysql(1792, "READ ONLY transaction", statement="UPDATE t")) is Fate.FINAL


@pytest.mark.parametrize(
    "words",
    [
        "connection is closed",
        "unexpected connection_lost() call",
        "connection was closed in the middle of operation",
        "cannot switch to state 15; another operation (2) is in progress",
    ],
)
def test_asyncpgs_words_for_a_connection_that_ended_are_known(words: str) -> None:
    class InterfaceError(Exception):
        pass

    row = errors.of_connect(InterfaceError(words), "postgresql")
    assert row is not None
    assert row.fate is Fate.LOST


def test_a_timeout_under_a_statement_is_a_lost_connection_and_not_an_absent_one() -> None:
    error = of_mysql(2013, "Lost connection to MySQL server during query", TimeoutError(), statement="SELECT 1")
    error.connection_invalidated = True
    assert errors.fate_of(error) is Fate.LOST


@pytest.mark.parametrize(
    ("name", "slug", "fate"),
    [
        ("SQLITE_BUSY_SNAPSHOT", "busy", Fate.CONFLICT),
        ("SQLITE_LOCKED", "busy", Fate.CONFLICT),
        ("SQLITE_CANTOPEN_ISDIR", "database-file", Fate.FINAL),
        ("SQLITE_NOTADB", "not-a-database", Fate.FINAL),
        ("SQLITE_READONLY_DBMOVED", "read-only", Fate.FINAL),
    ],
)
def test_sqlites_extended_codes_belong_to_their_primary_one(name: str, slug: str, fate: Fate) -> None:
    cause: Any = sqlite3.OperationalError("in whatever words")
    cause.sqlite_errorname = name
    row = errors.of_statement(cause)
    assert row is not None
    assert (row.slug, row.fate) == (slug, fate)


def test_each_row_names_an_entry_of_the_catalogue() -> None:
    rows = [*mysql.CODES.values(), *postgresql.CODES.values()]
    rows += [row for _, row in (*mysql.WORDS, *postgresql.WORDS)]
    assert {row.slug for row in rows} <= set(CATALOGUE)


def test_a_table_can_be_read_before_an_error_asks_for_it() -> None:
    errors._table.cache_clear()
    errors.read_table("mysql")
    assert errors._table.cache_info().currsize == 1


@pytest.mark.parametrize(
    ("arguments", "attributes", "answer"),
    [
        ((1062, "Duplicate entry"), {}, True),
        ((2013, "Lost connection"), {}, False),  # of the client itself
        (("text",), {"pgcode": "23505"}, True),
        (("text",), {"sqlstate": "23505"}, True),
        (("text",), {"sqlite_errorname": "SQLITE_BUSY"}, True),
        (("text",), {"pgcode": None}, False),
        ((), {"sqlstate": "23505"}, True),
        ((), {}, False),
    ],
)
def test_what_the_database_said_is_told_from_what_the_driver_made_of_silence(
    arguments: tuple[Any, ...], attributes: dict[str, Any], answer: bool
) -> None:
    error = Exception(*arguments)
    vars(error).update(attributes)
    assert errors.is_answer(error) is answer


def test_an_error_of_a_connect_that_nobody_knows_is_final() -> None:
    assert errors.fate_of(DBAPIError(None, None, Exception("?"))) is Fate.FINAL
    assert errors.fate_of(DBAPIError("SELECT 1", None, Exception("?"), connection_invalidated=True)) is Fate.LOST
    assert errors.fate_of(Exception("?")) is Fate.FINAL


ROW = re.compile(r"    \"?(\w+)\"?: [\w(]")
SOURCE = re.compile(r"\[[mca]\] |# [a-z]")  # MySQL's and MariaDB's references, or the name of PostgreSQL's condition
# Of the codes that two tables once judged differently, and of their neighbors.
DISPUTED = {
    mysql: ("1203", "1226", "1205", "1213", "3024", "1290", "1792", "1836", "1047"),
    postgresql: ("40003", "08007", "25P02", "57P01", "57P02", "57P03", "57P04", "57P05", "53300", "55P03", "0A000"),
}


@pytest.mark.parametrize("table", DISPUTED, ids=lambda table: table.__name__.split(".")[-2])
def test_each_code_has_one_row_with_the_source_of_its_meaning(table: ModuleType) -> None:
    """The second of two rows of one code would win in silence; a row without a source is somebody's guess."""
    lines = inspect.getsource(table).splitlines()
    rows = [(number, found[1]) for number, line in enumerate(lines) if (found := ROW.match(line))]
    codes = [code for _, code in rows]
    assert sorted(codes) == sorted(set(codes)) == sorted(str(code) for code in table.CODES)
    assert set(DISPUTED[table]) <= set(codes)
    said = {code: lines[number] + re.sub(r"^    [^#].*", "", lines[number - 1]) for number, code in rows}
    without = [code for code, line in said.items() if not SOURCE.search(line)]
    assert without == []


def test_nothing_outside_the_dialects_asks_for_a_servers_code() -> None:
    known = {*mysql.CODES, *(code for code in postgresql.CODES if not code.isdecimal())}
    dialects = Path(errors.__file__).parent
    package = dialects.parents[1]
    found = [
        f"{path.relative_to(package)}:{node.lineno}: {node.value}"
        for path in package.rglob("*.py")
        if dialects not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and type(node.value) in (int, str) and node.value in known
    ]
    assert found == []
