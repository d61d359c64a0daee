"""One engine per profile and database, from first use to dispose."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import warnings
import weakref
from doctest import DocTestFinder, DocTestRunner
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from dbconfig import ConfigError, Profile, ProfileNotFound, Registry, db
from dbconfig.engine import create
from dbconfig.registry import profiles
from dbconfig.registry import registry as module
from tests import registries
from tests.engine.pool.support import eventually
from tests.registries import Hero, Team, ask, at_once, from_yaml
from tests.support.drivers import DRIVERS, Driver, params


def project(root: Path, **profiles: str) -> Path:
    config = root / "config"
    config.mkdir(exist_ok=True)
    for name, content in profiles.items():
        (config / f"{name}.yaml").write_text(content)
    return config


# First use


def test_nothing_is_read_before_the_first_use_and_the_error_says_what_is_missing(tmp_path: Path) -> None:
    unread = Registry(tmp_path / "none", environ={})
    assert repr(unread) == "<Registry of profile not loaded yet, 0 engines>"
    unread.dispose()
    with pytest.raises(ConfigError, match="does not exist"):
        _ = unread.profile
    project(tmp_path, development="url: sqlite://")
    later = Registry(tmp_path / "config", environ={})
    assert later.profile.name == "development"


def test_the_environment_chooses_the_profile_and_the_argument_overrides_it(tmp_path: Path) -> None:
    config = project(tmp_path, development="url: sqlite:///d.db", testing="url: sqlite://")
    environ = {"ENVIRONMENT": "testing"}
    assert Registry(config, environ=environ).profile.name == "testing"
    assert Registry(config, environ={}).profile.name == "development"
    assert Registry(config, profile="development", environ=environ).profile.name == "development"
    with pytest.raises(ProfileNotFound, match="staging"):
        _ = Registry(config, environ={"ENVIRONMENT": "staging"}).profile


def test_the_default_registry_is_one_for_all() -> None:
    assert db is module.default
    assert isinstance(db, Registry)


def test_a_configuration_that_was_wrong_can_be_mended_without_a_new_process(tmp_path: Path) -> None:
    config = project(tmp_path, development="url: sqlite://\npol_size: 3")
    with Registry(config, environ={}) as opened:
        with pytest.raises(ConfigError, match="pol_size"):
            opened.session()
        project(tmp_path, development="url: sqlite://")
        assert ask(opened, "SELECT 1") == 1


# One engine


def test_a_database_has_one_engine_by_whatever_name_it_is_asked_for(tmp_path: Path) -> None:
    config = project(
        tmp_path,
        development="url: sqlite://\ndatabases: {facts: {url: 'sqlite://'}}",
        testing="url: sqlite://",
    )
    with Registry(config, environ={}) as opened:
        one = opened.engine()
        assert one is opened.engine("default") is opened.engine(profile="development")
        others = {opened.engine("facts"), opened.engine(profile="testing"), one}
        assert len(others) == 3
        assert opened.engine("facts", profile="development") is opened.engine("facts")
        with opened.session("facts") as session, opened.session(profile="testing") as other:
            assert session.get_bind() is opened.engine("facts")
            assert other.get_bind() is opened.engine(profile="testing")
        assert repr(opened) == "<Registry of profile 'development', 3 engines>"


def test_sixty_four_threads_that_ask_first_get_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    build = create.build

    def slowly(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        time.sleep(0.02)
        return build(*args, **kwargs)

    monkeypatch.setattr(create, "build", slowly)
    loads: list[int] = []
    load = profiles.load_lean
    monkeypatch.setattr(profiles, "load_lean", lambda *args, **kwargs: loads.append(1) or load(*args, **kwargs))
    start = threading.Barrier(64)
    with from_yaml(tmp_path, "url: sqlite://\ndatabases: {facts: {url: 'sqlite://'}}") as opened:

        def ask_first(number: int) -> tuple[int, int]:
            start.wait(30)
            if number % 3 == 0:
                session = opened.session()
                return id(session.get_bind()), id(opened.engine("facts"))
            return id(opened.engine(profile="development" if number % 2 else None)), id(opened.engine("facts"))

        found = at_once([lambda number=number: ask_first(number) for number in range(64)])
    assert len(set(found)) == 1
    assert (len(made), len(loads)) == (2, 1)


def test_an_engine_that_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    with from_yaml(tmp_path, "url: postgresql://app@127.0.0.1:1/x\npassword: {file: secret}") as opened:
        for _ in range(2):
            with pytest.raises(ConfigError, match="it does not exist"):
                opened.engine()
        (tmp_path / "secret").write_text("x")
        (tmp_path / "secret").chmod(0o600)
        assert opened.engine() is opened.engine()


def test_an_unknown_database_is_told_with_those_that_exist(tmp_path: Path) -> None:
    with from_yaml(tmp_path, "url: sqlite://\ndatabases: {facts: {url: 'sqlite://'}}") as opened:
        for use in (opened.engine, opened.session, opened.transaction, opened.stats):
            with pytest.raises(ConfigError) as caught:
                use("fact")
            assert "profile 'development' has no database 'fact'" in str(caught.value)
            assert "did you mean 'facts'?" in str(caught.value)
            assert "databases: default, facts" in str(caught.value)


# Its end


def test_a_registry_of_a_profile_keeps_it_over_a_dispose() -> None:
    profile = Profile(name="mine", url="sqlite://")
    with Registry.from_profile(profile) as opened:
        assert opened.profile is profile
        assert opened.engine() is opened.engine(profile="mine")
        opened.dispose()
        assert opened.profile is profile
        assert ask(opened, "SELECT 1") == 1


def test_after_a_dispose_the_files_are_read_again(tmp_path: Path) -> None:
    config = project(tmp_path, development="url: sqlite:///one.db")
    with Registry(config, environ={}) as opened:
        assert opened.engine().url.database == f"{tmp_path}/one.db"
        project(tmp_path, development="url: sqlite:///two.db")
        assert opened.engine().url.database == f"{tmp_path}/one.db"
        opened.dispose()
        assert opened.engine().url.database == f"{tmp_path}/two.db"


def test_threads_that_use_a_registry_while_it_is_disposed_of_notice_nothing(tmp_path: Path) -> None:
    with registries.registry(f"sqlite:///{tmp_path}/lite.db") as opened:
        opened.create_tables(Team, Hero)
        stop = threading.Event()

        def use() -> int:
            count = 0
            while not stop.is_set():
                with opened.transaction() as session:
                    session.add(Hero(name="x"))
                count += 1
            return count

        def dispose() -> int:
            for _ in range(10):
                time.sleep(0.02)
                opened.dispose()
            stop.set()
            return 0

        counts = at_once([use, use, use, dispose])
        assert ask(opened, "SELECT count(*) FROM engine_hero") == sum(counts)
    # A thread that had its session just before a dispose opens a connection of the old engine just after it; that one
    # is closed when it is collected, of which Python 3.13 warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("driver", params(DRIVERS))
@pytest.mark.parametrize("disposed", [True, False], ids=["disposed", "left"])
def test_a_registry_that_is_forgotten_is_collected_with_its_engines(
    driver: Driver, disposed: bool, request: pytest.FixtureRequest
) -> None:
    def used() -> dict[str, weakref.ref[Any]]:
        db = registries.registry(driver.url(request))
        engines = asyncio.run(in_loop(db)) if driver.asynchronous else in_thread(db)
        if disposed:
            db.dispose()
        found = {"registry": weakref.ref(db)}
        for name, engine in engines.items():
            found |= {f"{name} engine": weakref.ref(engine), f"its dialect ({name})": weakref.ref(engine.dialect)}
            found[f"its pool ({name})"] = weakref.ref(engine.pool)
        return found

    def in_thread(db: Registry) -> dict[str, Engine]:
        found = {}
        for name in ("writing", "reading"):
            with db.session(read_only=name == "reading") as session:
                found[name] = session.connection().engine
        return found

    async def in_loop(db: Registry) -> dict[str, Engine]:
        found = {}
        for name in ("writing", "reading"):
            async with db.async_session(read_only=name == "reading") as session:
                found[name] = (await session.connection()).sync_connection.engine
        if disposed:
            await db.async_dispose()
        return found

    known = used()

    def kept() -> list[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of connections that nobody has closed
            gc.collect()
        return [name for name, each in known.items() if each() is not None]

    assert eventually(lambda: not kept()), kept()  # the thread of idle care may hold one for a moment


def test_a_process_ends_in_silence_with_connections_open(tmp_path: Path) -> None:
    script = f"""
import warnings, threading
warnings.simplefilter("error")
from dbconfig import Profile, Registry
from sqlalchemy import text
for url in ("sqlite://", "sqlite:///{tmp_path}/lite.db"):
    db = Registry.from_profile(Profile(name="t", url=url))
    with db.session() as session:
        session.execute(text("SELECT 1"))
    held = db.session()
    held.execute(text("SELECT 1"))
    threading.Thread(target=lambda held=held: threading.Event().wait(), daemon=True).start()
print("done")
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# Examples of its documentation


def test_the_example_of_the_class_runs() -> None:
    names = {"Registry": Registry, "Profile": Profile, "select": select}
    (example,) = DocTestFinder(recurse=False).find(Registry, "Registry", globs=names)
    runner = DocTestRunner()
    runner.run(example)
    assert (runner.failures, runner.tries) == (0, 1)
