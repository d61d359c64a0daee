"""What our connections of SQLite do with each statement, without an engine: turns, late transactions, foreign keys."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine.dialects.error_table import Fate
from dbconfig.engine.dialects.sqlite import (
    base,
    dropped_parents,
    errors,
    pragmas,
    pysqlite,
    rebuilt_tables,
    statement_timeout,
    statements,
)
from dbconfig.engine.dialects.sqlite.aiosqlite import DRIVER as AIOSQLITE
from dbconfig.engine.dialects.sqlite.aiosqlite_connection import Calls, connect
from dbconfig.engine.dialects.sqlite.connection import Connection, driver_of
from dbconfig.engine.dialects.sqlite.foreign_keys import suspend_foreign_keys
from dbconfig.engine.dialects.sqlite.statements import Kind
from dbconfig.engine.dialects.sqlite.transactions import begin_immediate
from dbconfig.engine.dialects.sqlite.write_queue import Waiter, WriteQueue
from dbconfig.settings.database import DatabaseSettings
from tests.engine.pool.support import eventually


class Seen(Connection):
    """Keeps what SQLite has executed."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.sent: list[str] = []
        self.set_trace_callback(self.sent.append)

    def took(self) -> list[str]:
        found, self.sent[:] = list(self.sent), []
        return found


@pytest.fixture
def queue() -> WriteQueue:
    return WriteQueue()


@pytest.fixture
def connections(tmp_path: Path, queue: WriteQueue) -> Iterator[tuple[Seen, Seen]]:
    """Two connections of one file, which queue for writing."""
    with closing(of_file(tmp_path, queue)) as one, closing(of_file(tmp_path, queue)) as other:
        one.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        one.took()
        yield one, other


def of_file(folder: Path, queue: WriteQueue | None) -> Seen:
    connection = sqlite3.connect(folder / "a.db", factory=Seen, isolation_level=None, timeout=0.0)
    connection.queue = queue
    return connection


@pytest.fixture
def memories(queue: WriteQueue) -> Iterator[tuple[Seen, Seen]]:
    """Two connections of one database in memory, whose transactions begin late."""

    def opened() -> Seen:
        connection = sqlite3.connect("file:/parts?vfs=memdb", uri=True, factory=Seen, isolation_level=None, timeout=0.0)
        connection.queue, connection.in_memory = queue, True
        return connection

    with closing(opened()) as one, closing(opened()) as other:
        one.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        one.took()
        yield one, other


# Turns


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN"])
def test_who_writes_has_the_turn_until_the_transaction_ends(
    connections: tuple[Seen, Seen], queue: WriteQueue, begin: str
) -> None:
    one, other = connections
    for end in (one.commit, one.rollback, lambda: one.execute("COMMIT")):
        one.execute(begin)
        assert (queue.holder() is not None) is (begin != "BEGIN")
        one.execute("SELECT * FROM parent")
        assert (queue.holder() is not None) is (begin != "BEGIN")
        one.execute("DELETE FROM parent")
        assert queue.holder() is not None
        with pytest.raises(sqlite3.OperationalError, match="this thread or task holds the write lock itself"):
            other.execute("INSERT INTO parent VALUES (1)")
        end()
        assert queue.holder() is None
        other.execute("DELETE FROM parent")
        assert queue.holder() is None  # it was alone in its transaction


def test_another_thread_is_told_who_holds_the_lock(connections: tuple[Seen, Seen]) -> None:
    one, _ = connections
    one.execute("BEGIN IMMEDIATE")
    found: list[Any] = []

    thread = threading.Thread(target=lambda: found.append(refused(one.queue)))
    thread.start()
    thread.join(30)
    (error,) = found
    assert (
        str(error) == "database is locked: another transaction in this process (thread MainThread) holds the write lock"
    )
    assert (error.sqlite_errorname, error.sqlite_errorcode) == ("SQLITE_BUSY", sqlite3.SQLITE_BUSY)


def refused(queue: WriteQueue | None) -> sqlite3.OperationalError:
    with closing(sqlite3.connect(":memory:", factory=Seen, isolation_level=None, timeout=0.0)) as connection:
        connection.queue = queue
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute("CREATE TABLE a (b)")
    return caught.value


def test_a_closed_connection_leaves_the_file_to_others_though_a_cursor_is_left(
    tmp_path: Path, queue: WriteQueue
) -> None:
    left = of_file(tmp_path, queue)
    left.execute("CREATE TABLE a (b)")
    left.execute("INSERT INTO a VALUES (1), (2)")
    left.execute("BEGIN IMMEDIATE")
    left.execute("DELETE FROM a")
    cursor = left.execute("SELECT 1 UNION SELECT 2")
    assert cursor.fetchone() == (1,)
    left.close()
    assert queue.holder() is None
    with closing(of_file(tmp_path, None)) as other:
        other.execute("INSERT INTO a VALUES (3)")
        assert other.execute("SELECT count(*) FROM a").fetchone() == (3,)
    del cursor


def test_a_connection_of_another_thread_says_so_when_it_is_closed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(of_file, tmp_path, None).result()
        with pytest.raises(sqlite3.ProgrammingError, match="created in a thread"):
            made.close()
        thread.submit(made.close).result()


@pytest.mark.parametrize("way", ["execute", "executemany", "executescript"])
def test_the_methods_of_the_connection_use_our_cursor(connections: tuple[Seen, Seen], way: str) -> None:
    one, _ = connections
    one.execute("BEGIN")
    if way == "execute":
        assert one.execute("SELECT 5").fetchone() == (5,)
        assert one.execute("INSERT INTO parent VALUES (1)").rowcount == 1
    elif way == "executemany":
        assert one.executemany("INSERT INTO parent VALUES (?)", [(1,), (2,)]).rowcount == 2
    else:
        assert one.executescript("INSERT INTO parent VALUES (1); SELECT 1") is not None
    assert one.execute("SELECT min(id) FROM parent").fetchone() == (1,)
    one.rollback()


# Late transactions


def test_a_transaction_in_memory_begins_with_the_first_statement_that_writes(memories: tuple[Seen, Seen]) -> None:
    one, _ = memories
    one.begin_late()
    one.execute("SELECT 1")
    assert one.took() == ["SELECT 1"]
    one.execute("SELECT * FROM parent")
    assert one.took() == ["PRAGMA data_version", "SELECT * FROM parent"]
    one.execute("SELECT * FROM parent")
    assert one.took() == ["SELECT * FROM parent"]
    one.execute("INSERT INTO parent VALUES (1)")
    assert one.took() == ["BEGIN IMMEDIATE", "PRAGMA data_version", "INSERT INTO parent VALUES (1)"]
    one.execute("INSERT INTO parent VALUES (2)")
    assert one.took() == ["INSERT INTO parent VALUES (2)"]
    one.rollback()
    one.took()
    one.execute("INSERT INTO parent VALUES (3)")  # none is due any more
    assert one.took() == ["INSERT INTO parent VALUES (3)"]


@pytest.mark.parametrize("begin", ["SAVEPOINT a", "COMMIT"])
def test_a_savepoint_and_an_end_begin_it_too(memories: tuple[Seen, Seen], begin: str) -> None:
    one, _ = memories
    one.begin_late()
    one.execute(begin)
    assert one.took()[0] == "BEGIN"
    one.rollback()


def test_what_has_changed_since_it_was_read_is_not_overwritten(memories: tuple[Seen, Seen]) -> None:
    one, other = memories
    one.begin_late()
    one.execute("SELECT * FROM parent")
    other.execute("INSERT INTO parent VALUES (1)")
    with pytest.raises(sqlite3.OperationalError, match="what this transaction has read has changed since") as caught:
        one.execute("INSERT INTO parent VALUES (2)")
    assert (caught.value.sqlite_errorname, caught.value.sqlite_errorcode) == ("SQLITE_BUSY_SNAPSHOT", 517)
    assert not one.in_transaction
    one.begin_late()
    other.execute("INSERT INTO parent VALUES (3)")
    one.execute("INSERT INTO parent VALUES (2)")  # it has read nothing
    one.commit()
    assert one.execute("SELECT count(*) FROM parent").fetchone() == (3,)


def test_an_explicit_begin_replaces_the_late_one(memories: tuple[Seen, Seen]) -> None:
    one, _ = memories
    for begin in ("BEGIN", "BEGIN IMMEDIATE"):
        one.begin_late()
        one.took()
        one.execute(begin)
        one.execute("INSERT INTO parent VALUES (7)")
        assert one.took() == [begin, "INSERT INTO parent VALUES (7)"]
        one.rollback()


def test_the_turn_is_remembered_for_who_runs_on(memories: tuple[Seen, Seen]) -> None:
    one, other = memories
    one.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join(30)
    other.look_for_own_turn()
    assert other._own is not None
    assert other._own() is one._turn
    one.look_for_own_turn()
    assert one._own is None  # it has the turn
    turn = one._turn
    assert turn is not None
    turn._owner = (0, 0)  # as if another thread had begun
    assert not turn.is_ours()
    one.remember_turn()
    assert turn.is_ours()
    other.remember_turn()  # which has none
    one.rollback()
    other.look_for_own_turn()
    assert other._own is None


# Foreign keys


def test_foreign_keys_are_switched_between_two_transactions(connections: tuple[Seen, Seen]) -> None:
    one, _ = connections
    one.execute("BEGIN")
    one.execute("PRAGMA foreign_keys = ON")
    assert one.switched
    assert one.took() == ["BEGIN", "PRAGMA data_version", "ROLLBACK", "PRAGMA foreign_keys = ON", "BEGIN"]
    assert one.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert one.in_transaction
    one.rollback()
    one.took()
    one.execute("PRAGMA foreign_keys = OFF")
    assert one.took() == ["PRAGMA foreign_keys = OFF"]


@pytest.mark.parametrize("before", ["INSERT INTO parent VALUES (1)", "SAVEPOINT a"])
def test_foreign_keys_cannot_be_switched_where_that_would_lose_something(
    connections: tuple[Seen, Seen], before: str
) -> None:
    one, _ = connections
    one.execute("BEGIN")
    one.execute(before)
    with pytest.raises(sqlite3.OperationalError, match="has no effect in a transaction that has written"):
        one.execute("PRAGMA foreign_keys = ON")
    assert one.in_transaction
    one.rollback()
    one.execute("BEGIN")
    one.execute("PRAGMA foreign_keys = ON")  # of the earlier transaction nothing is left


def test_what_was_read_before_the_switch_must_not_have_changed(connections: tuple[Seen, Seen]) -> None:
    one, other = connections
    one.execute("BEGIN")
    one.execute("SELECT * FROM parent").fetchall()
    run_between = one._run

    def meanwhile(statement: str) -> None:
        run_between(statement)
        if statement == "ROLLBACK" and not other.in_transaction:
            other.execute("INSERT INTO parent DEFAULT VALUES")

    one._run = meanwhile  # type: ignore[method-assign]  # another connection writes between the two
    with pytest.raises(sqlite3.OperationalError, match="what this transaction has read has changed since"):
        one.execute("PRAGMA foreign_keys = ON")
    one.execute("BEGIN")  # one that has read nothing
    one.execute("PRAGMA foreign_keys = OFF")
    assert one.in_transaction
    one.rollback()


def test_foreign_keys_rest_while_a_copy_replaces_a_table(connections: tuple[Seen, Seen]) -> None:
    one, _ = connections
    one.execute("PRAGMA foreign_keys = ON")
    one.execute("CREATE TABLE child (id INTEGER REFERENCES parent)")
    one.execute("INSERT INTO parent VALUES (1)")
    one.execute("INSERT INTO child VALUES (1)")
    one.isolation_level = ""  # as SQLAlchemy leaves it, except in AUTOCOMMIT
    one.execute("BEGIN")
    one.execute("CREATE TABLE _alembic_tmp_parent (id INTEGER PRIMARY KEY)")
    assert one.suspended
    assert one.rebuilt == {}
    assert one.execute("PRAGMA foreign_keys").fetchone() == (0,)
    one.execute("INSERT INTO _alembic_tmp_parent SELECT * FROM parent")
    one.execute("DROP TABLE parent")
    one.execute("ALTER TABLE _alembic_tmp_parent RENAME TO parent")
    one.commit()
    assert not one.suspended
    assert one.rebuilt is None
    assert one.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert one.execute("SELECT * FROM child").fetchall() == [(1,)]
    with pytest.raises(sqlite3.IntegrityError, match="DROP TABLE parent would delete or change rows of child"):
        one.execute("DROP TABLE parent")
    one.execute("BEGIN")
    one.execute("INSERT INTO parent VALUES (2)")
    one.execute("CREATE TABLE _alembic_tmp_other (id INTEGER)")
    assert not one.suspended  # it has written
    one.rollback()


# Statements


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1", Kind.READ),
        ("select 1", Kind.READ),
        ("/* a */ SELECT 1", Kind.READ),
        ("VALUES (1)", Kind.READ),
        ("nonsense", Kind.WRITE),
        ("", Kind.WRITE),
        ("PRAGMA query_only = OFF", Kind.QUERY_ONLY),
        ("PRAGMA query_only = 0", Kind.QUERY_ONLY),
        ("PRAGMA query_only = ON", Kind.READ),
        ("PRAGMA foreign_keys = ON", Kind.FOREIGN_KEYS),
        ("pragma foreign_keys=off", Kind.FOREIGN_KEYS),
        ("/* a */ PRAGMA main.[foreign_keys] (0)", Kind.FOREIGN_KEYS),
        ("PRAGMA foreign_keys", Kind.READ),
        ("pragma foreign_keys", Kind.READ),
        ("begin immediate", Kind.BEGIN_WRITING),
        ("BEGIN EXCLUSIVE", Kind.BEGIN_WRITING),
        ("BEGIN DEFERRED", Kind.BEGIN),
        ("END", Kind.END),
        ("SAVEPOINT a", Kind.SAVEPOINT),
        ("DROP TABLE a", Kind.DROP),
        ("DROP INDEX a", Kind.WRITE),
        ("CREATE TABLE _alembic_tmp_a (b)", Kind.COPY),
        ("ALTER TABLE _alembic_tmp_a RENAME TO a", Kind.REPLACE),
        ("CREATE TABLE a (b)", Kind.WRITE),
        ("WITH a AS (SELECT 1) SELECT * FROM a", Kind.READ),
        ("WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a", Kind.WRITE),
    ],
)
def test_what_a_statement_does(statement: str, kind: Kind) -> None:
    assert statements.kind_of(statement) is kind


def test_names_of_dropped_tables_are_unquoted() -> None:
    script = """DROP TABLE a; drop table if exists [b c]; DROP TABLE "d""e"; DROP TABLE main.`f`; DROP TABLE 'g'.h"""
    assert list(statements.dropped_tables(script)) == [
        (None, "a"),
        (None, "b c"),
        (None, 'd"e'),
        ("main", "f"),
        ("g", "h"),
    ]


# Settings


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///a.db", ""),
        ("sqlite://", "dbconfig-"),
        ("sqlite:///:memory:", "dbconfig-"),
        ("sqlite:///file::memory:?uri=true", "dbconfig-"),
        ("sqlite:///file:a?mode=memory&uri=true", "dbconfig-"),
        ("sqlite:///file:a?mode=memory&cache=shared&uri=true", "a"),
        ("sqlite:///file:/b?vfs=memdb&uri=true", "b"),
        ("sqlite:///file:a.db?mode=ro&uri=true", ""),
    ],
)
def test_which_databases_are_in_memory(url: str, name: str) -> None:
    found = base._memory_name(DatabaseSettings(url=url))
    assert found.startswith(name) if name == "dbconfig-" else found == name


def test_the_applications_own_class_must_be_a_connection() -> None:
    class Own(sqlite3.Connection):
        pass

    def of(factory: Any) -> Any:
        given = {} if factory is None else {"factory": factory}
        return base._own_class(DatabaseSettings(url="sqlite://", connect_args=given), given)

    assert of(None) is None
    assert of(Own) is Own
    for wrong in (dict, sqlite3.connect):
        with pytest.raises(ConfigError, match="must be a class derived from"):
            of(wrong)


@pytest.mark.parametrize(
    "way", [(), ("_conn",), ("dbapi_connection",), ("driver_connection", "_conn"), ("dbapi_connection", "_conn")]
)
def test_the_drivers_connection_is_found_in_whatever_is_around_it(way: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        outer: Any = connection
        for name in reversed(way):
            outer = SimpleNamespace(**{name: outer})
        assert driver_of(outer) is connection
    unknown = SimpleNamespace(dbapi_connection=None)
    assert driver_of(SimpleNamespace(driver_connection=unknown)) is unknown


def test_a_migration_may_drop_a_table_that_its_copy_replaces_and_no_other_that_rows_refer_to() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent(id));"
            "CREATE TABLE alone (n INTEGER); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);"
        )
        before: dict[str, Any] = {}
        with pytest.raises(sqlite3.IntegrityError):
            rebuilt_tables.drop(connection, "DROP TABLE parent", frozenset(), before)
        rebuilt_tables.drop(connection, "DROP TABLE alone", frozenset(), before)
        rebuilt_tables.drop(connection, "DROP TABLE parent", frozenset({"child"}), before)  # which goes with it
        assert before == {}
        connection.execute(f"CREATE TABLE {statements.COPY}Parent (id INTEGER PRIMARY KEY)")
        rebuilt_tables.drop(connection, "DROP TABLE Parent", frozenset(), before)
        assert before == {"parent": {}}
        rebuilt_tables.check(connection, before)
        connection.execute("DELETE FROM parent")
        with pytest.raises(
            sqlite3.IntegrityError, match="after the batch migration of parent, 1 rows of child refer to"
        ):
            rebuilt_tables.check(connection, before)
        before.clear()
        rebuilt_tables.drop(connection, "DROP TABLE parent", frozenset(), before)
        assert before == {"parent": {("child", "parent"): 1}}
        rebuilt_tables.check(connection, before)  # it was so before


@pytest.mark.parametrize(
    ("value", "literal"), [("WAL", "'WAL'"), ("it's", "'it''s'"), (True, "ON"), (False, "OFF"), (5, "5")]
)
def test_the_value_of_a_pragma_is_quoted(value: object, literal: str) -> None:
    assert pragmas._literal(value) == literal


@pytest.mark.parametrize(
    ("answers", "asked", "error"),
    [
        (["wal"], 1, None),
        (["delete", "wal"], 2, None),
        (["delete", "database is locked", "database is locked", "wal"], 4, None),
        (["delete", "attempt to write a readonly database"], 2, None),
        (["delete", "disk I/O error"], 2, "disk I/O error"),
        (["delete", *["database is locked"] * 9], 6, "database is locked"),  # for as long as a writer waits
    ],
)
def test_a_change_of_the_journal_waits_for_another_process_that_makes_it(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], asked: int, error: str | None
) -> None:
    told: list[str] = []
    now = [100.0]

    def run(connection: Any, statement: str) -> tuple[str]:
        told.append(statement)
        answer = answers[len(told) - 1]
        if " " in answer:
            raise sqlite3.OperationalError(answer)
        return (answer,)

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= 0.1
        now[0] += pragmas.BUSY_TIMEOUT / 4

    monkeypatch.setattr(pragmas, "run", run)
    monkeypatch.setattr(pragmas, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with nullcontext() if error is None else pytest.raises(sqlite3.OperationalError, match=error):
        pragmas._set_journal_mode(None, "WAL")
    assert told == ["PRAGMA journal_mode", *["PRAGMA journal_mode = 'WAL'"] * (asked - 1)]


@pytest.mark.parametrize(
    ("name", "fate"),
    [("SQLITE_BUSY_SNAPSHOT", Fate.CONFLICT), ("SQLITE_BUSY", Fate.CONFLICT), ("SQLITE_CONSTRAINT_UNIQUE", None)],
)
def test_an_error_of_sqlite_is_known_by_its_primary_code(name: str, fate: Fate | None) -> None:
    found = sqlite3.OperationalError("words that no table has")
    found.sqlite_errorname = name
    row = errors.meaning(found)
    assert (row and row.fate) is fate


# A limit


def test_a_limit_is_set_on_a_connection_of_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(pysqlite.deadline, "run_until", lambda connection, when: told.append((connection, when)))
    with (
        closing(sqlite3.connect(":memory:")) as plain,
        closing(sqlite3.connect(":memory:", factory=Connection)) as ours,
    ):
        for connection, when in ((plain, None), (plain, 5.0), (ours, None)):
            pysqlite.DRIVER.run_until(connection, when)
        assert told == []
        pysqlite.DRIVER.run_until(ours, 5.0)
        ours.until = 5.0
        pysqlite.DRIVER.run_until(ours, None)
        assert told == [(ours, 5.0), (ours, None)]


@pytest.mark.parametrize(("now", "late"), [(4.9, False), (5.0, False), (5.1, True)])
def test_a_statement_is_late_after_its_limit(now: float, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_timeout, "time", SimpleNamespace(monotonic=lambda: now))
    with closing(sqlite3.connect(":memory:", factory=statement_timeout.TimedConnection)) as connection:
        connection.deadline = 5.0
        assert connection.is_late() is late
        connection.rollback()
        assert not connection.is_late()


# aiosqlite


def test_a_limit_is_set_in_the_thread_of_a_connection_of_ours_alone() -> None:
    told: list[Any] = []

    def wrapped(connection: sqlite3.Connection) -> Any:
        def execute(function: Any, *arguments: Any) -> str:
            told.append(arguments)
            return "done"

        return SimpleNamespace(_conn=connection, _execute=execute)

    with (
        closing(sqlite3.connect(":memory:")) as plain,
        closing(sqlite3.connect(":memory:", factory=Connection)) as ours,
    ):
        for when in (None, 5.0):
            assert AIOSQLITE.run_until(wrapped(plain), when) is None
        assert AIOSQLITE.run_until(wrapped(ours), None) is None
        assert told == []
        assert AIOSQLITE.run_until(wrapped(ours), 5.0) == "done"
        ours.until = 5.0
        assert AIOSQLITE.run_until(wrapped(ours), None) == "done"
        assert told == [(ours, 5.0), (ours, None)]


@pytest.mark.parametrize("own", [None, "theirs"])
def test_a_connection_of_aiosqlite_is_opened_by_ours_unless_the_application_does_it(own: str | None) -> None:
    kept: list[Any] = []
    parameters: Any = SimpleNamespace(written=lambda key: own, set=lambda *pair: kept.append(pair))
    AIOSQLITE.limit_connect(None, None, parameters, 1.0)
    assert kept == ([("async_creator_fn", connect)] if own is None else [])


def test_a_call_after_the_end_fails_for_who_waits() -> None:
    async def main() -> None:
        calls, done = Calls(), []
        waited: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        calls.put_nowait((None, lambda: done.append(1)))
        calls.end()
        calls.end()
        calls.put_nowait((None, lambda: done.append(2)))  # nobody waits
        calls.put_nowait((waited, lambda: done.append(3)))
        with pytest.raises(ValueError, match="Connection closed"):
            await asyncio.wait_for(waited, 30)
        calls.run()
        assert done == [1]

    asyncio.run(main())


def test_a_connection_of_aiosqlite_is_opened_and_closed() -> None:
    async def main() -> None:
        connection = connect(":memory:")
        async with connection as opened:
            rows = await (await opened.execute("SELECT 5")).fetchall()
            assert list(rows) == [(5,)]
        await connection.close()  # no second time

    asyncio.run(main())


def test_only_an_interrupt_is_one() -> None:
    interrupted, other = sqlite3.OperationalError("interrupted"), sqlite3.OperationalError("interrupted")
    interrupted.sqlite_errorname, other.sqlite_errorname = "SQLITE_INTERRUPT", "SQLITE_BUSY"
    assert AIOSQLITE.was_cancelled(interrupted) is True
    assert AIOSQLITE.was_cancelled(other) is AIOSQLITE.was_cancelled(ValueError()) is False


# What an engine gives them


def registry(url: str) -> Registry:
    return Registry.from_profile(Profile(name="parts", url=url))


def test_the_connections_of_an_engine_share_their_queue_and_enforce_foreign_keys(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with registry("sqlite://") as memory, registry(f"sqlite:///{file}") as of_file:
        for db, in_memory in ((memory, True), (of_file, False)):
            with db.engine().connect() as one, db.engine().connect() as other:
                assert one.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
                first, second = (driver_of(each.connection) for each in (one, other))
                assert first.queue is second.queue is not None
                assert first.in_memory is second.in_memory is in_memory
                found = None if in_memory else file.stat()
                assert first.file == (found and (found.st_dev, found.st_ino))


@pytest.mark.parametrize(("reset", "stays"), [("rollback", True), ("discard", False)])
def test_a_session_is_discarded_with_its_connection(
    tmp_path: Path, reset: str, stays: bool, caplog: pytest.LogCaptureFixture
) -> None:
    profile = Profile(name="parts", url=f"sqlite:///{tmp_path}/a.db", pool_reset=reset)
    with Registry.from_profile(profile) as db:
        found = []
        for _ in range(2):
            with db.engine().connect() as connection:
                found.append(driver_of(connection.connection))
        assert (found[0] is found[1]) is stays
    assert not [record for record in caplog.records if record.levelname == "ERROR"]  # as of a reset that fails


def test_foreign_keys_are_suspended_unless_the_transaction_has_written() -> None:
    with registry("sqlite://") as db, db.engine().connect() as connection:
        assert suspend_foreign_keys(connection)
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql("CREATE TABLE a (b)")
        assert not suspend_foreign_keys(connection)
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_transaction_takes_the_write_lock_where_it_is_asked_for() -> None:
    with registry("sqlite://") as db, db.engine().connect() as connection:
        ours = driver_of(connection.connection)
        connection.begin()
        assert ours.queue.holder() is None
        begin_immediate(connection)
        assert ours.in_transaction
        assert ours.queue.holder() is ours._turn is not None
        begin_immediate(connection)  # it has begun already
        connection.rollback()
        assert ours.queue.holder() is None


# The queue


def test_a_writer_gets_the_turn_that_another_gives_back(queue: WriteQueue) -> None:
    turn, got = queue.try_enter(), []
    assert turn is not None
    waiter = Waiter()
    thread = threading.Thread(target=lambda: got.append(queue.enter(waiter, 30.0)))
    thread.start()
    assert eventually(lambda: waiter in queue._waiters)
    assert queue.try_enter() is None
    turn.release()
    thread.join(30)
    assert got == [queue.holder()] != [None]
    assert not queue._waiters


def test_nothing_may_make_a_reading_connection_write() -> None:
    class Reading(Connection):
        def refuse_writing(self) -> None:
            raise sqlite3.OperationalError("it only reads")

    with closing(sqlite3.connect(":memory:", factory=Reading)) as connection:
        connection.execute("PRAGMA query_only = ON")
        for way in (connection.execute, connection.executescript):
            with pytest.raises(sqlite3.OperationalError, match="it only reads"):
                way("PRAGMA query_only = OFF")


def test_a_table_may_be_dropped_where_foreign_keys_are_off(connections: tuple[Seen, Seen]) -> None:
    one, _ = connections
    one.execute("CREATE TABLE child (id INTEGER REFERENCES parent)")
    one.execute("INSERT INTO child VALUES (1)")
    one.execute("INSERT INTO parent VALUES (1)")
    one.execute("DROP TABLE parent")
    assert one.execute("SELECT * FROM child").fetchall() == [(1,)]


FAMILY = (
    "CREATE TABLE {0}.parent (id INTEGER PRIMARY KEY); CREATE TABLE {0}.child (p REFERENCES parent);"
    "INSERT INTO {0}.parent VALUES (1); INSERT INTO {0}.child VALUES (1);"
)


def test_a_bare_name_is_the_temporary_table_then_that_of_the_main_database() -> None:
    """As SQLite finds what it drops: what the others are, and who refers to them, makes no difference."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript("PRAGMA foreign_keys = ON; ATTACH ':memory:' AS other;" + FAMILY.format("main"))
        with pytest.raises(sqlite3.IntegrityError, match="DROP TABLE parent would delete or change rows of child"):
            dropped_parents.refuse_to_drop(connection, ["parent"])
        connection.execute("CREATE TEMPORARY TABLE parent (id INTEGER)")
        dropped_parents.refuse_to_drop(connection, ["parent"])
        connection.execute("DROP TABLE parent")
        assert connection.execute("SELECT id FROM main.parent").fetchall() == [(1,)]

        connection.executescript("DELETE FROM main.child;" + FAMILY.format("other"))
        dropped_parents.refuse_to_drop(connection, ["parent"])
        connection.execute("DROP TABLE parent")
        with pytest.raises(sqlite3.IntegrityError, match="DROP TABLE parent would delete or change rows of child"):
            dropped_parents.refuse_to_drop(connection, ["parent"])
