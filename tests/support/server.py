"""A private database server: own files, own loopback port, to be stopped, paused, killed and restarted."""

import atexit
import inspect
import itertools
import os
import shutil
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

from tests.support.folders import short_folder
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import ServerProcess, own, run, unprivileged, wait_until
from tests.support.templates import copy_of_template

StopMode = Literal["fast", "immediate"]

CONNECT_TIMEOUT = 10  # seconds; the administrator must not wait for ever for a paused server
_START_TIMEOUT = 60.0  # seconds; a server that recovers from `kill` on a busy machine takes a few


WITHOUT_SERVERS = "TEST_WITHOUT_SERVERS"  # set by a run whose `-m` says "not server"; DBCONFIG_… would be a setting


class ServerMissing(Exception):
    """A database server is not installed, or not wanted; the message says what to install."""


class Server(ABC):
    """A database server of our own, in a folder that `close` removes.

    Nothing is started before `start`. Use `postgresql()` or `mariadb()` to get one that runs.
    """

    kind: ClassVar[str]
    driver: ClassVar[str]  # the scheme of `url`
    admin: ClassVar[str]
    admin_database: ClassVar[str | None]
    accounts: ClassVar[tuple[str, ...]]  # whom to run as when we are root
    stop_signals: ClassVar[dict[StopMode, signal.Signals]]
    errors: ClassVar[tuple[type[Exception], ...]]  # what connecting raises while the server is not ready

    def __init__(
        self, *, durable: bool = False, tls: bool = False, settings: Mapping[str, object] | None = None
    ) -> None:
        self.durable = durable
        self.settings = dict(settings or {})
        self.host = LOOPBACK
        self.port = free_port()
        self.user = "app"
        self.password = "app-secret"
        self.database = "app"
        self.certificate: Path | None = None
        self._programs = self._find_programs()
        if os.environ.get(WITHOUT_SERVERS) == "1":
            raise ServerMissing("this run is without servers")
        self._options = unprivileged(*self.accounts)
        self._numbers = itertools.count(1)
        self._process: ServerProcess | None = None
        self._guests: list[str] = []  # users made by a test
        self._password_changed = False
        self._kept: dict[int, Any] = {}  # the administrator's connection of each process
        self._keeping: dict[int, threading.RLock] = {}
        self._owner = os.getpid()
        self.folder = short_folder(in_memory=not durable)
        self.log = self.folder / "log"
        self.data = self.folder / "data"
        if tls:
            self.certificate = self.folder / "certificate.pem"
        self._prepared = False
        atexit.register(self.close)

    # What differs between the servers.

    @property
    @abstractmethod
    def socket(self) -> str: ...

    @abstractmethod
    def _find_programs(self) -> dict[str, Path]: ...

    @abstractmethod
    def _install(self) -> None:
        """Make a data directory as the server's own program makes it."""

    @abstractmethod
    def _configure(self) -> None:
        """Write the configuration; one that is there already is replaced."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _connect(self, database: str | None) -> Any:
        """Return a new connection of the administrator in autocommit mode."""

    @abstractmethod
    def _furnish(self) -> None:
        """Make what each server of this kind has, such as the application's user."""

    @abstractmethod
    def _create_database(self, name: str) -> None: ...

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Drop a database, also if clients are connected to it."""

    @abstractmethod
    def _create_user(self, name: str, password: str) -> None: ...

    @abstractmethod
    def _drop_user(self, name: str) -> None: ...

    @abstractmethod
    def _set_password(self, user: str, password: str) -> None: ...

    @abstractmethod
    def connections(self, *, application_name: str | None = None, user: str | None = None) -> list[int]:
        """Return the server's own numbers of the clients' connections, without the administrator's."""

    @abstractmethod
    def _terminate(self, backend: int) -> bool: ...

    # Life.

    def start(self) -> Self:
        """Start the server and wait until it answers; do nothing if it runs already."""
        if self.running:
            return self
        if self._process is not None:
            self._process.kill()  # it has ended; its watchdog and its orphans may not have
            self._process = None
        first = not self._prepared
        try:
            if first:
                own(self.folder, self._options)
                if self.certificate:
                    self._make_certificate(self.certificate)
                self._prepare()
                own(self.folder, self._options)
                self._prepared = True
            self._launch()
        except BaseException:
            if first:
                self.close()
            raise
        return self

    def _prepare(self) -> None:
        """Make the data directory and its configuration."""
        programs = [(path, path.stat().st_mtime_ns) for path in self._programs.values()]
        identity = (programs, self._options, inspect.getsource(sys.modules[type(self).__module__]))
        copy_of_template(self.kind, repr(identity), self._make_template, self.data)
        self._configure()

    @classmethod
    def _make_template(cls, target: Path) -> None:
        maker = cls()  # without the settings of the server for which a template is wanted
        try:
            own(maker.folder, maker._options)
            maker._install()
            maker._configure()
            own(maker.folder, maker._options)
            maker._launch()
            maker._furnish()
            maker.stop()
            shutil.copytree(maker.data, target)
        finally:
            maker.close()

    def _launch(self) -> None:
        self._process = ServerProcess.start(
            self._command(),
            folder=self.folder,
            log=self.log,
            options=self._options,
            quick=self.stop_signals["immediate"],
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} did not start; the end of its log:\n{self.log_tail()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self._connect(self.admin_database).close()
        except self.errors:
            return False
        return True

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise RuntimeError(f"the {self.kind} server is stopped")
        return self._process

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop in order ("fast") or without saying good-bye to the clients ("immediate")."""
        if self._process is not None:
            self._process.stop(self.stop_signals[mode])
            self._process = None

    def restart(self, mode: StopMode = "fast", down: float = 0.0) -> None:
        """Stop, stay down for `down` seconds, and start on the same port."""
        self.stop(mode)
        time.sleep(down)
        self.start()

    def kill(self) -> None:
        """End all its processes with SIGKILL; `start` then recovers as after a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def pause(self) -> None:
        """Let the server stand still: its sockets stay open, the kernel accepts connections, nothing answers."""
        self._running().pause()

    def resume(self) -> None:
        self._running().resume()

    def heal(self) -> None:
        """Have the server run and answer, whatever a test did to it."""
        if self._process is not None and self._process.paused:
            self.resume()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its files."""
        if os.getpid() != self._owner:
            return  # a forked child leaves through atexit too; the server is its parent's
        atexit.unregister(self.close)
        self._let_go()
        self.stop("immediate")  # not `kill`: PostgreSQL has shared memory to give back
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    # Use.

    def url(
        self,
        drivername: str | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        host: str | None = None,
        port: int | None = None,
    ) -> str:
        """Return a URL with everything escaped; `host` and `port` may be those of a proxy."""
        given = (user or self.user, self.password if password is None else password, database or self.database)
        name, secret, base = (quote(part, safe="") for part in given)
        return f"{drivername or self.driver}://{name}:{secret}@{host or self.host}:{port or self.port}/{base}"

    def sql(self, statement: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in autocommit, and return its rows."""
        return self._run(statement, database or self.database)

    def _administrate(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on a connection that is kept: making one takes longer than most statements.

        It is not in `database`, which may have been dropped, or be about to be.
        """
        process = os.getpid()  # a forked child has a connection of its own
        with self._keeping.setdefault(process, threading.RLock()):
            kept = self._kept.get(process)
            if kept is not None:
                try:
                    return _rows(kept, statement)
                except Exception as error:
                    if not self._is_lost(kept, error):
                        raise
                    self._let_go()  # the server has ended it, or was restarted
            kept = self._kept[process] = self._connect_keeper()
            return _rows(kept, statement)

    def _let_go(self) -> None:
        kept = self._kept.pop(os.getpid(), None)
        if kept is not None:
            with suppress(Exception):
                kept.close()

    def without_administrator(self) -> Self:
        """Close the connection of the administrator, for a test that counts all there are."""
        self._let_go()
        return self

    def _connect_keeper(self) -> Any:
        return self._connect(self.admin_database)

    @abstractmethod
    def _is_lost(self, connection: Any, error: Exception) -> bool:
        """Whether an error says that a connection has ended."""

    def _run(self, statement: str, database: str | None) -> list[tuple[Any, ...]]:
        with closing(self._connect(database)) as connection:
            return _rows(connection, statement)

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database for the application's user and return its name, a new one if none is given."""
        name = name or f"test_{next(self._numbers)}"
        self._create_database(name)
        return name

    def _take_empty_database(self) -> str:
        return self.create_database()

    def _give_back(self, name: str) -> None:
        """End what a test has left in a database, and the database unless it is as it was when it was taken."""
        self.drop_database(name)

    def create_user(self, name: str, password: str) -> None:
        """Create a user who may do in the present database what the application's user may."""
        self._create_user(name, password)
        self._guests.append(name)

    def set_password(self, user: str, password: str) -> None:
        self._set_password(user, password)
        self._password_changed |= user == self.user

    @contextmanager
    def fresh_database(self) -> Iterator[Self]:
        """Let `database` be an empty one for a while; afterwards the server runs and is as it was before."""
        usual = self.database
        self.heal()
        self.database = self._take_empty_database()
        try:
            yield self
        finally:
            self.heal()
            self._give_back(self.database)
            self.database = usual
            for name in self._guests:
                self._drop_user(name)
            self._guests.clear()
            if self._password_changed:
                self._set_password(self.user, self.password)
                self._password_changed = False

    def terminate(self, backend: int | None = None) -> int:
        """End one client connection, or all, wait until the server has let go of them, and return how many."""
        ended = [number for number in ([backend] if backend else self.connections()) if self._terminate(number)]
        wait_until(lambda: not any(map(self._serves, ended)), "the end of terminated connections")
        return len(ended)

    def _serves(self, backend: int) -> bool:
        """Is the connection still open at this end?"""
        return backend in self.connections()

    def _make_certificate(self, certificate: Path) -> None:
        key = certificate.with_name("key.pem")
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        request = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", names]
        # Made in 5 ms; a key of RSA takes 170.
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command: list[str | Path] = ["openssl", *request, *curve, "-keyout", key, "-out", certificate]
        run(command, folder=self.folder, options=self._options)
        key.chmod(0o600)


def _rows(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
