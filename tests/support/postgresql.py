"""A private PostgreSQL server."""

import base64
import hashlib
import hmac
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psycopg2

from tests.support.ports import LOOPBACK
from tests.support.processes import chosen_folder, descendants, find_program, program_in, run, wait_until
from tests.support.server import CONNECT_TIMEOUT, Server, ServerMissing, StopMode

VARIABLE = "DBCONFIG_TEST_POSTGRESQL"
# Of the hashing of a password. Each connection repeats it, and with the 4096 of PostgreSQL a client takes longer for it
# than for all the rest of connecting.
_ITERATIONS = 1
_SETTINGS = "dbconfig.conf"  # beside postgresql.conf, which stays as initdb writes it


class PostgreSQLServer(Server):
    """A PostgreSQL server. TCP asks for passwords (SCRAM); the socket trusts the administrator alone."""

    kind = "postgresql"
    driver = "postgresql"
    admin = "postgres"
    admin_database = "postgres"
    accounts = ("postgres",)
    stop_signals: ClassVar[dict[StopMode, signal.Signals]] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
    errors = (psycopg2.OperationalError,)

    def __init__(
        self, *, durable: bool = False, tls: bool = False, settings: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(durable=durable, tls=tls, settings=settings)
        self._taken: dict[str, int] = {}  # the databases of tests, and what was the next transaction then
        self._untouched: list[str] = []  # those in which nobody has written

    @property
    def socket(self) -> str:
        return str(self.folder)

    def _find_programs(self) -> dict[str, Path]:
        base = chosen_folder(VARIABLE)
        if base is not None:
            return self._beside(program_in(base, VARIABLE, "initdb"))
        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
        initdb = find_program("initdb", folders=installed[::-1])
        if initdb is None:
            raise ServerMissing("PostgreSQL is not installed: apt-get install postgresql")
        return self._beside(initdb)

    @staticmethod
    def _beside(initdb: Path) -> dict[str, Path]:
        return {name: initdb.with_name(name) for name in ("initdb", "postgres", "pg_basebackup")}

    def _install(self) -> None:
        options = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", f"--username={self.admin}"]
        command: list[str | Path] = [self._programs["initdb"], *options, "-D", self.data]
        run(command, folder=self.folder, options=self._options)
        access = [
            f"local all {self.admin} trust",
            f"local replication {self.admin} trust",
            "local all all scram-sha-256",
            f"host all all {LOOPBACK}/32 scram-sha-256",
        ]
        (self.data / "pg_hba.conf").write_text("\n".join(access) + "\n")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"include '{_SETTINGS}'\n")

    def _configure(self) -> None:
        settings: dict[str, object] = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.socket,
            "max_connections": 100,
            "shared_buffers": "16MB",
            # In the data directory, so that nothing is left behind when all the processes are killed.
            "dynamic_shared_memory_type": "mmap",
            "max_prepared_transactions": 10,
            "autovacuum": "off",  # no database here grows old
            "wal_retrieve_retry_interval": "100ms",  # a standby finds its primary again soon after a restart
            "password_encryption": "scram-sha-256",
        }
        if self._version >= 13:
            # A standby that several tests share may be late on a busy machine, and could never read what is gone.
            settings["wal_keep_size"] = "128MB"
        if not self.durable:
            # What was committed still survives `kill`, though not a power cut: the system has it, if not the disk.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        if self.certificate:
            settings |= {"ssl": "on", "ssl_cert_file": self.certificate}
            settings |= {"ssl_key_file": self.certificate.with_name("key.pem")}
        lines = [f"{name} = '{value}'" for name, value in (settings | self.settings).items()]
        (self.data / _SETTINGS).write_text("\n".join(lines) + "\n")

    def _command(self) -> Sequence[str | Path]:
        return [self._programs["postgres"], "-D", self.data]

    def _connect(self, database: str | None) -> Any:
        connection = psycopg2.connect(
            host=self.socket, port=self.port, user=self.admin, dbname=database, connect_timeout=CONNECT_TIMEOUT
        )
        connection.autocommit = True
        return connection

    def _furnish(self) -> None:
        self._administrate(f"CREATE ROLE {_double(self.user)} LOGIN PASSWORD {_hashed(self.password)}")
        # In the template, so that the application may use in any database what a test creates there through `sql`.
        for kind in ("TABLES", "SEQUENCES", "SCHEMAS"):
            rights = f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO {_double(self.user)}"
            self._run(rights, "template1")
        # Most tests have a database of their own, a copy of these 300 files. It costs a fifth less without the
        # comments, the statistics, and the maps of free space.
        for statement in ("DELETE FROM pg_description", "DELETE FROM pg_statistic", "VACUUM FULL"):
            self._run(statement, "template1")
        self._create_database(self.database)

    def _create_database(self, name: str) -> None:
        # Without syncing, copying the files of the template takes a fifth of the time of writing them to the WAL.
        quick = "" if self.durable or self._version < 15 else " STRATEGY file_copy"
        self._administrate(f"CREATE DATABASE {_double(name)} OWNER {_double(self.user)}{quick}")

    @property
    def _version(self) -> int:
        return int((self.data / "PG_VERSION").read_text())

    def drop_database(self, name: str) -> None:
        self._administrate(f"DROP DATABASE IF EXISTS {_double(name)} WITH (FORCE)")

    def _take_empty_database(self) -> str:
        name = self._untouched.pop() if self._untouched else self.create_database()
        self._taken[name] = self._number_of_next_transaction()
        return name

    def _give_back(self, name: str) -> None:
        # To drop a database and to create another one takes 30 ms, as long as most tests of one.
        inside = f"FROM pg_stat_activity WHERE datname = {_literal(name)} AND backend_type = 'client backend'"
        self._administrate(f"SELECT pg_terminate_backend(pid) {inside}")
        wait_until(lambda: not self._administrate(f"SELECT pid {inside}"), "the end of terminated connections")
        if self._number_of_next_transaction() == self._taken.pop(name):
            self._untouched.append(name)
        else:
            self.drop_database(name)

    def _number_of_next_transaction(self) -> int:
        """Return what is the same as before only if nobody has written anything in between, in whatever database.

        A transaction is given its number when it first writes.
        """
        return int(self._administrate("SELECT age('3'::xid)")[0][0])

    def _connect_keeper(self) -> Any:
        # What a new database has of `template1` includes the cache of its catalog, which the first connection to
        # `template1` since the start of the server writes; without it the first one to each database would.
        self._run("SELECT 1", "template1")
        return super()._connect_keeper()

    def _is_lost(self, connection: Any, error: Exception) -> bool:
        # `connection.closed` is 0 yet after "server closed the connection unexpectedly", a bare DatabaseError.
        return isinstance(error, psycopg2.Error) and (error.pgcode is None or isinstance(error, self.errors))

    def _create_user(self, name: str, password: str) -> None:
        role = f"CREATE ROLE {_double(name)} LOGIN PASSWORD {_hashed(password)} IN ROLE {_double(self.user)}"
        self._administrate(role)

    def _drop_user(self, name: str) -> None:
        self._administrate(f"DROP ROLE IF EXISTS {_double(name)}")

    def _set_password(self, user: str, password: str) -> None:
        self._administrate(f"ALTER ROLE {_double(user)} PASSWORD {_hashed(password)}")

    def hash_password_as_usual(self) -> None:
        """Have the application's password hashed as PostgreSQL does it, for a driver that demands as much."""
        self._administrate(f"ALTER ROLE {_double(self.user)} PASSWORD {_literal(self.password)}")
        self._password_changed = True

    def connections(self, *, application_name: str | None = None, user: str | None = None) -> list[int]:
        query = "SELECT pid, application_name, usename FROM pg_stat_activity WHERE backend_type = 'client backend'"
        # Asked on a new connection: by when that is made, a client that has just left has gone from the list.
        rows = self._run(
            f"{query} AND usename <> {_literal(self.admin)} ORDER BY backend_start, pid", self.admin_database
        )
        return [pid for pid, name, owner in rows if application_name in (None, name) and user in (None, owner)]

    def _serves(self, backend: int) -> bool:
        # Not as the server lists it: the process leaves the list before it closes the socket.
        return backend in descendants(self.pid)

    def _terminate(self, backend: int) -> bool:
        return bool(self._administrate(f"SELECT pg_terminate_backend({backend})")[0][0])

    def standby(self, *, settings: Mapping[str, object] | None = None) -> "PostgreSQLStandby":
        """Return a new server, running, that follows this one and only reads; `close` it after use.

        Args:
            settings: further lines of its postgresql.conf; recovery_min_apply_delay makes it lag.
        """
        return PostgreSQLStandby(self, settings=settings).start()


class PostgreSQLStandby(PostgreSQLServer):
    """A copy that follows its primary by streaming replication."""

    def __init__(self, primary: PostgreSQLServer, *, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(durable=primary.durable, settings=settings)
        self.primary = primary
        self.user, self.password, self.database = primary.user, primary.password, primary.database

    def _prepare(self) -> None:
        source: list[str | Path] = ["-h", self.primary.socket, "-p", str(self.primary.port), "-U", self.admin]
        quick = ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
        command = [self._programs["pg_basebackup"], *source, *quick, "-D", self.data]
        run(command, folder=self.folder, options=self._options)
        self._configure()

    def catch_up(self) -> None:
        """Wait until all that is committed on the primary now can be read here."""
        ((position,),) = self.primary.sql("SELECT pg_current_wal_lsn()")
        question = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        try:
            # A query on the standby may keep it from going on for 30 s: max_standby_streaming_delay.
            wait_until(lambda: self._administrate(question) == [(True,)], "the standby", timeout=120)
        except TimeoutError as error:
            error.add_note(self.log_tail())
            raise

    def promote(self) -> None:
        """Make it a server of its own, which writes."""
        self._administrate("SELECT pg_promote()")


def _double(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def _hashed(password: str) -> str:
    """Return a password as the server keeps it (RFC 5803), quoted."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client, server = (hmac.digest(salted, label, "sha256") for label in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    return _literal("SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *map(_base64, (salt, stored, server))))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _literal(value: str) -> str:
    """Quote a string."""
    return "'" + value.replace("'", "''") + "'"
