"""Rotation and reload: new settings and new passwords, without an interruption and without a remainder of the old."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import Pool
from sqlmodel import Session

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine import password_rotation
from dbconfig.registry import reloading
from tests.support.drivers import Driver, of, plain
from tests.support.loop_thread import LoopThread
from tests.support.processes import wait_until
from tests.support.servers import Server

SIZE = 4  # connections


def write(folder: Path, **lines: object) -> None:
    config = folder / "config"
    config.mkdir(exist_ok=True)
    (config / "production.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))


def rotate(server: Server, file: Path, password: str) -> None:
    """Do it in the order of an administrator: the server first, then the file, at once and not piecemeal."""
    server.set_password(server.user, password)
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(password)
    new.replace(file)


@pytest.fixture
def secret(tmp_path: Path, server: Server) -> Path:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(server.password)
    return file


@pytest.fixture
def driver(request: pytest.FixtureRequest, server: Server) -> Driver:
    """The driver for threads, or as a parameter one of the two for tasks."""
    number = getattr(request, "param", None)
    if number is None:
        return plain(server.kind)
    chosen = [each for each in of(server.kind) if each.asynchronous][number]
    pytest.importorskip(chosen.module)
    return chosen


@pytest.fixture
def lines(server: Server, secret: Path, driver: Driver) -> dict[str, object]:
    scheme = driver.scheme if driver.asynchronous else server.driver  # which both worlds can use
    url = f"{scheme}://{server.user}@{server.host}:{server.port}/{server.database}"
    return {"url": url, "password": f"{{file: {secret}}}", "pool_size": SIZE, "max_overflow": 0}


@pytest.fixture
def db(tmp_path: Path, lines: dict[str, object]) -> Iterator[Registry]:
    write(tmp_path, **lines)
    with Registry(tmp_path / "config", profile="production", environ={}) as opened:
        yield opened


class Load:
    """Threads that ask all the time, and what happened to them."""

    def __init__(self, db: Registry, threads: int = 8, work: Callable[[Session], object] | None = None) -> None:
        self.done = 0
        self.errors: list[BaseException] = []
        self._work = work or (lambda session: session.execute(text("SELECT 1")).scalar_one())
        self._db = db
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.do(self._work)
            except Exception as error:
                self.errors.append(error)
            self.done += 1

    def do(self, work: Callable[[Session], object]) -> None:
        with self._db.session() as session:
            work(session)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.done > 50, "the load")
        return self

    def all_connected(self, server: Server) -> set[int]:
        """Return the connections when there will be no more, which would be opened with one password or the other."""
        wait_until(lambda: len(connected(server)) == SIZE, "as many connections as there will be")
        return connected(server)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, work: int = 50) -> None:
        more = self.done + work
        wait_until(lambda: self.done > more, "the load to go on")


class LoadOfTasks(Load):
    """The same, each in a task of one event loop."""

    def __init__(self, db: Registry) -> None:
        super().__init__(db)
        self._loop = LoopThread()

    def do(self, work: Callable[[Session], object]) -> None:
        self._loop.run(self._do(work))

    async def _do(self, work: Callable[[Session], object]) -> None:
        async with self._db.async_session() as session:
            await session.run_sync(work)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._loop.run(self._db.async_dispose())
        self._loop.close()


def load_of(db: Registry, driver: Driver) -> Load:
    return LoadOfTasks(db) if driver.asynchronous else Load(db)


in_both_worlds = pytest.mark.parametrize("driver", [None, 0, 1], ids=["threads", "tasks", "other tasks"], indirect=True)


def connected(server: Server) -> set[int]:
    return set(server.connections(user=server.user))


@in_both_worlds
def test_a_password_that_changed_under_eight_busy_callers_costs_no_error_and_leaves_no_old_connection(
    db: Registry, server: Server, secret: Path, driver: Driver
) -> None:
    with load_of(db, driver) as load:
        old = load.all_connected(server)
        rotate(server, secret, "rotated-1")
        db.reload()
        load.goes_on()
        wait_until(lambda: not old & connected(server), "the end of the old connections")
        load.goes_on()
    assert old
    assert load.errors == []


@in_both_worlds
def test_without_a_call_the_first_new_connection_replaces_the_old_ones(
    db: Registry, server: Server, secret: Path, driver: Driver
) -> None:
    with load_of(db, driver) as load:
        old = load.all_connected(server)
        rotate(server, secret, "rotated-2")
        # Not ended by the server, which would be a reason to leave all the others, too.
        load.do(lambda session: session.connection().invalidate())
        wait_until(lambda: not old & connected(server), "the end of the old connections")
        load.goes_on()
    assert load.errors == []


def test_a_file_that_is_written_is_noticed_and_proved_before_anything_is_replaced(
    db: Registry, server: Server, secret: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(password_rotation, "ROUND", 0.1)
    caplog.set_level(logging.INFO, "dbconfig")
    with Load(db) as load:
        old = load.all_connected(server)
        secret.write_text("not-yet-known-to-the-server")
        wait_until(lambda: "cannot connect with the new content" in caplog.text, "the proof that fails")
        assert old <= connected(server)
        rotate(server, secret, "rotated-3")
        wait_until(lambda: not old & connected(server), "the end of the old connections")
        load.goes_on()
    assert load.errors == []


def test_new_settings_come_into_force_and_work_in_progress_ends_on_the_old_ones(
    db: Registry, server: Server, tmp_path: Path, lines: dict[str, object]
) -> None:
    with Load(db) as load:
        before, old = db.engine(), connected(server)
        with db.session() as running:
            running.execute(text("SELECT 1"))
            write(tmp_path, **lines | {"pool_size": 2, "max_overflow": 0})
            db.reload()
            assert running.execute(text("SELECT 2")).scalar_one() == 2
            load.goes_on()
        after = db.engine()
        load.goes_on()
        wait_until(lambda: not old & connected(server), "the end of the old connections")
        assert len(connected(server)) <= 2
    assert load.errors == []
    assert after is not before
    assert db.stats().max == 2
    assert db.profile.databases["default"].pool_size == 2
    # Who kept the old engine is still served, and leaves nothing behind.
    with before.connect() as connection:
        assert connection.execute(text("SELECT 3")).scalar_one() == 3
    wait_until(lambda: len(connected(server)) <= 2, "the end of the old engine's connection")  # the server's own, too


def test_the_engine_stays_where_its_settings_stay(db: Registry, tmp_path: Path, lines: dict[str, object]) -> None:
    before = db.engine()
    before.connect().close()
    write(tmp_path, **{"# a comment": "moves every line", **lines})
    db.reload()
    assert db.engine() is before


@pytest.mark.parametrize("change", ["a key", "the port", "the password"])
def test_a_bad_configuration_changes_nothing_and_says_why(
    db: Registry, server: Server, tmp_path: Path, lines: dict[str, object], secret: Path, change: str
) -> None:
    with Load(db) as load:
        before, old, profile = db.engine(), connected(server), db.profile
        expected: type[Exception] = DBAPIError
        if change == "a key":
            write(tmp_path, **lines | {"pool_siz": 3})
            expected = ConfigError
        elif change == "the port":
            write(tmp_path, **lines | {"url": str(lines["url"]).replace(f":{server.port}/", ":1/")})
        else:
            secret.write_text("wrong")
        with pytest.raises(expected) as caught:
            db.reload()
        told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert ("did you mean 'pool_size'" if change == "a key" else "nothing was changed") in told
        assert server.password not in told
        assert (db.engine(), db.profile) == (before, profile)
        load.goes_on()
        assert old <= connected(server)
    assert load.errors == []


def test_a_database_that_is_gone_is_told_and_one_that_is_new_is_there(
    tmp_path: Path, server: Server, lines: dict[str, object]
) -> None:
    def databases(name: str) -> dict[str, object]:
        return {"databases": f"{{{name}: {{url: '{server.url()}'}}}}"}

    write(tmp_path, **lines | databases("first"))
    with Registry(tmp_path / "config", profile="production", environ={}) as db:
        db.engine("first").connect().close()
        write(tmp_path, **lines | databases("second"))
        db.reload()
        with pytest.raises(ConfigError, match="no database 'first'"):
            db.engine("first")
        db.engine("second").connect().close()


def test_reloads_at_the_same_time_take_turns_and_an_engine_made_meanwhile_is_not_forgotten(
    db: Registry, tmp_path: Path, server: Server, lines: dict[str, object]
) -> None:
    write(tmp_path, **lines | {"databases": f"{{other: {{url: '{server.url()}'}}}}"})
    db.engine()
    asked: list[Engine] = []
    threads = [threading.Thread(target=db.reload) for _ in range(4)]
    threads += [threading.Thread(target=lambda: asked.append(db.engine("other"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(engine) for engine in asked} == {id(db.engine("other"))}
    db.engine("other").connect().close()


class Proving:
    """The engines that a reload of two databases has opened to prove them, with what happens after the first one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.proved: list[tuple[Engine, Pool]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self._prove = reloading._prove
        monkeypatch.setattr(reloading, "_prove", self.prove)
        self.write()
        self.db = Registry(folder / "config", profile="production", environ={})

    def write(self, other: str = "b.db", **lines: object) -> None:
        other = f"{{other: {{url: 'sqlite:///{self.folder}/{other}', pool_size: 3}}}}"
        write(self.folder, url=f"sqlite:///{self.folder}/a.db", databases=other, **lines)

    def prove(self, engine: Engine) -> None:
        self.proved.append((engine, engine.pool))
        self._prove(engine)
        if len(self.proved) == 1:
            self.meanwhile()

    def open(self) -> list[tuple[bool, int]]:
        """Return of each engine whether it is in use now, and how many connections its pool has."""
        now = (self.db.engine(), self.db.engine("other"))
        return [(engine in now, pool.open) for engine, pool in self.proved]  # type: ignore[attr-defined]  # ours


@pytest.fixture
def proving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proving]:
    made = Proving(tmp_path, monkeypatch)
    with made.db:
        yield made


def test_an_engine_that_only_proved_its_settings_is_closed_after_a_reload(proving: Proving) -> None:
    before = [proving.db.engine(), proving.db.engine("other")]
    proving.write(pool_size=2)
    proving.db.reload()
    assert proving.open() == [(True, 1), (False, 0)]
    assert [engine in before for engine in (proving.db.engine(), proving.db.engine("other"))] == [False, True]


def test_engines_that_were_proved_in_vain_are_closed(proving: Proving) -> None:
    """Another database is opened meanwhile, so that the reload begins again, with engines of its own."""
    proving.db.engine("other")
    proving.meanwhile = proving.db.engine
    proving.write(pool_size=2)
    proving.db.reload()
    assert sorted(proving.open()) == [(False, 0), (False, 0), (True, 1)]


@pytest.mark.parametrize(("first", "second", "file"), [("default", "other", "b.db"), ("other", "default", "a.db")])
def test_an_engine_that_was_proved_before_another_that_fails_is_closed(
    proving: Proving, first: str, second: str, file: str
) -> None:
    """Whether it was to replace one, or only proved its settings."""
    before = [proving.db.engine(first), proving.db.engine(second)]
    (proving.folder / file).mkdir()
    proving.write(pool_size=2)
    with pytest.raises(DBAPIError, match="unable to open database file"):
        proving.db.reload()
    assert proving.open() == [(False, 0), (False, 0)]
    assert [proving.db.engine(first), proving.db.engine(second)] == before


def test_a_database_in_memory_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, url="sqlite://")
    with Registry(tmp_path / "config", profile="production", environ={}) as db:
        with db.transaction() as session:
            session.execute(text("CREATE TABLE kept (id int)"))
        write(tmp_path, url="sqlite://", echo="false")
        db.reload()
        with db.session() as session:
            assert session.execute(text("SELECT count(*) FROM kept")).scalar_one() == 0


def test_a_profile_made_in_code_is_proved_and_its_connections_replaced(server: Server) -> None:
    with Registry.from_profile(Profile(name="code", url=server.url())) as db:
        db.engine().connect().close()
        old = connected(server)
        db.reload()
        wait_until(lambda: not old & connected(server), "the end of the old connections")


def test_a_forked_child_may_reload(db: Registry, server: Server) -> None:
    with db.session() as session:
        session.execute(text("SELECT 1"))
        child = os.fork()
        if child == 0:
            code = 2
            try:
                db.reload()
                with db.session() as own:
                    code = 0 if own.execute(text("SELECT 5")).scalar_one() == 5 else 1
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert session.execute(text("SELECT 6")).scalar_one() == 6


def test_the_engines_of_an_event_loop_are_renewed_too(db: Registry, server: Server, secret: Path) -> None:
    pytest.importorskip("asyncpg" if server.kind == "postgresql" else "asyncmy")

    async def ask(number: int) -> int:
        async with db.async_session() as session:
            return int((await (await session.connection()).execute(text(f"SELECT {number}"))).scalar_one())

    async def main() -> None:
        assert await ask(1) == 1
        old, before = connected(server), db.async_engine()
        async with db.async_session() as running:
            await (await running.connection()).execute(text("SELECT 1"))
            rotate(server, secret, "rotated-4")
            await asyncio.to_thread(db.reload)
            await asyncio.sleep(0)
            assert await ask(2) == 2
            assert (await (await running.connection()).execute(text("SELECT 3"))).scalar_one() == 3
        assert db.async_engine() is not before
        await asyncio.to_thread(wait_until, lambda: not old & connected(server), "the end of the old connections")
        await db.async_dispose()

    asyncio.run(main())
