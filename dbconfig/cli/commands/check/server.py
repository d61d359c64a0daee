"""What a server reports over an open connection: version, role, clock, limits, and session variables."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, text

from dbconfig.engine.dialects import driver_protocol
from dbconfig.settings.database import DatabaseSettings


@dataclass(slots=True)
class Server:
    """What was found; None if the server does not report it."""

    version: str = ""
    role: str = ""
    database: str = ""
    encoding: str = ""
    tls: str = ""
    read_only: str = ""
    standby: bool = False
    clock_ahead: float | None = None
    connections_max: int | None = None
    connections_free: int | None = None
    limited_by: str = "max_connections"
    server_free: int | None = None  # for all databases of the server
    role_free: int | None = None  # and of them for the role, where it has a limit
    identity: str = ""  # the same for each database of the server; "" if unknown
    idle_timeout: float | None = None
    idle_timeout_name: str = ""
    pooler: bool = False
    node: str | None = None  # of Galera: its name and state
    nodes: int | None = None  # of its cluster
    sync_wait: int | None = None  # wsrep_sync_wait; an odd number: reads wait until the node has what was committed
    variables: dict[str, str] = field(default_factory=dict)


def look(connection: Connection, settings: DatabaseSettings) -> Server:
    """Return what the server reports about itself."""
    backend = settings.backend
    if backend == "sqlite":
        return _sqlite(connection, settings)
    if settings.is_generic:
        connection.execute(select(1)).scalar_one()
        numbers = connection.dialect.server_version_info or ()
        return Server(" ".join(filter(None, (settings.backend, ".".join(map(str, numbers))))))
    return _postgresql(connection, settings) if backend == "postgresql" else _mysql(connection, settings)


def _row(connection: Connection, sql: str) -> Any:
    return connection.execute(text(sql)).one()


def _clock(connection: Connection, sql: str) -> float:
    begin = time.time()
    theirs = float(connection.execute(text(sql)).scalar_one())
    return theirs - (begin + time.time()) / 2


def _postgresql(connection: Connection, settings: DatabaseSettings) -> Server:
    version, role, database, encoding, standby, read_only, pid = _row(
        connection,
        "SELECT current_setting('server_version'), current_user, current_database(), "
        "current_setting('server_encoding'), "
        "pg_is_in_recovery(), current_setting('transaction_read_only'), pg_backend_pid()",
    )
    found = Server(f"PostgreSQL {version}", role, database, encoding)
    found.standby = bool(standby)
    found.read_only = "it is a standby" if standby else "it is set to read-only" if read_only == "on" else ""
    found.clock_ahead = _clock(connection, "SELECT extract(epoch FROM clock_timestamp())")
    tls = connection.execute(
        text("SELECT version || ', ' || cipher FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()")
    )
    found.tls = tls.scalar_one_or_none() or "no TLS"
    driver: Any = connection.connection.driver_connection
    # A pooler in between gives the driver its own process ID.
    number = driver_protocol.of(connection.dialect).number(driver)
    found.pooler = bool(number != pid)
    _postgresql_limits(connection, found)
    idle = connection.execute(text("SELECT setting FROM pg_settings WHERE name = 'idle_session_timeout'")).scalar()
    found.idle_timeout = int(idle) / 1000 if idle and int(idle) else None
    found.idle_timeout_name = "idle_session_timeout"
    names = {"statement_timeout", "lock_timeout", *settings.variables}
    if settings.idle_in_transaction_timeout is not None:
        names.add("idle_in_transaction_session_timeout")
    for name in sorted(names):
        value = connection.execute(text("SELECT current_setting(:name, true)"), {"name": name}).scalar()
        found.variables[name] = str(value)
    return found


def _postgresql_limits(connection: Connection, found: Server) -> None:
    most, reserved, used, of_role, of_database, mine, here, found.identity = _row(
        connection,
        "SELECT current_setting('max_connections')::int, "
        "(SELECT coalesce(sum(setting::int), 0) FROM pg_settings WHERE name IN "
        "('superuser_reserved_connections', 'reserved_connections')), "
        "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
        "(SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user), "
        "(SELECT datconnlimit FROM pg_database WHERE datname = current_database()), "
        "(SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND backend_type = 'client backend'), "
        "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client "
        "backend'), concat_ws(' ', current_setting('port'), date_part('epoch', pg_postmaster_start_time()))",
    )
    # This check's own connection will be closed.
    limits = [(int(most - reserved - used + 1), "max_connections")]
    limits += [(of_role - mine + 1, "the role's CONNECTION LIMIT")] if of_role >= 0 else []
    limits += [(of_database - here + 1, "the database's CONNECTION LIMIT")] if of_database >= 0 else []
    found.connections_max = most
    found.connections_free, found.limited_by = min(limits)
    found.server_free = limits[0][0]
    found.role_free = of_role - mine + 1 if of_role >= 0 else None


def _mysql(connection: Connection, settings: DatabaseSettings) -> Server:
    version, role, database, encoding, read_only, most, per_user, idle, found_at = _row(
        connection,
        "SELECT @@version, current_user(), database(), @@character_set_connection, @@read_only, @@max_connections, "
        "@@max_user_connections, @@session.wait_timeout, concat_ws(' ', @@hostname, @@port, @@global.server_id)",
    )
    system = "MariaDB" if "MariaDB" in version else "MySQL"
    found = Server(f"{system} {version.partition('-')[0]}", role, database or "", encoding)
    found.read_only = "it is set to read-only" if str(read_only) not in ("0", "OFF") else ""
    found.clock_ahead = _clock(connection, "SELECT UNIX_TIMESTAMP(NOW(6))")
    wanted = "SHOW STATUS WHERE Variable_name IN ('Ssl_version', 'Ssl_cipher', 'Threads_connected')"
    status = {str(row[0]): str(row[1]) for row in connection.execute(text(wanted))}
    found.tls = f"{status['Ssl_version']}, {status['Ssl_cipher']}" if status.get("Ssl_version") else "no TLS"
    found.connections_max = int(most)
    found.identity = str(found_at)
    found.connections_free = found.server_free = int(most) - int(status["Threads_connected"]) + 1
    if int(per_user) and int(per_user) < found.connections_free:
        found.connections_free, found.limited_by = int(per_user), "max_user_connections"
        found.role_free = int(per_user)
    found.idle_timeout, found.idle_timeout_name = float(idle), "wait_timeout"
    _galera(connection, found)
    for name in (*_mysql_limits(settings, system), *sorted(settings.variables)):
        value = connection.execute(
            text(f"SELECT @@session.{name}")
        ).scalar()  # its syntax was checked when the engine was created
        found.variables[name] = str(value)
    return found


def _galera(connection: Connection, found: Server) -> None:
    variables = _shown(connection, "SHOW VARIABLES", "'wsrep_on', 'wsrep_node_name', 'wsrep_sync_wait'")
    if variables.get("wsrep_on", "OFF") == "OFF":
        return
    status = _shown(connection, "SHOW STATUS", "'wsrep_local_state_comment', 'wsrep_cluster_size'")
    found.node = f"{variables['wsrep_node_name']}, {status['wsrep_local_state_comment']}"
    found.nodes = int(status["wsrep_cluster_size"])
    found.sync_wait = int(variables["wsrep_sync_wait"])


def _shown(connection: Connection, command: str, names: str) -> dict[str, str]:
    rows = connection.execute(text(f"{command} WHERE Variable_name IN ({names})"))
    return {str(name): str(value) for name, value in rows}


def _mysql_limits(settings: DatabaseSettings, system: str) -> list[str]:
    """Return the variables that set the profile's time limits."""
    statement = "max_statement_time" if system == "MariaDB" else "max_execution_time"
    names = {
        statement: settings.statement_timeout,
        "innodb_lock_wait_timeout": settings.lock_timeout,
        "idle_transaction_timeout": settings.idle_in_transaction_timeout,
    }
    return [name for name, value in names.items() if value is not None]


def _sqlite(connection: Connection, settings: DatabaseSettings) -> Server:
    version = connection.execute(text("SELECT sqlite_version()")).scalar()
    found = Server(f"SQLite {version}", "", str(settings.path or ":memory:"), "")
    found.encoding = str(connection.exec_driver_sql("PRAGMA encoding").scalar())
    for name in ("foreign_keys", "journal_mode", "synchronous", "busy_timeout", *settings.variables):
        found.variables[name] = str(connection.exec_driver_sql(f"PRAGMA {name}").scalar())
    return found


@dataclass(frozen=True, slots=True)
class Budget:
    """How many connections the pools of all processes may open, and how many the server has free."""

    each: float  # of a pool
    pools: int  # of a process
    processes: int
    free: int

    @property
    def wanted(self) -> float:
        return self.each * self.pools * self.processes

    @property
    def fits(self) -> bool:
        return self.wanted <= self.free

    def sizes(self) -> tuple[int, int] | None:
        """Return the largest pool_size and max_overflow that fit; None if even one connection each is too many."""
        each = self.free // (self.processes * self.pools)
        if each < 1:
            return None
        size = max(1, math.ceil(each / 3))
        return size, each - size


def budget(settings: DatabaseSettings, pools: int, processes: int, free: int) -> Budget:
    """Return the budget of the pools; one without a limit wants infinitely many."""
    if settings.poolclass in ("NullPool", "SingletonThreadPool"):
        return Budget(1, pools, processes, free)
    unlimited = settings.pool_size == 0 or settings.max_overflow == -1
    return Budget(math.inf if unlimited else settings.pool_size + settings.max_overflow, pools, processes, free)
