"""SQLite: one database in memory for all threads, files beside the project, transactions that begin."""

import asyncio
import gc
import os
import shutil
import sqlite3
import threading
import warnings
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlmodel import Session, select

from dbconfig import ConfigError, Registry
from tests.registries import Account, Hero, Team, ask, at_once, from_yaml, names, registry
from tests.support.folders import short_folder
from tests.support.processes import unprivileged


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/lite.db"


# Transactions


def test_eight_threads_write_two_hundred_times_each_and_nothing_is_lost() -> None:
    with registry("sqlite://") as db:
        db.create_tables(Team, Hero)

        def write() -> None:
            for _ in range(200):
                with db.transaction() as session:
                    session.add(Hero(name="x"))

        at_once([write] * 8)
        assert ask(db, "SELECT count(*) FROM engine_hero") == 1600


def test_threads_that_read_compute_and_write_end_with_right_balances(url: str) -> None:
    with registry(url) as db:
        db.create_tables(Account)
        with db.transaction() as session:
            session.add_all([Account(id=1, balance=0), Account(id=2, balance=0)])

        def add() -> None:
            for _ in range(25):
                with db.transaction() as session:
                    for account in session.exec(select(Account)):
                        account.balance += 1

        at_once([add] * 8)
        with db.session() as session:
            assert session.exec(select(Account.balance)).all() == [200, 200]


def test_a_rollback_undoes_the_creation_of_a_table(url: str) -> None:
    with registry(url) as db:
        with db.session() as session:
            session.execute(text("CREATE TABLE gone (id INTEGER)"))
            session.rollback()
            session.execute(text("CREATE TABLE gone (id INTEGER)"))
        assert ask(db, "SELECT count(*) FROM sqlite_master") == 0


def test_only_a_transaction_waits_for_another_writer_where_it_has_read(tmp_path: Path) -> None:
    """SQLite does not wait when a reader wants to write: two of them would wait for each other."""
    with registry(f"sqlite:///{tmp_path}/lite.db") as db:
        db.create_tables(Account)
        writes, done = threading.Event(), threading.Event()

        def hold_the_write_lock() -> None:
            with db.transaction() as session:
                session.add(Account(id=1, balance=1))
                session.flush()
                writes.set()
                done.wait(60)

        holder = threading.Thread(target=hold_the_write_lock)
        with db.session() as session:
            assert session.exec(select(Account)).all() == []
            holder.start()
            assert writes.wait(60)
            session.add(Account(id=2, balance=2))
            with pytest.raises(OperationalError, match="database is locked"):
                session.flush()
        threading.Timer(0.3, done.set).start()
        with db.transaction() as session:
            assert [account.id for account in session.exec(select(Account))] == [1]
            session.add(Account(id=2, balance=2))
        holder.join()
        assert ask(db, "SELECT count(*) FROM engine_account") == 2


def test_a_session_reads_the_same_until_it_ends(tmp_path: Path) -> None:
    with registry(f"sqlite:///{tmp_path}/lite.db") as db:
        db.create_tables(Account)
        with db.session() as session:
            assert session.exec(select(Account)).all() == []
            with db.transaction() as writer:
                writer.add(Account(id=1, balance=1))
            assert session.exec(select(Account)).all() == []
            session.rollback()
            assert len(session.exec(select(Account)).all()) == 1


def test_foreign_keys_are_on_and_can_be_switched_off(url: str) -> None:
    with registry(url) as db:
        assert ask(db, "PRAGMA foreign_keys") == 1
    with registry(url, variables={"foreign_keys": False}) as db:
        assert ask(db, "PRAGMA foreign_keys") == 0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("enforced", [True, False])
def test_foreign_keys_are_as_the_profile_says_on_each_connection_and_after_each_transaction(
    url: str, enforced: bool, asynchronous: bool
) -> None:
    question, found = "PRAGMA foreign_keys", list[int]()
    if asynchronous:
        pytest.importorskip("aiosqlite")

        async def main() -> None:
            async with registry(url, variables={"foreign_keys": enforced}) as db, db.async_session() as first:
                found.append(await first.scalar(text(question)))
                for _ in range(3):  # of the second connection
                    async with db.async_session() as session:
                        found.append(await session.scalar(text(question)))

        asyncio.run(main())
    else:
        with registry(url, variables={"foreign_keys": enforced}) as db, db.session() as first:
            found += [ask(first, question), *(ask(db, question) for _ in range(3))]
    assert found == [enforced] * 4


# In memory


def test_each_engine_in_memory_is_a_database_of_its_own() -> None:
    with registry("sqlite://") as one, registry("sqlite:///:memory:") as other:
        one.create_tables(Account)
        assert ask(one, "SELECT count(*) FROM sqlite_master") == 1
        assert ask(other, "SELECT count(*) FROM sqlite_master") == 0


@pytest.mark.parametrize("poolclass", [None, "NullPool", "StaticPool"])
def test_a_database_in_memory_lives_as_long_as_its_engine_whatever_the_pool_closes(poolclass: str | None) -> None:
    with registry("sqlite://", **({"poolclass": poolclass} if poolclass else {})) as db:
        db.create_tables(Account)
        db.engine().dispose()
        gc.collect()
        assert ask(db, "SELECT count(*) FROM engine_account") == 0


def test_a_registry_that_is_disposed_of_begins_with_an_empty_database_in_memory() -> None:
    with registry("sqlite://") as db:
        db.create_tables(Account)
        db.dispose()
        assert db.create_tables(Account) == ["engine_account"]


def test_nothing_stays_open_when_an_engine_in_memory_is_forgotten() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            with registry("sqlite://") as db:
                ask(db, "SELECT 1")
            del db
            gc.collect()


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:/shared?vfs=memdb&uri=true",
    ],
)
def test_a_named_database_in_memory_is_shared_by_threads_and_by_engines(uri: str) -> None:
    with registry(uri) as one, registry(uri) as other:
        one.create_tables(Team, Hero)
        at_once([lambda: _add(one), lambda: _add(other)] * 4)
        assert len(names(one)) == len(names(other)) == 8
        one.drop_tables(Hero, Team)


def _add(db: Registry) -> None:
    with db.transaction() as session:
        session.add(Hero(name="x"))


def test_an_unnamed_memory_uri_is_private() -> None:
    uri = "sqlite:///file:same?mode=memory&uri=true"
    with registry(uri) as one, registry(uri) as other:
        one.create_tables(Account)
        assert at_once([lambda: ask(one, "SELECT count(*) FROM sqlite_master")]) == [1]
        assert ask(other, "SELECT count(*) FROM sqlite_master") == 0


# Files


@pytest.mark.parametrize("url", ["sqlite:///data/deep/app.db", "sqlite:///file:data/deep/app.db?uri=true"])
def test_a_file_is_relative_to_the_project_and_not_to_the_working_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    for folder in (project, elsewhere):
        monkeypatch.chdir(folder)
        with from_yaml(project, f"url: {url}") as db:
            db.create_tables(Account)
    assert (project / "data/deep/app.db").is_file()
    assert list(elsewhere.iterdir()) == []


def test_a_path_of_a_profile_made_in_code_is_settled_when_its_engine_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path)
    with registry("sqlite:///new/app.db") as db:
        db.engine()
        monkeypatch.chdir(tmp_path / "later")
        ask(db, "SELECT 1")
    assert (tmp_path / "new/app.db").is_file()
    assert list((tmp_path / "later").iterdir()) == []


@pytest.mark.parametrize("name", ["a b.db", "50%.db", "what?.db", "no#1.db", "é€.db", "%20.db", ":memory:.db"])
@pytest.mark.parametrize("by", ["database", "uri"])
def test_a_file_may_have_any_name(name: str, by: str, tmp_path: Path) -> None:
    database = f"{tmp_path}/{name}" if by == "database" else f"file:{tmp_path}/{name}"
    with Registry.from_profile(_profile(drivername="sqlite", database=database)) as db:
        db.create_tables(Account)
        assert name in os.listdir(tmp_path)


def _profile(**settings: object):  # type: ignore[no-untyped-def]
    from dbconfig import Profile

    return Profile(name="tests", **settings)


def test_a_file_gets_the_write_ahead_log_and_can_have_another_journal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lite.db"
    with registry(url) as db:
        assert (ask(db, "PRAGMA journal_mode"), ask(db, "PRAGMA synchronous")) == ("wal", 1)
        assert ask(db, "PRAGMA busy_timeout") == 5000
    with registry(url, variables={"journal_mode": "delete", "synchronous": "FULL"}) as db:
        assert (ask(db, "PRAGMA journal_mode"), ask(db, "PRAGMA synchronous")) == ("delete", 2)


def test_threads_that_open_a_new_file_at_once_all_get_the_write_ahead_log(tmp_path: Path) -> None:
    for number in range(5):
        databases = [registry(f"sqlite:///{tmp_path}/{number}.db") for _ in range(8)]
        start = threading.Barrier(8)

        def open_it(db: Registry, start: threading.Barrier = start) -> object:
            start.wait(60)
            return ask(db, "PRAGMA journal_mode")

        assert at_once([lambda db=db: open_it(db) for db in databases]) == ["wal"] * 8
        for db in databases:
            db.dispose()


def test_a_file_that_is_opened_for_reading_cannot_be_written(tmp_path: Path) -> None:
    with registry(f"sqlite:///{tmp_path}/lite.db") as db:
        db.create_tables(Account)
    with registry(f"sqlite:///file:{tmp_path}/lite.db?mode=ro&uri=true") as db:
        assert ask(db, "SELECT count(*) FROM engine_account") == 0
        with pytest.raises(OperationalError, match="attempt to write a readonly database"), db.transaction() as session:
            session.add(Account(id=1, balance=1))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_belongs_to_somebody_else_can_be_read() -> None:
    """As in a container whose database comes with the image: no log, no error, no write."""
    # Not in pytest's own folder: each pytest that starts takes the rights of others on that away.
    folder = short_folder(in_memory=False)
    folder.chmod(0o755)
    try:
        _read_as_somebody_else(folder)
    finally:
        shutil.rmtree(folder)


def _read_as_somebody_else(folder: Path) -> None:
    with registry(f"sqlite:///{folder}/lite.db", variables={"journal_mode": "delete"}) as db:
        db.create_tables(Account)
    pid = os.fork()
    if pid == 0:
        outcome = 1
        try:
            os.setgroups([])
            os.setgid(unprivileged()["group"])
            os.setuid(unprivileged()["user"])
            with registry(f"sqlite:///{folder}/lite.db") as db:
                read = ask(db, "SELECT count(*) FROM engine_account") == 0
            with registry(f"sqlite:///{folder}/new.db") as db, pytest.raises(OperationalError) as caught:
                ask(db, "SELECT 1")
            outcome = 0 if read and f"{folder}/new.db: permission denied" in str(caught.value) else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file/app.db", "its folder cannot be created: File exists"),
        ("file/below/app.db", "its folder cannot be created: Not a directory"),
        ("folder", "it is a folder"),
        ("text", "file is not a database"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named_with_its_whole_path(path: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database " * 1000)
    with from_yaml(tmp_path, f"url: sqlite:///{path}") as db, pytest.raises(DatabaseError) as caught:
        ask(db, "SELECT 1")
    assert f"{tmp_path}/{path}" in str(caught.value)
    assert reason in str(caught.value)


def test_a_file_that_must_exist_and_does_not_is_named(tmp_path: Path) -> None:
    with registry(f"sqlite:///file:{tmp_path}/none/lite.db?mode=rw&uri=true") as db:
        with pytest.raises(OperationalError, match=f"{tmp_path}/none/lite.db: the folder does not exist"):
            ask(db, "SELECT 1")
        (tmp_path / "none").mkdir()
        with pytest.raises(OperationalError, match=f"{tmp_path}/none/lite.db: the file does not exist"):
            ask(db, "SELECT 1")


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"connect_args": {"isolation_level": "IMMEDIATE"}}, "'isolation_level' of sqlite3 has no effect here"),
        ({"connect_args": {"autocommit": True}}, "'autocommit' of sqlite3 has no effect here"),
        ({"connect_args": {"charset": "utf8"}}, "'charset' is not an argument of sqlite3"),
        ({"query": {"mode": "ro"}}, "write `file:` before the path"),
        ({"variables": {"foriegn_keys": True}}, "did you mean 'foreign_keys'?"),
        ({"variables": {"foreign_keys = 0; --": True}}, "is not the name of a session variable"),
        ({"variables": {"cache_size": [1, 2]}}, "a session variable has one value, not a list"),
    ],
)
def test_what_sqlite_would_ignore_or_refuse_later_is_told_when_the_engine_is_made(
    settings: dict[str, object], message: str, url: str
) -> None:
    with pytest.raises(ConfigError) as caught, registry(url, **settings) as db:
        db.engine()
    assert message in str(caught.value)


def test_a_variable_may_have_quotes_in_it(url: str) -> None:
    with registry(url, variables={"temp_store_directory": "/tmp/it's"}) as db, pytest.raises(DatabaseError) as caught:
        ask(db, "SELECT 1")
    assert "not a writable directory" in str(caught.value)


def test_an_engine_of_sqlmodel_itself_sees_what_we_wrote(tmp_path: Path) -> None:
    with registry(f"sqlite:///{tmp_path}/lite.db") as db:
        db.create_tables(Account)
        with db.transaction() as session:
            session.add(Account(id=1, balance=3))
    connection = sqlite3.connect(tmp_path / "lite.db")
    assert connection.execute("SELECT balance FROM engine_account").fetchall() == [(3,)]
    connection.close()
    with registry(f"sqlite:///{tmp_path}/lite.db") as db, Session(db.engine()) as session:
        assert session.exec(select(Account.balance)).one() == 3
