"""A project folder with a configuration, and the command line run in it as a person would run it."""

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dbconfig.cli import main
from tests.support import servers
from tests.support.interpreter import run_module
from tests.support.servers import PostgreSQLServer, ServerMissing

# What the commands must not take over from the machine that runs the tests.
_CLEARED = re.compile(r"DBCONFIG_(?!REQUIRE)|ENVIRONMENT$|DATABASE_URL$|NO_COLOR$|FORCE_COLOR$|PG|MYSQL_|CI$|TERM$")


@dataclass(frozen=True)
class Result:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class Project:
    """A folder with `config/`, in which commands are run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def profile(self, text: str, name: str = "development") -> Path:
        return self.write(f"config/{name}.yaml", text)

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", together: bool = False
    ) -> Result:
        """Run a command in this process; `together`: both streams in one text, as on a terminal."""
        out = io.StringIO()
        err = out if together else io.StringIO()
        with self._monkeypatch.context() as patch:
            patch.chdir(self.folder)
            for name in [name for name in os.environ if _CLEARED.match(name)]:
                patch.delenv(name)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.setattr(sys, "path", [*sys.path])
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = main(list(arguments))
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 1
        return Result(code, out.getvalue(), "" if together else err.getvalue())

    def spawn(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        prefix: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
    ) -> Result:
        """Run a command in a process of its own; with a prefix or options, in an interpreter of its own."""
        kept = {name: value for name, value in os.environ.items() if not _CLEARED.match(name)}
        environ = {**kept, "PYTHONUTF8": "1", **(env or {})}
        if not prefix and not options:
            ended = run_module(["dbconfig", *arguments], folder=self.folder, environ=environ, timeout=120, stdin=stdin)
            return Result(ended.returncode, ended.stdout, ended.stderr)
        done = subprocess.run(
            [*prefix, sys.executable, *options, "-m", "dbconfig", *arguments],
            cwd=self.folder,
            env=environ,
            input=stdin.encode(),
            capture_output=True,
            timeout=120,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def normalised(self, text: str) -> str:
        """Return a text without what differs from run to run: times, ports, paths, versions."""
        text = text.replace(str(self.folder), "/srv/shop")
        text = re.sub(r"answers in \d+\.\d ms", "answers in one ms", text)
        text = re.sub(r"\b\d+\.\d ms", lambda match: " " * (len(match[0]) - 6) + "1.0 ms", text)
        text = re.sub(r"after \d+\.\d s", "after 1.0 s", text)
        text = re.sub(r"(127\.0\.0\.1|localhost|no-such-host\.invalid):(\d{4,5})", r"\1:5432", text)
        text = re.sub(r"\bport (\d{4,5})\b", "port 5432", text)
        text = re.sub(r"PostgreSQL \d+\.\d+( \([^)]*\))?", "PostgreSQL 15.18", text)
        text = re.sub(r"MariaDB \d+\.\d+\.\d+", "MariaDB 10.11.19", text)
        text = re.sub(r"SQLite 3\.\d+\.\d+", "SQLite 3.40.1", text)
        text = re.sub(r"\d+ days (ahead|behind)", r"9208 days \1", text)
        text = re.sub(r"\btest_\d+\b", "shop", text)
        text = re.sub(r"\d+ free of", "97 free of", text)
        text = text.replace("answers in one ms", "answers in 1.0 ms")
        return re.sub(r"/(?:dev/shm|tmp|var)/[\w./-]*certificate\.pem", "/etc/ssl/server.pem", text)


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Project:
    """In a folder whose name is short: a longer one is cut off in errors."""
    return Project(tmp_path_factory.mktemp("p"), monkeypatch)


@pytest.fixture(scope="session")
def tls_postgresql() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL server that lets nobody in without TLS."""
    try:
        server = servers.postgresql(tls=True)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        access = server.data / "pg_hba.conf"
        access.write_text(access.read_text().replace("\nhost all", "\nhostssl all"))
        server.sql("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def standby(postgresql: PostgreSQLServer) -> Iterator[PostgreSQLServer]:
    """A standby of another server: it answers, and rejects writes."""
    with postgresql.standby() as server:
        yield server


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of a web server, not of a database."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def without_network() -> tuple[str, ...]:
    """What to put before a command so that it has no network at all, not even this machine's."""
    prefix = ("unshare", "--map-root-user", "--net")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("unshare cannot cut the network here")
    return prefix


Golden = Callable[[str, str], None]


@pytest.fixture
def golden() -> Golden:
    """Compare a text with the file of a name in tests/cli/golden; UPDATE_GOLDEN=1 writes it."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run the tests with UPDATE_GOLDEN=1 and read what it holds"
        assert text == path.read_text(encoding="utf-8")

    return compare
