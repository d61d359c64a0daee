"""Connection failures, in the order of the stages at which they occur."""

from __future__ import annotations

from dbconfig.errors.catalogue.entry import Entry

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from typing import Final

CONNECTIONS: Final[dict[str, Entry]] = {
    # before anything is sent
    "client-setting": Entry(
        (
            "The driver rejects a setting before it connects: an unknown value, a service that no file defines, or a "
            "missing certificate. The setting is in the profile, in a variable such as PGSSLMODE, or in a service "
            "file."
        ),
        "export PGSSLMODE=verify-ful",
        "Correct the value at the place that the message names, or unset the variable.",
    ),
    # resolve
    "host-unknown": Entry(
        "The host name cannot be resolved to an address.",
        "url: postgresql://app@db.intrenal/shop",
        (
            "Correct `host`. In Docker Compose the host is the name of the service; `localhost` there is the "
            "container itself."
        ),
    ),
    # tcp
    "refused": Entry(
        ("The machine answers, but nothing listens on the port: the server is down, or listens on another port."),
        "url: postgresql://app@127.0.0.1:5433/shop   # it listens on 5432",
        "Start the server, or correct `host` and `port`.",
    ),
    "unreachable": Entry(
        "The host is unreachable: the network has no route to it.",
        "a container without a network",
        "Check the network: VPN, routes, security groups.",
    ),
    "timed-out": Entry(
        "Nothing answered in time: a firewall drops the packets, or the server has stalled.",
        "a security group that blocks port 5432",
        "Check firewalls and the load of the server; `connect_timeout` limits the wait.",
    ),
    "connection-lost": Entry(
        (
            "The other side closed the connection during the login: the server was shutting down, or a proxy "
            "has no server behind it."
        ),
        "a load balancer whose servers are all down",
        "Read the server's log.",
    ),
    "not-a-database": Entry(
        (
            "Something answers, but it is not the database system that the profile names: a web server, another "
            "database system, or a file that is not a SQLite database."
        ),
        "url: postgresql://app@127.0.0.1:8080/shop",
        "Correct `port` and the scheme of the URL.",
        on={"sqlite": "Correct the path: the file belongs to another program, or is damaged."},
    ),
    # tls
    "tls-refused": Entry(
        "The profile requires TLS, but the server does not offer it.",
        "sslmode: require",
        "Enable TLS on the server, or write `sslmode: disable` if you trust the network.",
    ),
    "tls-required": Entry(
        "The server accepts TLS connections only, and the profile disables TLS.",
        "sslmode: disable",
        "Remove `sslmode: disable` or `ssl_disabled` from the profile.",
    ),
    "tls-untrusted": Entry(
        (
            "The server's certificate is not signed by an authority that the profile trusts, is issued for "
            "another host name, or has expired."
        ),
        "sslmode: verify-full\nsslrootcert: other-ca.pem",
        "Name the right authority in `sslrootcert`, and the host by the name in the certificate.",
    ),
    # login
    "login-rejected": Entry(
        (
            "The server rejects this user, this password, or this user from this machine. Servers deliberately "
            "do not say which."
        ),
        "url: postgresql://app:wrong@db/shop",
        "Run `dbconfig show` to see where the user and the password come from.",
        on={
            "postgresql": (
                "Run `dbconfig show` to see where the user and the password come from. Check pg_hba.conf on the server."
            ),
            "mysql": (
                "Run `dbconfig show` to see where the user and the password come from. Check the host of the "
                "account on the server: SELECT user, host FROM mysql.user."
            ),
        },
    ),
    "database-missing": Entry(
        "The server accepts the user, but has no database with this name.",
        "url: postgresql://app@db/shopp",
        "Correct `database`, or create it with CREATE DATABASE.",
    ),
    "database-denied": Entry(
        (
            "The user may log in, but may not use this database or table. MySQL and MariaDB give the same "
            "answer for a database that does not exist."
        ),
        "url: mysql://reader@db/shop",
        "Grant the privilege on the server.",
        on={
            "mysql": "Grant the privilege on the server: GRANT … ON shop.* TO …",
            "postgresql": "Grant the privilege on the server: GRANT CONNECT ON DATABASE … TO …, or privileges "
            "on its tables.",
        },
    ),
    "too-many-connections": Entry(
        "The server, the database, or the user has no free connection left.",
        "40 workers with pool_size 20 on a server with max_connections 100",
        (
            "Run `dbconfig check --workers N --replicas M` to see which sizes fit; PgBouncer shares connections "
            "between processes."
        ),
    ),
    "starting-up": Entry(
        "The server is starting, shutting down, or recovering, and does not accept connections yet.",
        "a container that started a second ago",
        "Wait for it with `dbconfig wait`.",
    ),
    "database-file": Entry(
        "The file of the SQLite database cannot be opened or created.",
        "url: sqlite:////srv/app.db   # and /srv is not writable",
        ("Give the user of the application write permission on the folder: SQLite creates files beside the database."),
    ),
    "connection-failed": Entry(
        "The connection failed for an unknown reason; the message shows the driver's own words.",
        "an option that this server does not support",
        "Read the driver's message; the server's log usually says more.",
    ),
    "variable-refused": Entry(
        "The server does not know a session variable of `variables`, or rejects its value.",
        "variables: {serach_path: shop}",
        "Correct the name or the value.",
        on={
            "postgresql": "Correct the name or the value. `SHOW ALL` lists the parameters of the server.",
            "mysql": (
                "Correct the name or the value. `SHOW VARIABLES` lists the variables of the server; names of time "
                "zones need its time zone tables (mysql_tzinfo_to_sql), an offset such as '+01:00' does not."
            ),
        },
    ),
    "no-primary": Entry(
        (
            "Several hosts are configured, but none of them is the primary at the moment: they are standbys, "
            "not ready, or unreachable. The pool keeps looking, as after any failover."
        ),
        "host: [db1.internal, db2.internal]   # while db2 is being promoted",
        "Wait for the failover to end; if it does not, read what the message says about each host.",
    ),
    "read-only-by-default": Entry(
        (
            "The server accepts writes, but every transaction begins read-only: by an attribute of the role or of the "
            "database, a global variable or init_connect of MySQL, or a setting of the client. No other host, and no "
            "retry, would accept a write."
        ),
        "ALTER ROLE app SET default_transaction_read_only = on",
        "Undo it as the message says.",
    ),
    # query and what follows
    "read-only": Entry(
        "The server rejects writes: it is a standby, was demoted to one, or is configured as read-only.",
        "url: postgresql://app@replica.internal/shop",
        ("Point the profile at the primary; if it moves, list all servers: `host: [db1, db2]`."),
        on={
            "sqlite": (
                "Give the user of the application write permission on the file and its folder, and check whether "
                "the volume is mounted read-only."
            ),
            "mysql": "Point the profile at the primary: this server is a replica, or is set to read_only.",
        },
    ),
    "missing-table": Entry(
        "A statement names a table that the database does not have: it was not created yet, or the profile points "
        "at another database.",
        "session.exec(select(Hero)).all()   # and no create_tables() before",
        "Create it: `db.create_tables()` after importing the models, or `alembic upgrade head`. `dbconfig show` names "
        "the database that is in use.",
    ),
    "busy": Entry(
        "The database answers, but the first query did not finish in time, or could not acquire a lock.",
        "another process holds the SQLite file",
        "Find out who holds the lock.",
    ),
    "clock-skew": Entry(
        (
            "The clocks of this machine and of the server differ by more than a second, so timestamps made here "
            "and there do not match."
        ),
        "a virtual machine that slept",
        "Synchronize both with NTP.",
    ),
    "pool-timeout": Entry(
        (
            "Every connection of the pool is in use, and none was returned within `pool_timeout`. The notes of "
            "the exception name the longest holders and the line of the program that checked each one out."
        ),
        "a request that keeps its session open while it waits for another service",
        (
            "Return connections sooner: use a short `with db.session()`. Then check the sizes with `dbconfig "
            "check --workers N`."
        ),
    ),
    "deadline-exceeded": Entry(
        (
            "The time limit of `db.deadline` was exceeded. The message names the operation in progress, and "
            "what the time was spent on. A running statement was cancelled on the server."
        ),
        "with db.deadline(0.5): ...   # and a report that takes two seconds",
        (
            "Reduce the largest share: shorten the statements, return connections sooner if callers wait for "
            "them, or allow more time."
        ),
    ),
    "pool-overloaded": Entry(
        (
            "More callers want connections than the pool can serve. No caller has been served within "
            "`pool_queue_target` for ten times that long, so the pool drops callers that have waited twice as "
            "long, which keeps the wait of the others short."
        ),
        "pool_queue_target: 50ms   # and twice the requests that 10 connections can answer",
        (
            "Answer 503 and let clients retry later; the FastAPI integration does. For more capacity, shorten the use "
            "of each connection, then raise `pool_size`."
        ),
    ),
    "pool-over-budget": Entry(
        (
            "All processes together may open more connections than the server has left. Under load some "
            "requests would fail with too-many-connections."
        ),
        "pool_size: 20\nmax_overflow: 40   # 8 workers: 480 connections, the server has 97",
        "Use the sizes that the message proposes, or put PgBouncer in front of the server.",
    ),
    "pooler-undeclared": Entry(
        (
            "A pooler such as PgBouncer is in front of the server, which the profile does not declare. It rejects "
            "the startup options that set time limits and variables. In transaction mode, each transaction may "
            "use another server connection, with whatever another client has set or prepared on it."
        ),
        "url: postgresql://app@pgbouncer:6432/shop\nstatement_timeout: 10s",
        "Write `pgbouncer: true`; it is harmless in session mode.",
    ),
    "recycle-too-late": Entry(
        (
            "The server closes idle connections before `pool_recycle` replaces them, so that a request gets a "
            "dead connection."
        ),
        "pool_recycle: 8h   # MariaDB's wait_timeout is 600 s",
        "Set `pool_recycle` below the server's timeout, or `pool_pre_ping: true`.",
    ),
}
