"""psycopg2's own connection and ours are asked the same, and answer the same: settings, transactions, cursors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg2
import pytest
from psycopg2 import extensions
from psycopg2.extras import DictCursor

from dbconfig.engine.dialects.postgresql.fast_begin import FastBeginConnection, FastBeginCursor, with_factory
from tests.support.servers import PostgreSQLServer

SHOWN = "SELECT " + ", ".join(
    f"current_setting('transaction_{name}')" for name in ("isolation", "read_only", "deferrable")
)
LEVELS = [None, "DEFAULT", "read uncommitted", "SERIALIZABLE", 1, 2, 3, 4]
FLAGS = [None, True, False, "Default"]
Ask = Callable[[Any], Any]


@pytest.fixture
def connect(postgresql: PostgreSQLServer) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(kind: type | None = None) -> Any:
        opened.append(psycopg2.connect(postgresql.url(), connection_factory=kind))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def told(action: Callable[[], Any]) -> Any:
    """Return what an action returns, or the kind of its error."""
    try:
        return action()
    except Exception as error:
        return type(error).__name__


def transactions(connection: Any, name: str | None = None) -> list[Any]:
    """Return what holds in a transaction, and in the one after it, and what is said of the connection meanwhile."""
    found: list[Any] = []
    for end in (connection.commit, connection.rollback):
        with connection.cursor(name) as cursor:
            cursor.execute(SHOWN)
            found += [cursor.fetchall(), connection.get_transaction_status()]
        end()
        found.append(connection.get_transaction_status())
    asked = (connection.isolation_level, connection.readonly, connection.deferrable, connection.autocommit)
    return [*found, asked]


def with_properties(level: Any, readonly: Any, deferrable: Any) -> Ask:
    def ask(connection: Any) -> None:
        connection.isolation_level, connection.readonly, connection.deferrable = level, readonly, deferrable

    return ask


@pytest.mark.parametrize("name", [None, "stream"])
@pytest.mark.parametrize("way", ["set_session", "properties"])
def test_what_a_transaction_is_begun_with(connect: Callable[..., Any], way: str, name: str | None) -> None:
    theirs, ours = connect(), connect(FastBeginConnection)
    for values in itertools.product(LEVELS, FLAGS, FLAGS):
        ask: Ask = with_properties(*values) if way == "properties" else lambda each, v=values: each.set_session(*v)
        found = [(told(lambda: ask(each)), transactions(each, name)) for each in (theirs, ours)]  # noqa: B023
        assert found[0] == found[1], values


@pytest.mark.parametrize(
    "ask",
    [
        *[lambda each, level=level: each.set_isolation_level(level) for level in (None, 0, 1, 2, 3, 4)],
        lambda each: each.set_session(autocommit=True),
        lambda each: each.set_session(isolation_level="repeatable read", autocommit=False),
        lambda each: setattr(each, "autocommit", True),
    ],
)
def test_autocommit_and_levels_of_the_old_form(connect: Callable[..., Any], ask: Ask) -> None:
    found = []
    for each in (connect(), connect(FastBeginConnection)):
        each.set_session(readonly=True)
        ask(each)
        found.append(transactions(each))
        with each.cursor() as cursor:
            cursor.execute("SELECT 1")
        each.set_isolation_level(extensions.ISOLATION_LEVEL_SERIALIZABLE)  # rolls back what has begun
        found[-1] += [each.get_transaction_status(), *transactions(each)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda each: setattr(each, "autocommit", True),
        lambda each: setattr(each, "isolation_level", 4),
        lambda each: setattr(each, "readonly", True),
        lambda each: setattr(each, "deferrable", True),
        lambda each: each.set_session(readonly=True),
    ],
)
@pytest.mark.parametrize("state", ["inside", "failed", "idle", "closed"])
def test_a_setting_inside_a_transaction_is_refused(connect: Callable[..., Any], ask: Ask, state: str) -> None:
    found = []
    for each in (connect(), connect(FastBeginConnection)):
        if state in ("inside", "failed"):
            told(lambda each=each: each.cursor().execute("SELECT 1" if state == "inside" else "SELECT 1/0"))
        if state == "closed":
            each.close()
        found.append(told(lambda each=each: ask(each)))
    if state == "closed":
        assert found[1] in (None, found[0])  # ours is told so by its next statement
    else:
        assert found[0] == found[1]


ROWS = "SELECT generate_series(1, 5)"


def used(connection: Any, steps: Sequence[str]) -> list[Any]:
    """Take steps with two cursors, one of them named; return what each gives."""
    plain, named = connection.cursor(), None
    found: list[Any] = []
    for step in steps:
        if step == "open":
            named = connection.cursor("n")
            action: Callable[[], Any] = lambda: named.execute(ROWS)  # noqa: B023, E731
        else:
            action = {
                "fetch": lambda: named.fetchone(),  # noqa: B023
                "close": lambda: named.close(),  # noqa: B023
                "select": lambda: (plain.execute("SELECT 1"), plain.fetchall()),
                "bytes": lambda: (plain.execute(b"SELECT '%'"), plain.fetchall()),
                "percent": lambda: (plain.execute("SELECT %s, '%%'", ("x",)), plain.fetchall()),
                "many": lambda: plain.executemany("SELECT %s", [(1,), (2,)]),
                "call": lambda: (plain.callproc("lower", ["A"]), plain.fetchall()),
                "fail": lambda: plain.execute("SELEC"),
                "commit": connection.commit,
                "rollback": connection.rollback,
            }[step]
        found.append((step, told(action), connection.get_transaction_status()))
    return found


@pytest.mark.parametrize(
    "steps",
    [
        "select commit select rollback",
        "bytes rollback percent commit many rollback call commit",
        "open fetch fetch commit select rollback",
        "open fetch rollback close select commit",
        "select open fetch close commit",
        "open fetch fail commit select rollback",
        "select open fetch fail fetch commit select rollback",
        "select fail select rollback select commit",
        "commit rollback select commit commit rollback",
        "open fetch close open fetch close commit",
        "select open fetch close rollback open fetch close commit",
    ],
)
def test_cursors_and_ends_of_transactions(connect: Callable[..., Any], steps: str) -> None:
    theirs, ours = (used(each, steps.split()) for each in (connect(), connect(FastBeginConnection)))
    assert theirs == ours


@pytest.mark.parametrize("between", ["", "select "])
def test_a_stream_of_a_transaction_of_ours_closes_in_silence_after_it(
    connect: Callable[..., Any], between: str
) -> None:
    """Where a CLOSE would be an error of the next transaction."""
    found = used(connect(FastBeginConnection), f"select open fetch rollback {between}close select commit".split())
    assert [each[1] for each in found[-3:]] == [None, (None, [(1,)]), None]


def test_a_stream_that_nobody_has_read_from_closes_too(connect: Callable[..., Any]) -> None:
    for connection in (connect(), connect(FastBeginConnection)):
        connection.cursor().execute("SELECT 1")
        stream = connection.cursor("n")
        stream.close()
        assert stream.closed
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.commit()


def test_the_limits_of_a_pooler_go_with_each_begin(connect: Callable[..., Any]) -> None:
    class Limited(FastBeginConnection):
        limits = "SET LOCAL statement_timeout = '7s'"

    connection = connect(Limited)
    for name in (None, "stream"):
        with connection.cursor(name) as cursor:
            cursor.execute("SELECT current_setting('statement_timeout')")
            assert cursor.fetchall() == [("7s",)]
        connection.commit()
        assert connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
    connection.tpc_begin(connection.xid(1, "two", "phases"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        assert cursor.fetchall() == [("7s",)]
    connection.tpc_rollback()
    connection.set_session(autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        assert cursor.fetchall() == [("0",)]


def test_a_percent_sign_in_a_limit_is_one(connect: Callable[..., Any]) -> None:
    class Limited(FastBeginConnection):
        limits = "SET LOCAL application_name = '9%s'"

    connection = connect(Limited)
    for given in (None, (), ("x",)):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT current_setting('application_name'), {'%s' if given else 0}", given)
            assert cursor.fetchone()[0] == "9%s"
        connection.rollback()


@pytest.mark.parametrize("way", ["of the connection", "of the cursor"])
def test_an_own_class_of_cursors_is_used_and_begins(connect: Callable[..., Any], way: str) -> None:
    connection = connect(FastBeginConnection)
    if way == "of the connection":
        connection.cursor_factory = DictCursor
    for name in (None, "stream"):
        with connection.cursor(
            name, **({} if way == "of the connection" else {"cursor_factory": DictCursor})
        ) as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetchone()["one"] == 1
            assert connection.get_transaction_status() == extensions.TRANSACTION_STATUS_INTRANS
        connection.rollback()


def test_a_class_that_has_both_is_made_where_neither_is_the_others() -> None:
    class Theirs(extensions.cursor):
        pass

    class Both(FastBeginCursor):
        pass

    assert with_factory(FastBeginCursor, None) is FastBeginCursor
    assert with_factory(FastBeginCursor, extensions.cursor) is FastBeginCursor
    assert with_factory(FastBeginCursor, Both) is Both
    made = with_factory(FastBeginCursor, Theirs)
    assert made.__mro__[:3] == (made, FastBeginCursor, Theirs)
    assert with_factory(FastBeginCursor, Theirs) is made
