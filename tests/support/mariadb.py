"""A private MariaDB server."""

import itertools
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from tests.support.processes import chosen_folder, find_program, own, program_in, run, wait_until
from tests.support.server import CONNECT_TIMEOUT, Server, ServerMissing, StopMode

VARIABLE = "DBCONFIG_TEST_MARIADB"
REPLICATOR = "replicator"


class MariaDBServer(Server):
    """A MariaDB server. The socket lets the administrator in without a password; everybody else needs one."""

    kind = "mariadb"
    driver = "mysql"
    admin = "root"
    admin_database = None
    accounts = ("mysql",)
    stop_signals: ClassVar[dict[StopMode, signal.Signals]] = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}
    errors = (pymysql.err.OperationalError,)

    @property
    def socket(self) -> str:
        return str(self.folder / "socket")

    def _find_programs(self) -> dict[str, Path]:
        base = chosen_folder(VARIABLE)
        if base is not None:
            install = program_in(base, VARIABLE, "mariadb-install-db", "mysql_install_db")
            return {"server": program_in(base, VARIABLE, "mariadbd", "mysqld"), "install": install}
        folders = [Path("/usr/sbin"), Path("/usr/local/sbin"), Path("/usr/libexec")]
        server = find_program("mariadbd", "mysqld", folders=folders)
        install = find_program("mariadb-install-db", "mysql_install_db")
        if server is None or install is None:
            raise ServerMissing("MariaDB is not installed: apt-get install mariadb-server")
        return {"server": server, "install": install}

    def _configure(self) -> None:
        settings: dict[str, object] = {
            "datadir": self.data,
            # Several servers that share one lose each other's temporary tables: #sql-temptable-… is not found.
            "tmpdir": self._temporary,
            "socket": self.socket,
            "pid-file": self.folder / "pid",
            "bind-address": self.host,
            "port": self.port,
            "skip-name-resolve": "ON",
            "character-set-server": "utf8mb4",
            "max-connections": 100,
            "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "8M",
            # For `application_name` in `connections`: the only place that keeps what a client calls itself.
            "performance-schema": "ON",
            # Leave the rest to recovery, which is quick on small data; a tidy end costs seconds per restart.
            "innodb-fast-shutdown": 2,
        }
        if not self.durable:
            # What was committed still survives `kill`, though not a power cut: the system has it, if not the disk.
            settings["innodb-flush-log-at-trx-commit"] = 2
        if self.certificate:
            settings |= {"ssl-cert": self.certificate, "ssl-key": self.certificate.with_name("key.pem")}
        else:
            settings["ssl"] = "OFF"  # MariaDB 11.4 and later make a certificate of their own
        lines = [f"{name} = {value}" for name, value in (settings | self._places() | self.settings).items()]
        self._temporary.mkdir(exist_ok=True)
        own(self._temporary, self._options)
        self._configuration.write_text("\n".join(["[mariadbd]", *lines]) + "\n")

    def _places(self) -> dict[str, object]:
        """Return where a server finds its own files that does not lie where it was built for."""
        base = chosen_folder(VARIABLE)
        if base is None:
            return {}
        plugins = next((each for each in base.glob("lib/**/plugin") if each.is_dir()), base / "lib/plugin")
        messages = next(
            (each for each in (base / "share/mariadb", base / "share/mysql") if each.exists()), base / "share"
        )
        return {"basedir": base, "lc-messages-dir": messages, "plugin-dir": plugins}

    def _install(self) -> None:
        self._configure()
        defaults, data = f"--defaults-file={self._configuration}", f"--datadir={self.data}"
        base = chosen_folder(VARIABLE)
        # The quick end of "innodb-fast-shutdown" would leave the new files unusable.
        command: list[str | Path] = [
            self._programs["install"],
            defaults,
            data,
            *([f"--basedir={base}"] if base is not None else []),
            "--skip-test-db",
            "--innodb-fast-shutdown=1",
        ]
        run([*command, "--auth-root-authentication-method=normal"], folder=self.folder, options=self._options)

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def _configuration(self) -> Path:
        return self.folder / "my.cnf"

    def _command(self) -> Sequence[str | Path]:
        return [self._programs["server"], f"--defaults-file={self._configuration}"]

    def _connect(self, database: str | None) -> Any:
        # Without TLS: preparing it takes twenty times as long as all the rest.
        connection = pymysql.Connection(
            user=self.admin, database=database, autocommit=True, ssl_disabled=True, defer_connect=True
        )
        # A socket of our own: the driver does not close its own one if it cannot connect, and a test run that turns
        # warnings into errors ends there.
        plug = socket.socket(socket.AF_UNIX)
        try:
            plug.settimeout(CONNECT_TIMEOUT)
            plug.connect(self.socket)
            connection.connect(plug)
        except OSError as error:
            plug.close()
            raise pymysql.err.OperationalError(str(error)) from error
        except pymysql.err.Error:
            plug.close()
            raise
        return connection

    def _is_lost(self, connection: Any, error: Exception) -> bool:
        return not connection.open

    def _furnish(self) -> None:
        # Nobody comes in over TCP without a password.
        open_to_all = (
            "SELECT user, host FROM mysql.global_priv WHERE user = '' OR user = 'root' AND host <> 'localhost'"
        )
        for name, host in self._administrate(open_to_all):
            self._administrate(f"DROP USER {account(name, host)}")
        self._administrate(f"CREATE USER {account(self.user)} IDENTIFIED BY {text(self.password)}")
        self._create_database(self.database)
        # So that the copies have nothing to recover.
        self._administrate("SET GLOBAL innodb_fast_shutdown = 1")

    def _create_database(self, name: str) -> None:
        self._administrate(f"CREATE DATABASE {_backtick(name)}")
        self._grant(name, self.user)

    def _grant(self, database: str, user: str) -> None:
        # In a grant the name of a database is a pattern.
        pattern = _backtick(database.replace("_", r"\_").replace("%", r"\%"))
        self._administrate(f"GRANT ALL ON {pattern}.* TO {account(user)}")

    def drop_database(self, name: str) -> None:
        # An open transaction's metadata locks would make DROP wait for it.
        inside = {row[0] for row in self._clients() if row[3] == name}
        for number in inside:
            self._terminate(number)
        wait_until(lambda: not inside & {row[0] for row in self._clients()}, "the end of terminated connections")
        self._administrate(f"DROP DATABASE IF EXISTS {_backtick(name)}")

    def _create_user(self, name: str, password: str) -> None:
        self._administrate(f"CREATE USER {account(name)} IDENTIFIED BY {text(password)}")
        self._grant(self.database, name)

    def _drop_user(self, name: str) -> None:
        self._administrate(f"DROP USER IF EXISTS {account(name)}")

    def _set_password(self, user: str, password: str) -> None:
        self._administrate(f"ALTER USER {account(user)} IDENTIFIED BY {text(password)}")

    def _clients(self) -> list[tuple[Any, ...]]:
        query = f"""
            SELECT p.id, p.user, a.attr_value, p.db FROM information_schema.processlist AS p
            LEFT JOIN performance_schema.session_connect_attrs AS a
                ON a.processlist_id = p.id AND a.attr_name = 'program_name'
            WHERE p.user NOT IN ('{self.admin}', 'system user', 'event_scheduler', 'unauthenticated user')
            ORDER BY p.id
        """
        # Asked on a new connection: by when that is made, a client that has just left is no longer listed.
        return self._run(query, self.admin_database)

    def connections(self, *, application_name: str | None = None, user: str | None = None) -> list[int]:
        return [
            number
            for number, owner, name, _ in self._clients()
            if application_name in (None, name) and user in (None, owner)
        ]

    def _terminate(self, backend: int) -> bool:
        try:
            self._administrate(f"KILL {backend}")
        except pymysql.err.OperationalError:
            return False  # "Unknown thread id": it has just ended
        return True

    def replica(self, *, delay: int = 0, settings: Mapping[str, object] | None = None) -> "MariaDBReplica":
        """Return a new server, running, that follows this one and only reads; `close` it after use.

        This server is restarted for it: its clients lose their connections.

        Args:
            delay: let it lag by so many seconds.
            settings: further lines of its my.cnf.
        """
        replica = MariaDBReplica(self, delay=delay, settings=settings)
        self.settings |= {"log-bin": "binlog", "server-id": 1}
        self._configure()
        self.stop()
        shutil.copytree(self.data, replica.data)
        self.start()
        self._administrate("RESET MASTER")  # the copy begins where the log begins
        self._administrate(f"CREATE OR REPLACE USER {account(REPLICATOR)} IDENTIFIED BY {text(self.password)}")
        self._administrate(f"GRANT REPLICATION SLAVE ON *.* TO {account(REPLICATOR)}")
        replica.start()
        replica.follow()
        return replica


class MariaDBReplica(MariaDBServer):
    """A copy that follows its primary's binary log."""

    _server_ids = itertools.count(2)  # of two with the same the primary serves one

    def __init__(self, primary: MariaDBServer, *, delay: int = 0, settings: Mapping[str, object] | None = None) -> None:
        own_settings = {"server-id": next(self._server_ids), "read-only": "ON", "relay-log": "relay"}
        super().__init__(durable=primary.durable, settings=own_settings | dict(settings or {}))
        self.primary = primary
        self.delay = delay
        self.user, self.password, self.database = primary.user, primary.password, primary.database

    def _prepare(self) -> None:
        self._configure()  # the data has been copied

    def follow(self) -> None:
        """Begin to follow the primary; each later start resumes it."""
        source = f"master_host = '{self.primary.host}', master_port = {self.primary.port}"
        account = f"master_user = '{REPLICATOR}', master_password = {text(self.password)}"
        start = f"master_log_file = 'binlog.000001', master_log_pos = 4, master_delay = {self.delay}"
        self._administrate(f"CHANGE MASTER TO {source}, {account}, {start}, master_connect_retry = 1, master_ssl = 0")
        self._administrate("START SLAVE")

    def catch_up(self) -> None:
        """Wait until all that is committed on the primary now can be read here."""
        file, position = self.primary.sql("SHOW MASTER STATUS")[0][:2]
        question = f"SELECT master_pos_wait('{file}', {position}, 0.1) >= 0"
        wait_until(lambda: self._administrate(question) == [(1,)], "the replica")


def _backtick(name: str) -> str:
    """Quote an identifier."""
    return "`" + name.replace("`", "``") + "`"


def account(user: str, host: str = "%") -> str:
    """Quote a user; by default the one who may come from anywhere."""
    return f"{_backtick(user)}@{_backtick(host)}"


def text(value: str) -> str:
    """Quote a string."""
    return "'" + value.replace("\\", r"\\").replace("'", "''") + "'"
