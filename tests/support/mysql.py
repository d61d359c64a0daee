"""A private MySQL server, where `DBCONFIG_TEST_MYSQL` names a folder that has one; it runs in the place of MariaDB."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pymysql

from tests.support import mariadb as my
from tests.support.processes import own, program_in, run, wait_until

VARIABLE = "DBCONFIG_TEST_MYSQL"


def wanted() -> bool:
    """Whether the tests of MariaDB are to run on MySQL."""
    return bool(os.environ.get(VARIABLE))


class MySQLServer(my.MariaDBServer):
    """MySQL 8.4 or newer, from a folder as its archive has it: bin/mysqld, share, lib/plugin."""

    def __init__(
        self, *, durable: bool = False, tls: bool = False, settings: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(durable=durable, tls=tls, settings=settings)
        self._passwords: dict[str, str] = {}

    def _find_programs(self) -> dict[str, Path]:
        return {"server": program_in(self._base, VARIABLE, "mysqld")}

    @property
    def _base(self) -> Path:
        return Path(os.environ[VARIABLE]).resolve()

    def _places(self) -> dict[str, object]:
        base, packaged = self._base, self._base / "share/mysql"
        if not packaged.exists():
            return {"basedir": base, "lc-messages-dir": base / "share", "plugin-dir": base / "lib/plugin"}
        found = {"lc-messages-dir": packaged, "plugin-dir": base / "lib/mysql/plugin"}  # as Debian's packages have it
        return {"basedir": base, "character-sets-dir": packaged / "charsets", **found}

    def _configure(self) -> None:
        super()._configure()
        more: dict[str, object] = {"mysqlx": "OFF", "secure-file-priv": "NULL", "gtid-mode": "ON"}
        # Without a certificate the server would make one, and drivers would encrypt what the tests' proxies look for.
        more |= {"auto-generate-certs": "OFF", "caching-sha2-password-auto-generate-rsa-keys": "OFF"}
        more |= {"enforce-gtid-consistency": "ON"}
        if "server-id" not in self.settings:
            more["server-id"] = 1
        lines = self._configuration.read_text().splitlines()
        kept = [line for line in lines if not line.startswith(("[mariadbd]", "innodb-log-file-size", "ssl ="))]
        self._configuration.write_text("\n".join(["[mysqld]", *kept, *(f"{k} = {v}" for k, v in more.items())]) + "\n")

    def _prepare(self) -> None:
        super()._prepare()
        (self.data / "auto.cnf").unlink(missing_ok=True)  # the UUID, of which no two servers of a group have the same

    def _install(self) -> None:
        self._configure()
        own(self._configuration, self._options)
        command = [*self._command(), "--initialize-insecure", "--innodb-fast-shutdown=1"]
        run(command, folder=self.folder, options=self._options)

    def _furnish(self) -> None:
        self._create_account(self.user, self.password)
        self._create_database(self.database)
        self._administrate("SET GLOBAL innodb_fast_shutdown = 1")

    def _create_account(self, name: str, password: str) -> None:
        self._administrate(f"CREATE USER {my.account(name)} IDENTIFIED BY {my.text(password)}")

    def _create_user(self, name: str, password: str) -> None:
        super()._create_user(name, password)
        self._admit(name, password)

    def _set_password(self, user: str, password: str) -> None:
        super()._set_password(user, password)
        self._admit(user, password)

    def _launch(self) -> None:
        super()._launch()
        for user, password in {self.user: self.password, **self._passwords}.items():
            if self._administrate(f"SELECT 1 FROM mysql.user WHERE user = {my.text(user)}"):
                self._admit(user, password)

    def _admit(self, user: str, password: str) -> None:
        """Log in once over the socket, after which caching_sha2_password needs no encryption until a restart."""
        self._passwords[user] = password
        secret: Any = password.encode()  # as UTF-8; the driver would take Latin-1
        pymysql.connect(unix_socket=self.socket, user=user, password=secret, ssl_disabled=True).close()

    def replica(self, *, delay: int = 0, settings: Mapping[str, object] | None = None) -> MySQLReplica:
        replica = MySQLReplica(self, delay=delay, settings=settings)
        self.settings |= {"log-bin": "binlog", "server-id": 1}
        self._configure()
        self.stop()
        shutil.copytree(self.data, replica.data)
        (replica.data / "auto.cnf").unlink(missing_ok=True)  # its UUID; two servers may not have the same
        self.start()
        self._administrate("RESET BINARY LOGS AND GTIDS")
        self._administrate(f"DROP USER IF EXISTS {my.account(my.REPLICATOR)}")
        self._create_account(my.REPLICATOR, self.password)
        self._administrate(f"GRANT REPLICATION SLAVE ON *.* TO {my.account(my.REPLICATOR)}")
        replica.start()
        replica.follow()
        return replica


class MySQLReplica(my.MariaDBReplica, MySQLServer):
    """A copy that follows its primary by GTIDs."""

    def follow(self) -> None:
        self._administrate("RESET BINARY LOGS AND GTIDS")
        source = f"SOURCE_HOST = '{self.primary.host}', SOURCE_PORT = {self.primary.port}"
        account = f"SOURCE_USER = '{my.REPLICATOR}', SOURCE_PASSWORD = {my.text(self.password)}"
        rest = f"SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_DELAY = {self.delay}"
        rest += ", SOURCE_SSL = 0"  # which 9.7 wants unless told; the primary may have no certificate
        self._administrate(f"CHANGE REPLICATION SOURCE TO {source}, {account}, {rest}, SOURCE_CONNECT_RETRY = 1")
        self._administrate("START REPLICA")

    def catch_up(self) -> None:
        position = self.primary.sql("SELECT @@GLOBAL.gtid_executed")[0][0].replace("\n", "")
        question = f"SELECT GTID_SUBSET('{position}', @@GLOBAL.gtid_executed)"
        wait_until(lambda: self._administrate(question) == [(1,)], "the replica")
