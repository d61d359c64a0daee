"""Database servers and failing networks as fixtures; a test that needs a server is marked `server`."""

import fcntl
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Protocol, TypeVar, cast
from zlib import crc32

import pytest

from dbconfig.engine import create
from dbconfig.engine.create import ASYNCHRONOUS_FROM
from tests.configs import Project
from tests.once import is_run_once
from tests.support import clock as clocks
from tests.support import servers
from tests.support.folders import have_pytests_in_memory
from tests.support.proxy import Proxy
from tests.support.server import WITHOUT_SERVERS
from tests.support.servers import MariaDBServer, PostgreSQLServer, Server, ServerMissing
from tests.support.workers import fork_workers

AnyServer = TypeVar("AnyServer", bound=Server)


# Hundreds of interpreters are started here, and each would compile dbconfig and rewrite pytest's plugins again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts what runs in the background with Ctrl-C ignored, which all children inherit; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Address(Protocol):
    """What a proxy can stand before: a server, or another proxy."""

    host: str
    port: int


SERVERS_REQUIRED = os.environ.get("REQUIRE_TEST_SERVERS") == "1"
_SERVER_FIXTURES = {"postgresql_server", "mariadb_server", "postgresql", "mariadb", "server"}
_SERVER_NAMES = re.compile("postgresql|psycopg|asyncpg|mysql|mariadb")


# Older versions of SQLAlchemy serve synchronous engines only, and the library says so in these words: the tests that
# meet them, and no others, are skipped there.
# Of a database; the tests with a browser or a Prometheus may be skipped where there is none.
_SERVER_MISSING = re.compile(r"(?:PostgreSQL|MariaDB|MySQL|PgBouncer)\b.* is not installed: apt-get")
_REFUSAL = "asynchronous engines need SQLAlchemy"
_refused = pytest.StashKey[bool]()


@cache  # asked twice by each test, and read from a file
def _asynchronous_is_refused() -> bool:
    return tuple(int(part) for part in version("sqlalchemy").split(".")[:3]) < ASYNCHRONOUS_FROM


@contextmanager
def _noting_a_refusal(item: pytest.Item) -> Iterator[None]:
    """Note whether an asynchronous engine was refused meanwhile: a thread, a task or a command may tell nobody."""
    check = create.check_version

    def noted() -> None:
        item.stash[_refused] = True
        if signal.getsignal(signal.SIGALRM) is _wait_no_longer:
            signal.setitimer(signal.ITIMER_REAL, 1.0)
        check()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "check_version", noted)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    try:
        with _on_the_machine(item), _noting_a_refusal(item) if _asynchronous_is_refused() else nullcontext():
            return (yield)
    finally:
        _forget(item)


def pytest_configure(config: pytest.Config) -> None:
    have_pytests_in_memory()
    # A test that starts its own servers, in a way that no mark shows, is skipped when it does.
    if "not server" in config.option.markexpr:
        os.environ[WITHOUT_SERVERS] = "1"


def _wait_no_longer(number: int, frame: object) -> None:
    pytest.skip(_REFUSAL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """End a test soon after a refusal: it may wait, for half a minute, for what a refused thread or task was to do."""
    if not _asynchronous_is_refused():
        return (yield)
    before = signal.signal(signal.SIGALRM, _wait_no_longer)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[object]) -> None:
    fork_workers(config, len(specs))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cancellations",
        type=int,
        default=200,
        help="random cancellations for each asynchronous driver in tests/asynchronous/test_random_cancellations.py",
    )


def _names_a_server(item: pytest.Item) -> bool:
    return not _SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def _asks_for_a_server(item: pytest.Function) -> bool:
    """Whether a test names a server's fixture, or a parameter says that it or a fixture of ours asks for one."""
    if _names_a_server(item):
        return True
    if not hasattr(item, "callspec") or not _SERVER_NAMES.search(repr(list(item.callspec.params.values()))):
        return False
    information = item._fixtureinfo
    fixtures = [each[-1] for name, each in information.name2fixturedefs.items() if name != _memory.__name__]
    return "request" in information.argnames or any(
        "request" in each.argnames and each.func.__module__.startswith("tests.") for each in fixtures
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # What a run would deselect anyway, each of its processes would read before: a tenth of the collection.
    return True if "not once" in config.option.markexpr and is_run_once(collection_path) else None


_LONG = ("test_struck_tasks.py", "test_support_prototype.py", "test_types.py")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The files of a folder are alike: where several workers have those that mostly wait, the machine is idle, and
        # later it has too much to do. In an order of no meaning, the same each time, they are mixed. At the end all
        # would wait for a test of half a minute.
        items.sort(key=lambda item: (Path(item.location[0]).name not in _LONG, crc32(item.location[0].encode())))
    for item in items:
        if isinstance(item, pytest.Function) and _asks_for_a_server(item):
            item.add_marker("server")
        if is_run_once(item.path):
            item.add_marker("once")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while the tests are collected, of which all stays: that takes a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    # A tenth of a second for each collection that a test asks for is mostly spent on what lives until the end anyway.
    with suppress(ImportError):
        # It asks the collector who refers to the random numbers of its plugins, which after the freeze is nobody.
        import_module("hypothesis")
    gc.collect()
    gc.freeze()


def _told(report: pytest.TestReport) -> bool:
    """Whether a program that the test started printed the refusal."""
    return _REFUSAL in str(report.longrepr)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let no garbage be collected meanwhile.

    A task whose error nobody asked for prints it when it is collected, and Python parses source lines for that. When
    this happens while pytest parses the test's own source, CPython 3.11 raises `SystemError: AST constructor recursion
    depth mismatch`, and the worker ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip without its server a test that needs one; where servers are required, count that as failed."""
    with _uncollected():
        report = yield
    if report.failed and _asynchronous_is_refused() and (item.stash.get(_refused, False) or _told(report)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, _REFUSAL)
    if report.failed and call.excinfo is not None and isinstance(call.excinfo.value, ServerMissing):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, str(call.excinfo.value))
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    needs_one = _names_a_server(item) or _SERVER_MISSING.search(reason) is not None
    if SERVERS_REQUIRED and report.skipped and not hasattr(report, "wasxfail") and needs_one:
        report.outcome = "failed"
        report.longrepr = f"{reason}\nNo test of a database may be skipped here: REQUIRE_TEST_SERVERS is 1."
    return report


@pytest.fixture(autouse=True)
def _memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what the test has forgotten, which warns here and not in another test."""
    yield
    request.node.funcargs.clear()
    gc.collect()


def _forget(item: pytest.Item) -> None:
    """Keep what a test leaves out of collections: caches, and modules that it was the first to import.

    They grow the heap: the collections that asynchronous tests ask for took a third of their time. What belongs to the
    test itself has to be gone, or it stays for ever, engines with all that a fork has to do for each of them. If that
    warns, the next test fails, and says after which one it was found.
    """
    report = sys.unraisablehook

    def named(found: Any) -> None:
        parts = {name: getattr(found, name) for name in ("exc_type", "exc_value", "exc_traceback", "object")}
        report(cast("Any", SimpleNamespace(**parts, err_msg=f"Found after {item.nodeid}")))

    sys.unraisablehook = named
    try:
        gc.collect()
    finally:
        sys.unraisablehook = report
    gc.freeze()


@cache  # opened once: that takes as long as all the rest of it
def _doors(everybodys: Path) -> tuple[IO[str], IO[str]]:
    return (everybodys / "gate").open("w"), (everybodys / "machine").open("w")


@contextmanager
def _on_the_machine(item: pytest.Item) -> Iterator[None]:
    """In a parallel run let a test that is marked `alone` run beside no other."""
    if not hasattr(item.config, "workerinput"):
        yield
        return
    gate, machine = _doors(Path(item.config.option.basetemp).parent)  # the workers' own are in there
    share = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    # Who waits for the machine keeps the gate, or those who share it would never all be out at the same time.
    fcntl.flock(gate, fcntl.LOCK_EX)
    fcntl.flock(machine, share)
    fcntl.flock(gate, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(machine, fcntl.LOCK_UN)


def _running(start: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """Yield a running server; without its programs skip."""
    try:
        server = start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """The PostgreSQL server of this test run; use `postgresql` unless several tests share a database."""
    yield from _running(servers.postgresql)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """The MariaDB server of this test run; use `mariadb` unless several tests share a database."""
    yield from _running(servers.mariadb)


@pytest.fixture
def postgresql(postgresql_server: PostgreSQLServer) -> Iterator[PostgreSQLServer]:
    """The PostgreSQL server with a fresh `database`; whatever the test does to the server is undone."""
    with postgresql_server.fresh_database() as server:
        yield server


@pytest.fixture
def mariadb(mariadb_server: MariaDBServer) -> Iterator[MariaDBServer]:
    """The MariaDB server with a fresh `database`; whatever the test does to the server is undone."""
    with mariadb_server.fresh_database() as server:
        yield server


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each server in turn, with a fresh `database`."""
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def proxy() -> Iterator[Callable[[Address], Proxy]]:
    """Make proxies: `proxy(server)` is a network to the server that can be made to fail; closed after the test."""
    with ExitStack() as stack:
        yield lambda target: stack.enter_context(Proxy(target.host, target.port))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> clocks.Clock:
    """The clock of dbconfig's own modules: `clock.advance(60)` instead of a minute's sleep."""
    return clocks.install(monkeypatch)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)
