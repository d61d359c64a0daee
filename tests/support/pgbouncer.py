"""A private PgBouncer before a private PostgreSQL server."""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from tests.support.folders import short_folder
from tests.support.ports import LOOPBACK, free_port
from tests.support.postgresql import PostgreSQLServer
from tests.support.processes import ServerProcess, chosen_folder, find_program, own, program_in, unprivileged
from tests.support.server import ServerMissing

VARIABLE = "DBCONFIG_TEST_PGBOUNCER"


@dataclass(frozen=True)
class PgBouncer:
    """What a client needs to know; `server` is who stands behind."""

    server: PostgreSQLServer
    host: str
    port: int
    log: Path

    def url(self, drivername: str | None = None) -> str:
        return self.server.url(drivername, host=self.host, port=self.port)


@contextmanager
def pgbouncer(server: PostgreSQLServer, *, mode: str = "transaction", size: int = 2) -> Iterator[PgBouncer]:
    """Run a PgBouncer whose clients share `size` connections to the server's present database.

    Raises:
        ServerMissing: it is not installed.
    """
    base = chosen_folder(VARIABLE)
    found = program_in(base, VARIABLE, "pgbouncer") if base is not None else None
    program = found or find_program("pgbouncer", folders=[Path("/usr/sbin")])
    if program is None:
        raise ServerMissing("PgBouncer is not installed: apt-get install pgbouncer")
    options = unprivileged("postgres")
    port = free_port()
    with ExitStack() as stack:
        folder = short_folder(in_memory=True)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        configuration = _configure(folder, server, port, mode, size)
        own(folder, options)
        log = folder / "log"
        process = ServerProcess.start(
            [program, configuration], folder=folder, log=log, options=options, quick=signal.SIGTERM
        )
        stack.callback(process.kill)
        bouncer = PgBouncer(server, LOOPBACK, port, log)
        _wait(bouncer, process)
        yield bouncer


def _configure(folder: Path, server: PostgreSQLServer, port: int, mode: str, size: int) -> Path:
    (folder / "users").write_text(f'"{server.user}" "{server.password}"\n')
    settings = {
        "listen_addr": LOOPBACK,
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": folder / "users",
        "pool_mode": mode,
        "default_pool_size": size,
        "server_idle_timeout": 5,
        "server_login_retry": 1,  # seconds, not 15, until it connects again to a server that was away
    }
    target = f"host={server.host} port={server.port} password={server.password}"
    lines = ["[databases]", f"* = {target}", "[pgbouncer]", *(f"{key} = {value}" for key, value in settings.items())]
    configuration = folder / "pgbouncer.ini"
    configuration.write_text("\n".join(lines) + "\n")
    return configuration


def _wait(bouncer: PgBouncer, process: ServerProcess) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            psycopg2.connect(bouncer.url("postgresql"), connect_timeout=2).close()
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline or not process.running:
                raise RuntimeError(f"PgBouncer did not start: {error}\n{bouncer.log.read_text()}") from error
            time.sleep(0.05)
        else:
            return
