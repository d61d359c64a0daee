"""SQLite under writers and on bad disks: balances that are right, and errors that say what is wrong."""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from dbconfig import Profile, Registry
from tests.registries import ask, at_once
from tests.support.processes import wait_until

CONTEXT = get_context("fork")


def registry(path: Path, **settings: object) -> Registry:
    return Registry.from_profile(Profile(name="lite", url=f"sqlite:///{path}", **settings))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data" / "lite.db"
    with registry(file) as db, db.transaction() as session:
        session.execute(text("CREATE TABLE counter (amount int)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    return file


def increment(session: Session) -> None:
    """Read, compute, write: what loses updates where a transaction begins only with the write."""
    amount = ask(session, "SELECT amount FROM counter")
    session.execute(text("UPDATE counter SET amount = :amount"), {"amount": amount + 1})


def test_s01_s02_twelve_threads_that_read_compute_and_write_lose_nothing(path: Path) -> None:
    waits: list[float] = []

    def work(db: Registry) -> None:
        for _ in range(25):
            start = time.monotonic()
            with db.transaction() as session:
                increment(session)
            waits.append(time.monotonic() - start)

    with registry(path) as db:
        at_once([lambda: work(db)] * 12)
        assert ask(db, "SELECT amount FROM counter") == 300
    print(f"\nS01: 300 transactions of 12 threads, longest {max(waits):.2f} s")
    assert max(waits) < 60


def count_up(path: Path, times: int) -> None:
    with registry(path) as db:
        for _ in range(times):
            db.run_in_transaction(increment, attempts=50)


def test_s03_four_processes_one_of_which_is_killed_leave_a_sound_file(path: Path) -> None:
    victim = CONTEXT.Process(target=count_up, args=(path, 1_000_000))
    others = [CONTEXT.Process(target=count_up, args=(path, 50)) for _ in range(3)]
    victim.start()
    with registry(path) as db:
        wait_until(lambda: ask(db, "SELECT amount FROM counter") > 0, "the victim's first transaction")
        for other in others:
            other.start()
        before = ask(db, "SELECT amount FROM counter")
        wait_until(lambda: ask(db, "SELECT amount FROM counter") > before + 10, "further transactions")
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    for process in (victim, *others):
        process.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0]
    with registry(path) as db:
        assert ask(db, "PRAGMA integrity_check") == "ok"
        assert ask(db, "SELECT amount FROM counter") >= 150


def test_s04_threads_share_one_database_in_memory() -> None:
    with Registry.from_profile(Profile(name="memory", url="sqlite://")) as db:
        with db.transaction() as session:
            session.execute(text("CREATE TABLE counter (amount int)"))
            session.execute(text("INSERT INTO counter VALUES (0)"))
        at_once([lambda: [db.run_in_transaction(increment, attempts=100) for _ in range(25)]] * 8)
        assert ask(db, "SELECT amount FROM counter") == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_s05_a_full_disk_is_told_rolls_back_and_passes(small_disk: Path) -> None:
    with registry(small_disk / "lite.db") as db:
        with db.transaction() as session:
            session.execute(text("CREATE TABLE counter (amount)"))
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
        rows = f"{numbers} SELECT zeroblob(20000) FROM n"
        with pytest.raises(OperationalError, match="disk is full"), db.transaction() as session:
            session.execute(text(f"INSERT INTO counter {rows}"))
        assert ask(db, "SELECT count(*) FROM counter") == 0
        with db.transaction() as session:
            session.execute(text("INSERT INTO counter VALUES (1)"))
        assert ask(db, "SELECT count(*) FROM counter") == 1


def test_s06_a_file_that_cannot_be_written_is_told_and_can_be_read(path: Path) -> None:
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA journal_mode = DELETE").close()
    plain.close()
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    with Registry.from_profile(Profile(name="lite", url=url)) as db:
        assert ask(db, "SELECT amount FROM counter") == 0
        with pytest.raises(OperationalError, match="readonly database"), db.transaction() as session:
            increment(session)


def test_s06_a_folder_that_cannot_be_made_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with registry(tmp_path / "file" / "below" / "lite.db") as db, pytest.raises(OperationalError) as caught:
        ask(db, "SELECT 1")
    assert f"{tmp_path}/file/below" in str(caught.value)


def test_a_file_that_is_deleted_is_no_endless_error(path: Path) -> None:
    """POSIX keeps an open file that has no name any more; new connections see a new, empty one."""
    with registry(path) as db:
        assert ask(db, "SELECT amount FROM counter") == 0
        for file in path.parent.iterdir():
            file.unlink()
        db.engine().dispose()
        with pytest.raises(OperationalError, match="no such table: counter"):
            ask(db, "SELECT amount FROM counter")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    from sqlalchemy.exc import DatabaseError

    (tmp_path / "lite.db").write_text("no database at all " * 100)
    with registry(tmp_path / "lite.db") as db, pytest.raises(DatabaseError, match="not a database"):
        ask(db, "SELECT 1")


def test_a_writer_that_waits_longer_than_the_lock_timeout_is_told(path: Path) -> None:
    with registry(path, lock_timeout="200ms") as db:
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with db.transaction() as session:
                increment(session)
                held.set()
                release.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(60)
        with pytest.raises(OperationalError, match="database is locked"), db.transaction() as session:
            increment(session)
        release.set()
        holder.join()
        assert ask(db, "SELECT amount FROM counter") == 1
