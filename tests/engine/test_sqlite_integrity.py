"""SQLite, by threads and by tasks: rows that nobody named stay, writers queue, a replaced file is noticed."""

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Column, Connection, ForeignKey, Integer, MetaData, Table, event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.util import await_only
from sqlmodel import Session

from dbconfig import ConfigError, Registry
from dbconfig.engine.dialects.sqlite.connection import Connection as LiteConnection
from dbconfig.engine.dialects.sqlite.connection import Cursor as LiteCursor
from dbconfig.engine.dialects.sqlite.write_queue import WriteQueue
from tests.registries import registry
from tests.support.clock import Clock

T = TypeVar("T")
ACTIONS = ["CASCADE", "SET NULL", "NO ACTION", "RESTRICT"]


class Lite:
    """A database whose work is done by a connection or a session of either kind of engine."""

    def __init__(self, db: Registry, kind: str) -> None:
        self.db, self.asynchronous = db, kind == "async"
        self._runner: asyncio.Runner | None = None

    def run(self, work: Any) -> Any:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    def connection(self, work: Callable[[Connection], T]) -> T:
        if not self.asynchronous:
            with self.db.engine().connect() as connection:
                return work(connection)

        async def run() -> T:
            async with self.db.async_engine().connect() as connection:
                return await connection.run_sync(work)

        return self.run(run())  # type: ignore[no-any-return]

    def transaction(self, work: Callable[[Session], T]) -> T:
        if not self.asynchronous:
            with self.db.transaction() as session:
                return work(session)

        async def run() -> T:
            async with self.db.async_transaction() as session:
                return await session.run_sync(work)

        return self.run(run())  # type: ignore[no-any-return]

    def script(self, *statements: str) -> None:
        self.transaction(lambda session: [session.execute(text(each)) for each in statements])

    def ask(self, statement: str) -> Any:
        return self.connection(lambda connection: connection.exec_driver_sql(statement).scalar())

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self.db.async_dispose())
            self._runner.close()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "async":
        pytest.importorskip("aiosqlite")
    return str(request.param)


@pytest.fixture
def open_lite(kind: str) -> Iterator[Callable[..., Lite]]:
    with ExitStack() as stack:

        def make(url: str, **settings: Any) -> Lite:
            made = Lite(stack.enter_context(registry(url, **settings)), kind)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(params=["memory", "file"])
def lite(request: pytest.FixtureRequest, tmp_path: Path, open_lite: Callable[..., Lite]) -> Lite:
    return open_lite("sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/lite.db")


@pytest.fixture
def file(tmp_path: Path, open_lite: Callable[..., Lite]) -> Lite:
    return open_lite(f"sqlite:///{tmp_path}/lite.db", lock_timeout="30s")


# Foreign keys


def family(action: str) -> tuple[Table, Table]:
    metadata = MetaData()
    team = Table("team", metadata, Column("id", Integer, primary_key=True))
    key = ForeignKey("team.id", ondelete=action)
    return team, Table("hero", metadata, Column("id", Integer, primary_key=True), Column("team_id", Integer, key))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("way", ["drop_tables", "sql", "quoted", "script", "drop_all"])
def test_a_table_is_not_dropped_while_rows_of_another_one_refer_to_it(lite: Lite, action: str, way: str) -> None:
    team, _ = family(action)
    lite.connection(lambda connection: (team.metadata.create_all(connection), connection.commit()))
    lite.script("INSERT INTO team VALUES (1)", "INSERT INTO hero VALUES (1, 1)")

    def drop(connection: Connection) -> None:
        if way == "drop_all":
            team.metadata.drop_all(connection, tables=[team])
        elif way == "script":
            connection.connection.dbapi_connection.executescript("SELECT 1; DROP TABLE IF EXISTS team;")  # type: ignore[union-attr]
        else:
            connection.exec_driver_sql("DROP TABLE team" if way == "sql" else 'drop /* it */\ntable main . "Team"')
        connection.commit()

    if way == "script" and lite.asynchronous:
        pytest.skip("SQLAlchemy's adapter has no executescript")
    with pytest.raises((IntegrityError, sqlite3.IntegrityError), match="rows of hero"):
        lite.db.drop_tables(team) if way == "drop_tables" else lite.connection(drop)
    assert lite.ask("SELECT count(*) FROM team JOIN hero ON hero.team_id = team.id") == 1


@pytest.mark.parametrize("way", ["drop_tables", "drop_all", "drop_all after a write"])
@pytest.mark.parametrize("action", ACTIONS)
def test_tables_that_refer_to_each_other_are_dropped_together(lite: Lite, action: str, way: str) -> None:
    metadata = MetaData()
    for table, other in (("team", "hero"), ("hero", "team")):
        key = ForeignKey(f"{other}.id", ondelete=action)
        Table(table, metadata, Column("id", Integer, primary_key=True), Column(f"{other}_id", Integer, key))
    key = ForeignKey("hero.id", ondelete=action)
    Table("power", metadata, Column("id", Integer, primary_key=True), Column("hero_id", Integer, key))
    lite.db.create_tables(*metadata.tables.values())
    lite.script(
        "INSERT INTO team VALUES (1, NULL)",
        "INSERT INTO hero VALUES (1, 1)",
        "UPDATE team SET hero_id = 1",
        "INSERT INTO power VALUES (1, 1)",
    )
    circle = [metadata.tables["team"], metadata.tables["hero"]]

    def drop(tables: list[Table]) -> None:
        if way == "drop_tables":
            lite.db.drop_tables(*tables)
            return

        def drop_all(connection: Connection) -> None:
            if way != "drop_all":
                connection.exec_driver_sql("INSERT INTO team VALUES (2, 1)")
            metadata.drop_all(connection, tables=tables)
            connection.commit()

        with pytest.warns(match="Can't sort tables for DROP"):  # SQLAlchemy's, as on any engine
            lite.connection(drop_all)

    with pytest.raises(IntegrityError, match="rows of power"):
        drop(circle)
    assert lite.ask("SELECT count(*) FROM team, hero, power") == 1
    drop([*circle, metadata.tables["power"]])
    assert lite.ask("SELECT count(*) FROM sqlite_master") == 0
    assert lite.ask("PRAGMA foreign_keys") == 1


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        *[("", True), ("mode=ro&", False)],
        *[(f"immutable={on}&", False) for on in ("1", "YES", "2")],
        *[(f"immutable={off}&", True) for off in ("0", "off", "maybe", "256", "00")],
    ],
)
def test_a_file_that_cannot_be_written_is_not_asked_to_keep_a_log(
    tmp_path: Path, open_lite: Callable[..., Lite], query: str, asked: bool
) -> None:
    statements: list[str] = []

    class Traced(sqlite3.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.set_trace_callback(statements.append)

    with closing(sqlite3.connect(tmp_path / "lite.db")) as plain:
        plain.execute("CREATE TABLE t (x INT)")
    lite = open_lite(f"sqlite:///file:{tmp_path}/lite.db?{query}uri=true", connect_args={"factory": Traced})
    assert lite.ask("SELECT count(*) FROM t") == 0
    assert any("PRAGMA foreign_keys" in each for each in statements)
    for name in ("journal_mode", "synchronous"):
        assert any(name in each for each in statements) is asked


def test_a_table_whose_rows_nobody_refers_to_is_dropped(lite: Lite) -> None:
    lite.script(
        "CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE)",
        "CREATE TABLE hero (team_name TEXT REFERENCES team (name) ON DELETE CASCADE)",
        "INSERT INTO team VALUES (1, 'A')",
        "INSERT INTO hero VALUES (NULL), ('a')",
    )
    with pytest.raises(IntegrityError, match="rows of hero"):  # by the parent's collation
        lite.script("DROP TABLE team")
    lite.script("UPDATE hero SET team_name = NULL")
    lite.script("DROP TABLE team")
    assert lite.ask("SELECT count(*) FROM hero") == 2


def test_foreign_keys_are_switched_off_in_a_session_and_on_again_for_the_next_one(lite: Lite) -> None:
    lite.script("CREATE TABLE team (id INTEGER PRIMARY KEY)", "CREATE TABLE hero (t INT REFERENCES team (id))")

    def load(session: Session) -> None:
        session.execute(text("PRAGMA foreign_keys = OFF"))
        session.execute(text("INSERT INTO hero VALUES (99)"))

    lite.transaction(load)
    assert lite.ask("SELECT t FROM hero") == 99
    assert lite.ask("PRAGMA foreign_keys") == 1
    with pytest.raises(IntegrityError):
        lite.script("INSERT INTO hero VALUES (98)")


def test_foreign_keys_that_a_script_switched_off_are_on_for_the_next_session(lite: Lite) -> None:
    def run(connection: Connection) -> None:
        ran = connection.connection.driver_connection.executescript("SELECT 1; PRAGMA foreign_keys = OFF")  # type: ignore[union-attr]
        if lite.asynchronous:
            await_only(ran)
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0

    lite.connection(run)
    assert lite.ask("PRAGMA foreign_keys") == 1


def test_foreign_keys_that_were_switched_once_cost_the_later_sessions_no_statement(
    lite: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    execute = LiteCursor.execute

    def recorded(cursor: LiteCursor, sql: str, *parameters: Any) -> LiteCursor:
        sent.append(sql)
        return execute(cursor, sql, *parameters)

    monkeypatch.setattr(LiteCursor, "execute", recorded)
    lite.script("PRAGMA foreign_keys = OFF")
    sent.clear()
    for _ in range(4):
        assert lite.ask("PRAGMA foreign_keys") == 1
    assert [each for each in sent if "=" in each] == ["PRAGMA foreign_keys = ON"]  # for the first of them


def test_foreign_keys_that_can_no_longer_be_switched_off_say_so(lite: Lite) -> None:
    lite.script("CREATE TABLE team (id INTEGER PRIMARY KEY)")
    with pytest.raises(OperationalError, match="no effect in a transaction that has written"):
        lite.script("INSERT INTO team VALUES (1)", "PRAGMA foreign_keys = OFF")
    assert lite.ask("SELECT count(*) FROM team") == 0


def test_an_own_class_of_connections_keeps_what_ours_does(tmp_path: Path, open_lite: Callable[..., Lite]) -> None:
    class Counting(sqlite3.Connection):
        opened = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            Counting.opened += 1

    lite = open_lite(
        f"sqlite:///{tmp_path}/lite.db",
        connect_args={"factory": Counting},
        statement_timeout="50ms",
        poolclass="NullPool",
    )
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(OperationalError, match="interrupted"):
        lite.ask(endless)
    assert Counting.opened == 1
    refused = registry(f"sqlite:///{tmp_path}/lite.db", connect_args={"factory": lambda *_, **__: None})
    with refused, pytest.raises(ConfigError, match="must be a class derived"):
        refused.engine()


@pytest.mark.parametrize("settings", [{}, {"statement_timeout": "60s"}], ids=["without a limit", "with a limit"])
def test_what_is_rolled_back_is_gone_and_the_file_is_free_for_others(
    tmp_path: Path, open_lite: Callable[..., Lite], settings: dict[str, Any]
) -> None:
    lite = open_lite(f"sqlite:///{tmp_path}/lite.db", **settings)
    lite.script("CREATE TABLE t (x INT)")

    def fail(session: Session) -> None:
        session.execute(text("INSERT INTO t VALUES (1)"))
        raise LookupError("of the work")

    with pytest.raises(LookupError):
        lite.transaction(fail)
    with closing(sqlite3.connect(tmp_path / "lite.db", timeout=0)) as other, other:
        other.execute("INSERT INTO t VALUES (2)")
    lite.script("INSERT INTO t VALUES (3)")
    assert lite.ask("SELECT group_concat(x) FROM t") == "2,3"


# The file


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_nothing_is_written_into_a_file_that_was_deleted_or_replaced(
    file: Lite, tmp_path: Path, how: str, clock: Clock
) -> None:
    file.script("CREATE TABLE t (x INT)", "INSERT INTO t VALUES (1)")
    with closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        backup.execute("CREATE TABLE t (x INT)")
    for part in tmp_path.glob("lite.db*"):
        part.unlink()
    clock.advance(0.5)  # a connection that was used this moment is not compared again
    if how == "replaced":
        shutil.move(tmp_path / "backup.db", tmp_path / "lite.db")
        file.script("INSERT INTO t VALUES (2)")
        with closing(sqlite3.connect(tmp_path / "lite.db")) as other:
            assert other.execute("SELECT x FROM t").fetchall() == [(2,)]
    else:
        with pytest.raises(OperationalError, match="no such table"):
            file.script("INSERT INTO t VALUES (2)")


def test_a_file_that_is_replaced_during_a_transaction_is_told_before_the_commit(file: Lite, tmp_path: Path) -> None:
    file.script("CREATE TABLE t (x INT)")

    def write(session: Session) -> None:
        session.execute(text("INSERT INTO t VALUES (1)"))
        os.rename(tmp_path / "lite.db", tmp_path / "aside.db")

    with pytest.raises(OperationalError, match="was deleted or replaced during this transaction"):
        file.transaction(write)


# The write lock


def test_who_holds_the_write_lock_and_asks_for_it_again_is_told_at_once(file: Lite) -> None:
    file.script("CREATE TABLE t (x INT)")
    insert = text("INSERT INTO t VALUES (1)")
    if file.asynchronous:

        async def nest_tasks() -> None:
            async with file.db.async_transaction() as outer:
                await outer.exec(insert)
                async with file.db.async_transaction() as inner:
                    await inner.exec(insert)

        with pytest.raises(OperationalError, match="holds the write lock itself"):
            file.run(nest_tasks())
    else:

        def nest(begin: Callable[[], Any]) -> None:
            with file.db.transaction() as outer, begin() as inner:
                outer.execute(insert)
                inner.execute(insert)

        for begin in (file.db.transaction, file.db.session):
            with pytest.raises(OperationalError, match="this thread or task"):
                nest(begin)
    assert file.ask("SELECT count(*) FROM t") == 0
    file.script("INSERT INTO t VALUES (2)")  # the lock is free again


def test_a_thread_that_serves_somebody_else_may_wait_for_a_transaction_that_it_began(tmp_path: Path) -> None:
    """As a framework's thread pool does, in a context for each request: the lock is not the thread's."""
    from contextvars import copy_context

    with registry(f"sqlite:///{tmp_path}/lite.db", lock_timeout="30s") as db:
        with db.transaction() as session:
            session.execute(text("CREATE TABLE t (x INT)"))
        first = db.transaction()
        copy_context().run(lambda: first.__enter__().execute(text("INSERT INTO t VALUES (1)")))
        other = threading.Timer(0.2, lambda: copy_context().run(first.__exit__, None, None, None))
        other.start()

        def second() -> None:
            with db.transaction() as session:
                session.execute(text("INSERT INTO t VALUES (2)"))

        copy_context().run(second)
        other.join()


def test_writers_of_one_process_are_served_in_the_order_in_which_they_came(file: Lite) -> None:
    file.script("CREATE TABLE t (x INTEGER PRIMARY KEY AUTOINCREMENT, n INT)")
    order, holds, go = list(range(6)), threading.Event(), threading.Event()
    queue = _queue(file)

    def hold() -> None:
        with file.db.transaction() as session:
            session.execute(text("INSERT INTO t (n) VALUES (-1)"))
            holds.set()
            assert go.wait(30)

    def write(number: int) -> None:
        with file.db.transaction() as session:
            session.execute(text(f"INSERT INTO t (n) VALUES ({number})"))

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    assert holds.wait(30)
    for number in order:
        threads.append(threading.Thread(target=write, args=(number,)))
        threads[-1].start()
        _until(lambda number=number: len(queue._waiters) == number + 1)
    go.set()
    for thread in threads:
        thread.join(30)
    with file.db.session() as session:
        assert session.execute(text("SELECT n FROM t ORDER BY x")).scalars().all() == [-1, *order]


def test_an_interrupt_wakes_a_writer_that_waits_for_its_turn(tmp_path: Path) -> None:
    with registry(f"sqlite:///{tmp_path}/lite.db", lock_timeout="60s") as db:
        lite = Lite(db, "sync")
        lite.script("CREATE TABLE t (x INT)")
        queue, connections, errors = _queue(lite), [], []
        event.listen(db.engine(), "checkout", lambda connection, record, proxy: connections.append(connection))

        def wait() -> None:
            try:
                lite.script("INSERT INTO t VALUES (1)")
            except OperationalError as error:
                errors.append(str(error))

        with db.transaction() as session:
            session.execute(text("INSERT INTO t VALUES (2)"))
            waiter = threading.Thread(target=wait)
            waiter.start()
            _until(lambda: len(queue._waiters) == 1)
            connections[-1].interrupt()
            waiter.join(30)
        assert "another transaction in this process" in errors[0]
        lite.script("INSERT INTO t VALUES (3)")


def test_a_forgotten_writer_gives_its_turn_back(file: Lite) -> None:
    queue = _queue(file)
    with closing(sqlite3.connect(":memory:")):
        turn = queue.try_enter()
        assert queue.try_enter() is None
        del turn
        assert queue.try_enter() is not None


def test_a_writer_that_is_forgotten_while_another_waits_lets_it_go_on(tmp_path: Path) -> None:
    queue, got = WriteQueue(), []
    turn = queue.try_enter()

    def wait() -> None:
        with closing(sqlite3.connect(tmp_path / "lite.db", timeout=60, factory=LiteConnection)) as waiting:
            got.append(waiting._wait_for_turn(queue))

    waiter = threading.Thread(target=wait)
    waiter.start()
    _until(lambda: len(queue._waiters) == 1)
    del turn
    waiter.join(30)
    assert got


def test_a_connection_that_is_closed_lets_go_of_the_file_although_a_cursor_is_still_known(file: Lite) -> None:
    """As one of a cancelled task is by its traceback: SQLite would put the close off, and keep the lock."""
    file.script("CREATE TABLE t (x INT)")
    place = str(file.db.engine().url.database)
    closed = sqlite3.connect(place, uri=True, factory=LiteConnection)
    closed.execute("BEGIN IMMEDIATE")
    cursor = closed.execute("INSERT INTO t VALUES (1), (2) RETURNING x")
    assert cursor.fetchone() == (1,)
    closed.close()
    with closing(sqlite3.connect(place, uri=True, timeout=0)) as other:
        other.execute("INSERT INTO t VALUES (3)")  # not: database is locked
        other.commit()
    assert file.ask("SELECT group_concat(x) FROM t") == "3"
    del cursor


# In memory


def test_a_reader_in_memory_keeps_no_writer_out(open_lite: Callable[..., Lite]) -> None:
    lite = open_lite("sqlite://", lock_timeout="30s")
    lite.script("CREATE TABLE t (x INT)")
    insert, count = text("INSERT INTO t VALUES (1)"), text("SELECT count(*) FROM t")
    if lite.asynchronous:

        async def read_and_write() -> Any:
            async with lite.db.async_session() as reader:
                await reader.exec(count)
                async with lite.db.async_transaction() as writer:
                    await writer.exec(insert)
                return (await reader.exec(count)).scalar()

        assert lite.run(read_and_write()) == 1
        return
    with lite.db.session() as reader:
        reader.execute(count)
        with lite.db.transaction() as writer:
            writer.execute(insert)
        assert reader.execute(count).scalar() == 1


def test_a_session_in_memory_overwrites_nothing_that_has_changed_since_it_read() -> None:
    with registry("sqlite://") as db:
        lite = Lite(db, "sync")
        lite.script("CREATE TABLE t (x INT)", "INSERT INTO t VALUES (1)")
        with db.session() as session:
            read = session.execute(text("SELECT x FROM t")).scalar()
            lite.script("UPDATE t SET x = 5")
            with pytest.raises(OperationalError, match="has changed since"):
                session.execute(text(f"UPDATE t SET x = {read} + 1"))
        assert lite.ask("SELECT x FROM t") == 5


def test_a_reader_in_memory_whom_its_own_writer_locks_out_is_told_at_once() -> None:
    with registry("sqlite://") as db:
        Lite(db, "sync").script("CREATE TABLE t (x INT)")
        with db.transaction() as writer, db.session() as reader:
            writer.execute(text("INSERT INTO t VALUES (1)"))
            with pytest.raises(OperationalError, match="holds the write lock itself"):
                reader.execute(text("SELECT * FROM t"))


def _reads_the_schema_for_a_constant() -> bool:
    """Return whether this SQLite needs the lock for a new connection's `SELECT 1` (3.53 does, 3.40 does not)."""
    place = "file:/tests-constant?vfs=memdb"
    with closing(sqlite3.connect(place, uri=True)) as writer, closing(sqlite3.connect(place, uri=True)) as other:
        writer.execute("CREATE TABLE t (x INT)")
        writer.execute("INSERT INTO t VALUES (1)")
        other.execute("PRAGMA busy_timeout = 0")
        try:
            other.execute("SELECT 1")
        except sqlite3.OperationalError:
            return True
        return False


@pytest.mark.skipif(_reads_the_schema_for_a_constant(), reason="this SQLite needs the lock for any statement")
def test_a_health_check_in_memory_needs_no_lock(open_lite: Callable[..., Lite]) -> None:
    lite = open_lite("sqlite://", lock_timeout="1s")
    lite.script("CREATE TABLE t (x INT)")
    insert, check = text("INSERT INTO t VALUES (1)"), text("select 1")
    if lite.asynchronous:

        async def check_while_writing() -> Any:
            async with lite.db.async_transaction() as writer:
                await writer.exec(insert)
                async with lite.db.async_engine().connect() as other:
                    return await other.scalar(check)

        assert lite.run(check_while_writing()) == 1
        return
    with lite.db.transaction() as writer:
        writer.execute(insert)
        with lite.db.engine().connect() as other:
            assert other.scalar(check) == 1


def test_savepoints_in_memory_are_in_a_transaction() -> None:
    with registry("sqlite://") as db:
        Lite(db, "sync").script("CREATE TABLE t (x INT)")
        with db.session() as session:
            with session.begin_nested():
                session.execute(text("INSERT INTO t VALUES (1)"))
            session.rollback()
            assert session.execute(text("SELECT count(*) FROM t")).scalar() == 0


def _queue(lite: Lite) -> Any:
    from dbconfig.engine.dialects.sqlite.connection import driver_of

    return lite.connection(lambda connection: driver_of(connection.connection.driver_connection).queue)


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come true within 30 s")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///file::memory:?uri=true",
        "sqlite+aiosqlite:///file:mine?mode=memory&uri=true",
    ],
)
def test_a_database_in_memory_of_an_asynchronous_url_is_one_for_all_its_sessions_and_loops(url: str) -> None:
    pytest.importorskip("aiosqlite")
    with registry(url) as db:

        async def write() -> None:
            async with db.async_transaction() as session:
                await session.exec(text("CREATE TABLE t (x INT)"))
                await session.exec(text("INSERT INTO t VALUES (1)"))

        async def count(*, read_only: bool) -> Any:
            async with db.async_session(read_only=read_only) as session:
                return (await session.exec(text("SELECT count(*) FROM t"))).scalar()

        async def use() -> list[Any]:
            await write()
            return [await count(read_only=False), await count(read_only=True)]

        assert asyncio.run(use()) == [1, 1]
        assert asyncio.run(count(read_only=False)) == 1
        with pytest.raises(ConfigError, match="asynchronous driver"):
            db.engine()


@pytest.mark.parametrize("url", ["sqlite:///file::memory:?uri=true", "sqlite:///file:own?mode=memory&uri=true"])
def test_an_unnamed_database_in_memory_is_one_for_writing_and_reading_sessions(url: str) -> None:
    with registry(url) as db:
        Lite(db, "sync").script("CREATE TABLE t (x INT)")
        with db.session(read_only=True) as session:
            assert session.execute(text("SELECT count(*) FROM t")).scalar() == 0


def test_a_detached_connection_goes_on(lite: Lite) -> None:
    def work(connection: Connection) -> int:
        connection.detach()
        connection.exec_driver_sql("CREATE TABLE t (x INT)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        connection.commit()
        connection.exec_driver_sql("INSERT INTO t VALUES (2)")
        connection.rollback()
        return int(connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one())

    assert lite.connection(work) == 1
    assert lite.ask("SELECT x FROM t") == 1


def test_autocommit_commits_each_statement_and_leaves_the_next_user_his_transactions(lite: Lite) -> None:
    def work(connection: Connection) -> None:
        auto = connection.execution_options(isolation_level="AUTOCOMMIT")
        auto.exec_driver_sql("CREATE TABLE t (x INT)")
        auto.exec_driver_sql("INSERT INTO t VALUES (1)")
        auto.rollback()
        auto.exec_driver_sql("VACUUM")

    lite.connection(work)
    assert lite.ask("SELECT count(*) FROM t") == 1

    def undone(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO t VALUES (2)")
        connection.rollback()

    lite.connection(undone)
    assert lite.ask("SELECT count(*) FROM t") == 1
