"""pytest: test databases, sessions that are rolled back, and guards; imports happen at first use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

from dbconfig.integrations.testing.async_fixtures import (
    _anyio_db_committed,
    _anyio_db_engine,
    _anyio_db_override,
    _asyncio_db_committed,
    _asyncio_db_engine,
    _asyncio_db_override,
    async_db_engine,
    async_db_override,
    async_db_session,
    async_db_session_committed,
    databases,
    databases_of,
)
from dbconfig.settings.environment_variables import Environment

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlmodel import Session

    from dbconfig.integrations.testing.checkouts import Checkouts
    from dbconfig.integrations.testing.isolation import Isolation
    from dbconfig.integrations.testing.queries import Queries
    from dbconfig.integrations.testing.testbed import Commits, Setup, Testbed
    from dbconfig.registry.registry import Registry
    from dbconfig.sessions.sessionmaker import AsyncSessionFactory

__all__ = [
    "_anyio_db_committed",
    "_anyio_db_engine",
    "_anyio_db_override",
    "_asyncio_db_committed",
    "_asyncio_db_engine",
    "_asyncio_db_override",
    "async_db_engine",
    "async_db_override",
    "async_db_session",
    "async_db_session_committed",
]

_MARK = (
    "db(*databases, commit=False): the test uses these databases, `default` unless named; its work is rolled "
    "back, or with commit=True committed and removed afterward"
)
_EVERYWHERE = ("_db_mark", "_db_early")  # the fixtures of every test
_watch = pytest.StashKey["Checkouts"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dbconfig", "databases for tests")
    group.addoption("--db-profile", help="the profile that the tests use if ENVIRONMENT is not set")
    group.addoption("--db-reuse", action="store_true", help="keep the databases, and use those of the last run")
    group.addoption("--db-create", action="store_true", help="recreate the databases, even with --db-reuse")
    parser.addini("db_profile", "the profile that the tests use if ENVIRONMENT is not set")
    parser.addini("db_in_place", "use the profile's own databases instead of separate ones", "bool", False)
    parser.addini("db_block_unmarked", "fail a test that uses a database without declaring it", "bool", False)
    parser.addini("db_check_leaks", "fail a test that leaves a connection checked out", "bool", False)


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    # Before conftest.py, which may import an application that reads the profile when it is imported.
    _choose_profile(early_config)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)
    _choose_profile(config)  # if a conftest.py names this plugin, it has been imported only now


def _choose_profile(config: pytest.Config) -> None:
    profile = _named_profile(config)
    if profile and Environment().get("ENVIRONMENT") is None:
        # For the application too, and for the processes that it starts; the shell's value takes precedence.
        patch = pytest.MonkeyPatch()
        patch.setenv("ENVIRONMENT", profile)
        config.add_cleanup(patch.undo)


def _named_profile(config: pytest.Config) -> str:
    named = getattr(config.known_args_namespace, "db_profile", None) or config.getini("db_profile")
    if "#" in str(named):
        raise pytest.UsageError(
            f"db_profile = {named}: pytest reads a comment after a value as part of it; write it on its own line"
        )
    return str(named or "")


# The databases.


@pytest.fixture(scope="session")
def db_registry() -> Registry:
    """The registry under test, `dbconfig.db`. Override this fixture to use another one."""
    from dbconfig import db

    return db


@pytest.fixture(scope="session")
def db_setup() -> Setup | None:
    """A function that creates the tables, given an engine; None creates those of all models. Override it to run
    migrations."""
    return None


@pytest.fixture(scope="session")
def _db_testbed(request: pytest.FixtureRequest, db_registry: Registry, db_setup: Setup | None) -> Iterator[Testbed]:
    from dbconfig.integrations.testing.databases import Options
    from dbconfig.integrations.testing.testbed import opened

    config = request.config
    of_xdist = getattr(config, "workerinput", {})
    options = Options(
        worker=of_xdist.get("workerid", ""),
        run=of_xdist.get("testrunuid", ""),
        reuse=config.getoption("--db-reuse"),
        create=config.getoption("--db-create"),
        in_place=config.getini("db_in_place"),
        chosen=db_registry.profile.name == _named_profile(config),
    )
    with opened(db_registry, options, db_setup) as bed:
        yield bed


@pytest.fixture(scope="session", autouse=True)
def _db_early(request: pytest.FixtureRequest) -> None:
    """Replace the databases before session-scoped fixtures of the application insert rows."""
    item: pytest.Item = request._pyfuncitem
    users = [each for each in request.session.items if _uses_testbed(each)]
    if not users or (item not in users and request.config.getini("db_block_unmarked")):
        return
    # If a folder of tests has its own registry, its databases are created with the first of its tests.
    of = request.session._fixturemanager.getfixturedefs
    if any(of(name, item) != of(name, users[0]) for name in ("db_registry", "db_setup")):
        return
    try:
        bed: Testbed = request.getfixturevalue("_db_testbed")
        bed.fill(bed.needed([name for each in users for name in databases_of(each)]))
    except (Exception, pytest.skip.Exception, pytest.fail.Exception):
        if item in users:
            raise
        # The first test that uses a database raises the same error; this one may not need a database.


@pytest.fixture(scope="session")
def db_engine(_db_testbed: Testbed) -> Engine:
    """The engine of the test database of `default`, with its tables."""
    _require_synchronous(_db_testbed, ("default",), "db_engine")
    return _db_testbed.engine()


# Rolled back.


@pytest.fixture
def _db_isolations(request: pytest.FixtureRequest, _db_testbed: Testbed) -> Iterator[dict[str, Isolation]]:
    from dbconfig.integrations.testing.isolation import Isolation, isolated

    bed, found = _db_testbed, dict[str, Isolation]()
    names = bed.needed(databases(request))
    _require_synchronous(bed, names, "db_session" if "db_session" in request.fixturenames else "db_override")
    with bed.cleaned(names) as commits:
        with ExitStack() as stack:
            for name in names:
                isolation = isolated(bed.factory(name), bed.homes_of(name), lambda name: found[name].connection)
                found[name] = stack.enter_context(isolation)
            # An asynchronous application in its own loop, as in FastAPI's TestClient, uses them as well.
            stack.enter_context(bed.registry.parts.join({name: partial(_join, found, commits, name) for name in names}))
            yield found
        commits.databases |= {name for name, each in found.items() if each.committed}


def _join(found: dict[str, Isolation], commits: Commits, name: str, usual: AsyncSessionFactory) -> Any:
    commits.watch(usual.engine.sync_engine, name)
    return found[name].join(usual)


@pytest.fixture
def db_override(_db_testbed: Testbed, _db_isolations: dict[str, Isolation]) -> Iterator[Registry]:
    """The registry, with its sessions on the test's connection during the test; everything is rolled back."""
    registry = _db_testbed.registry
    with registry.parts.engines.override({name: each.factories() for name, each in _db_isolations.items()}):
        yield registry


@pytest.fixture
def db_session(_db_isolations: dict[str, Isolation], db_override: Registry) -> Iterator[Session]:
    """A session that is rolled back after the test. A commit is a savepoint, which the application sees."""
    with next(iter(_db_isolations.values())).home() as session:
        yield session


# Committed.


@pytest.fixture
def _db_committed(request: pytest.FixtureRequest, _db_testbed: Testbed) -> Iterator[Testbed]:
    for name in _db_testbed.needed(databases(request)):
        _db_testbed.prepare(name)
    yield _db_testbed
    _db_testbed.clean_all()


@pytest.fixture
def db_session_committed(request: pytest.FixtureRequest, _db_committed: Testbed) -> Iterator[Session]:
    """A session that really commits; every row is removed after the test. For threads, and for code with its own
    connections."""
    names = databases(request)
    _require_synchronous(_db_committed, _db_committed.needed(names), "db_session_committed")
    with _db_committed.registry.session(names[0]) as session:
        yield session


def _require_synchronous(bed: Testbed, names: Sequence[str], fixture: str) -> None:
    committed = "" if fixture.endswith("_committed") else ", or @pytest.mark.db(commit=True) for a synchronous test"
    bed.require_synchronous(names, fixture, f"use `async_{fixture}` in a coroutine{committed}")


@pytest.fixture(autouse=True)
def _db_mark(request: pytest.FixtureRequest) -> None:
    """Apply the mark `db` to a test, even if it uses no fixture."""
    if _uses_testbed(request.node):
        request.getfixturevalue("_db_testbed").filled()
    mark = request.node.get_closest_marker("db")
    if mark is None:
        return
    if mark.kwargs.get("commit"):
        request.getfixturevalue("_db_committed")
    elif any(name.startswith("async_db_") for name in request.fixturenames) or _needs_a_loop(request):
        request.getfixturevalue("async_db_override")
    elif not any(name.endswith("_committed") for name in request.fixturenames):
        request.getfixturevalue("db_override")


def _needs_a_loop(request: pytest.FixtureRequest) -> bool:
    """Whether a test is a coroutine with only the mark, whose databases have only an asynchronous driver."""
    if not iscoroutinefunction(getattr(request.node, "obj", None)):
        return False
    bed: Testbed = request.getfixturevalue("_db_testbed")
    return any(bed.only_asynchronous(name) for name in bed.needed(databases(request)))


@pytest.fixture
def db_count_queries() -> Callable[..., AbstractContextManager[Queries]]:
    """Count statements: `with db_count_queries(3):`, or `at_most=3`. A failure lists the statements."""
    from dbconfig.integrations.testing.queries import counted

    return counted


def _uses_testbed(item: pytest.Item) -> bool:
    return "_db_testbed" in getattr(item, "fixturenames", ()) or item.get_closest_marker("db") is not None


# Guards.


def _uses_database(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    own = any(name.startswith(("db_", "_db_", "async_db_")) and name not in _EVERYWHERE for name in names)
    return own or item.get_closest_marker("db") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    block, check = item.config.getini("db_block_unmarked"), item.config.getini("db_check_leaks")
    if not block and not check:
        return (yield)
    from dbconfig.integrations.testing.checkouts import Checkouts

    watch = Checkouts()
    if block and not _uses_database(item):
        watch.refusal = "this test uses a database without declaring it: give it a `db_…` fixture or @pytest.mark.db"
    if check:
        item.stash[_watch] = watch
    try:
        return (yield)
    finally:
        watch.stop()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    # A session-scoped fixture may keep its connection.
    watch = request.node.stash.get(_watch, None) if fixturedef.scope != "function" else None
    watch = watch or (_item_watch(request) if fixturedef.scope != "function" else None)
    if watch is None:
        return (yield)
    watch.noted, before = False, watch.noted
    try:
        return (yield)
    finally:
        watch.noted = before


def _item_watch(request: pytest.FixtureRequest) -> Checkouts | None:
    item = getattr(request, "_pyfuncitem", None)
    return item.stash.get(_watch, None) if item is not None else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    watch = item.stash.get(_watch, None)
    lines = watch.left() if watch is not None else []
    if lines:
        pytest.fail("the test left connections checked out, taken at\n  " + "\n  ".join(lines), pytrace=False)
