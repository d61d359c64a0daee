"""Forked children: each process has connections of its own, and nobody touches another one's."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlmodel import select

from dbconfig import Profile, Registry
from tests.databases.conftest import SHARED, Place
from tests.registries import Hero, Team, ask, at_once, names, registry

IDENTIFY = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()", "file": "SELECT 0"}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture(autouse=True)
def _forking_with_threads_is_what_is_tested() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


def in_child(work: Callable[[], object]) -> str:
    """Fork, run the work in the child, and return "" or what went wrong; a child that hangs is ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + 60
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(reading)
            return "the child hangs"
        time.sleep(0.005)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_children_and_their_parent_work_at_the_same_time_without_sharing_a_connection(place: Place) -> None:
    db = place.open()
    db.create_tables(Team, Hero)
    at_once([lambda: ask(db, "SELECT 1")] * 4)  # a warm pool
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    ended = context.Event()

    def work() -> None:
        try:
            found = set()
            for number in range(25):
                with db.transaction() as session:
                    found.add(ask(session, IDENTIFY[place.kind]))
                    # Not one's own number in the answer: it belongs to somebody else.
                    assert ask(session, f"SELECT {os.getpid()}") == os.getpid()
                    session.add(Hero(name=f"{os.getpid()}-{number}"))
            results.put(sorted(found))
            ended.wait(60)  # keeps its connections meanwhile, so that no number is given twice
        except BaseException as error:
            results.put(repr(error))

    children = [context.Process(target=work) for _ in range(4)]
    for child in children:
        child.start()
    mine = threading.Thread(target=work)
    mine.start()
    answers = [results.get() for _ in range(5)]
    ended.set()
    mine.join()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert [answer for answer in answers if isinstance(answer, str)] == []
    if place.kind != "file":
        numbers = [number for answer in answers for number in answer]
        assert len(numbers) == len(set(numbers))
    assert len(names(db)) == 125


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_a_child_that_ends_leaves_the_parents_connections_alone(place: Place) -> None:
    db = place.open()
    before = ask(db, IDENTIFY[place.kind])

    def leave() -> None:
        gc.collect()
        db.dispose()

    assert in_child(leave) == ""
    assert in_child(lambda: sys.exit(0)) == "SystemExit(0)"
    assert ask(db, IDENTIFY[place.kind]) == before


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_a_fork_in_the_first_connect_of_another_thread_leaves_a_child_that_works(place: Place) -> None:
    db = place.open()
    connecting, go_on = threading.Event(), threading.Event()

    @event.listens_for(db.engine(), "connect")
    def hold(*_: Any) -> None:
        connecting.set()
        if threading.current_thread() is not threading.main_thread():
            go_on.wait(60)

    thread = threading.Thread(target=ask, args=(db, "SELECT 1"))
    thread.start()
    connecting.wait(60)
    try:
        assert in_child(lambda: ask(db, "SELECT 1")) == ""
    finally:
        go_on.set()
        thread.join()
    assert ask(db, "SELECT 1") == 1


def test_a_fork_while_another_thread_makes_an_engine_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    making = threading.Event()
    create = sqlalchemy.create_engine

    def slowly(*args: Any, **kwargs: Any) -> Any:
        making.set()
        time.sleep(0.2)
        return create(*args, **kwargs)

    monkeypatch.setattr(sqlalchemy, "create_engine", slowly)
    with registry("sqlite://") as db:
        thread = threading.Thread(target=db.engine)
        thread.start()
        making.wait(60)
        assert in_child(lambda: ask(db, "SELECT 1")) == ""
        thread.join()
        assert in_child(lambda: Registry.from_profile(Profile(name="new", url="sqlite://")).engine()) == ""


def test_a_fork_by_the_thread_that_makes_an_engine_is_no_deadlock() -> None:
    with registry("sqlite://") as db:
        with db.parts.profiles.lock:
            assert in_child(lambda: ask(db, "SELECT 1")) == ""
        assert ask(db, "SELECT 1") == 1


def test_a_registry_that_appears_between_our_hook_and_the_fork_does_not_disturb_it() -> None:
    script = """
import os, sys
made = []
def appear():
    if "dbconfig.registry.registry" in sys.modules:
        made.append(sys.modules["dbconfig.registry.registry"].Registry())
os.register_at_fork(before=appear)  # registered before dbconfig's: it runs after it
from dbconfig import db
made.append(db)
pid = os.fork()
if pid == 0:
    os._exit(0 if made[-1].parts.profiles.lock.acquire(timeout=5) else 1)
print(len(made), os.waitpid(pid, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("2 0\n", "")


def test_a_program_forks_after_the_change_that_another_thread_is_making() -> None:
    script = """
import os, threading
from dbconfig import db
holds, forks, changed = threading.Event(), threading.Event(), []
def change():
    with db.parts.profiles.lock:
        holds.set()
        forks.wait(60)
        changed.append(1)
thread = threading.Thread(target=change)
thread.start()
holds.wait(60)
os.register_at_fork(before=forks.set)  # registered after dbconfig's: it runs before it
pid = os.fork()
if pid == 0:
    os._exit(0 if changed and db.parts.profiles.lock.acquire(timeout=5) else 1)
thread.join()
print(os.waitpid(pid, 0)[1])
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_threads_that_fork_at_the_same_time_do_not_wait_for_each_other_for_ever() -> None:
    registries = [registry("sqlite://") for _ in range(5)]
    outcomes = at_once([lambda: [in_child(lambda: ask(registries[0], "SELECT 1")) for _ in range(4)]] * 4)
    assert outcomes == [[""] * 4] * 4
    for each in registries:
        each.dispose()


def test_a_database_in_memory_is_copied_to_the_child() -> None:
    with registry("sqlite://") as db:
        db.create_tables(Team, Hero)
        with db.transaction() as session:
            session.add(Hero(name="of the parent"))

        def write() -> None:
            with db.transaction() as session:
                session.add(Hero(name="of the child"))
            assert names(db) == ["of the child", "of the parent"]

        assert in_child(write) == ""
        assert names(db) == ["of the parent"]


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_a_session_that_was_open_at_the_fork_says_that_it_is_the_parents(place: Place) -> None:
    db = place.open()
    db.create_tables(Team, Hero)
    session, connection = db.session(), db.engine().connect()
    assert session.exec(select(Hero)).all() == []
    connection.execute(text("SELECT 1"))

    def in_the_child() -> None:
        for use in (lambda: session.exec(select(Hero)), session.commit, lambda: connection.execute(text("SELECT 1"))):
            with pytest.raises(ResourceClosedError, match="opened before the fork, and is the parent's"):
                use()
        connection.rollback()
        connection.close()
        session.close()
        assert session.exec(select(Hero)).all() == []  # it begins anew, with a connection of the child
        session.close()

    assert in_child(in_the_child) == ""
    session.add(Hero(name="of the parent"))
    session.commit()
    session.close()
    connection.close()
    assert names(db) == ["of the parent"]


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_a_child_forked_within_a_unit_of_work_has_units_of_its_own(place: Place) -> None:
    db = place.open()
    db.create_tables(Team, Hero)
    told: list[str] = []

    def in_the_child() -> None:
        assert db.run_in_transaction(lambda session: session.info["attempt"]) == 1
        if not place.sqlite:  # where the parent holds the one write lock
            db.run_in_transaction(lambda session: session.add(Hero(name="child")))
        db.dispose(timeout=0.5)

    def work(session: Any) -> None:
        session.add(Hero(name="parent"))
        session.flush()
        raw = session.connection().connection

        def use_the_parents() -> None:
            for use in (raw.cursor, lambda: raw.cursor().execute("COMMIT")):
                with pytest.raises(ResourceClosedError, match="opened before the fork, and is the parent's"):
                    use()
            for end in (raw.commit, raw.rollback):
                with pytest.raises((ResourceClosedError, InvalidRequestError)):
                    end()

        told.append(in_child(use_the_parents))
        told.append(in_child(in_the_child if not place.sqlite else lambda: db.dispose(timeout=0.5)))

    db.run_in_transaction(work)
    assert told == ["", ""]
    assert names(db) == (["parent"] if place.sqlite else ["child", "parent"])


@pytest.mark.parametrize("place", SHARED, indirect=True)
def test_a_child_that_disposes_with_a_timeout_waits_for_nobody_and_leaves_the_parent_alone(place: Place) -> None:
    db = place.open()
    db.create_tables(Team, Hero)
    with db.transaction() as session:
        session.add(Hero(name="parent"))
        session.flush()
        assert in_child(lambda: db.dispose(timeout=600)) == ""
    assert names(db) == ["parent"]
