"""What can go wrong between this machine and the database, by the stage at which it shows."""

from __future__ import annotations

from typing import Final

from dbconfig.errors.catalogue.entry import Entry

CONNECTIONS: Final[dict[str, Entry]] = {
    # resolve
    "host-unknown": Entry(
        "The host's name cannot be resolved to an address.",
        "url: postgresql://app@db.intrenal/shop",
        "Correct `host`. In compose the host is the name of the service; `localhost` there is the container itself.",
    ),
    # tcp
    "refused": Entry(
        "The machine answers, and nothing listens on the port: the server is down, or listens elsewhere.",
        "url: postgresql://app@127.0.0.1:5433/shop   # it listens on 5432",
        "Start the server, or correct `host` and `port`.",
    ),
    "unreachable": Entry(
        "There is no way to the host's network.",
        "a container without a network",
        "Look at the network: VPN, routes, security groups.",
    ),
    "timed-out": Entry(
        "Nothing answered within the time: a firewall drops the packets, or the server stands still.",
        "a security group that does not let port 5432 through",
        "Look at firewalls and at the load of the server; `connect_timeout` is how long is waited.",
    ),
    "connection-lost": Entry(
        "The other side closed the connection before it was ready: the server was just ending it, or a proxy "
        "without a server behind it.",
        "a load balancer whose servers are all down",
        "Look at the server's log.",
    ),
    "not-a-database": Entry(
        "Something answers, and it is not the database system that the profile names: a web server, another "
        "database, or a file that is no SQLite database.",
        "url: postgresql://app@127.0.0.1:8080/shop",
        "Correct `port` and the scheme of the URL; for SQLite the path of the file.",
    ),
    # tls
    "tls-refused": Entry(
        "The profile asks for TLS, and the server offers none.",
        "query: {sslmode: require}",
        "Switch TLS on at the server, or take the demand out of `query` if the network is trusted.",
    ),
    "tls-required": Entry(
        "The server lets nobody in without TLS, and the profile switched it off.",
        "query: {sslmode: disable}",
        "Take `sslmode: disable` or `ssl_disabled` out of the profile.",
    ),
    "tls-untrusted": Entry(
        "The server's certificate is not signed by the authority that the profile trusts, or is for another "
        "host's name, or has expired.",
        "query: {sslmode: verify-full, sslrootcert: other-ca.pem}",
        "Name the right authority (`sslrootcert`, `ssl_ca`), and the host by the name in the certificate.",
    ),
    # login
    "login-rejected": Entry(
        "The server refuses this user, or this password, or this user from this machine. Servers do not say "
        "which, on purpose.",
        "url: postgresql://app:wrong@db/shop",
        "Look at where user and password come from: `dbconfig show` tells. On the server: pg_hba.conf or the "
        "account's host.",
    ),
    "database-missing": Entry(
        "The server is there and lets the user in, and has no database of this name.",
        "url: postgresql://app@db/shopp",
        "Correct `database`, or create it: CREATE DATABASE.",
    ),
    "database-denied": Entry(
        "The user may log in, and may not use this database or table. MySQL and MariaDB say the same of a "
        "database that does not exist.",
        "url: mysql://reader@db/shop",
        "Grant the right on the server: GRANT … ON shop.* TO …",
    ),
    "too-many-connections": Entry(
        "The server, the database or the user has no free connection left.",
        "40 workers with pool_size 20 on a server with max_connections 100",
        "`dbconfig check --workers N --replicas M` says which sizes fit; PgBouncer shares connections between "
        "processes.",
    ),
    "starting-up": Entry(
        "The server is starting, stopping or recovering, and takes no connections at this moment.",
        "a container that started a second ago",
        "`dbconfig wait` waits for it.",
    ),
    "database-file": Entry(
        "The file of the SQLite database cannot be opened or made.",
        "url: sqlite:////srv/app.db   # and /srv cannot be written",
        "Let the user of the application write the folder: SQLite puts files beside the database.",
    ),
    "connection-failed": Entry(
        "The connection failed for a reason that is none of the known ones; the driver's own words are shown.",
        "an option that this server does not take",
        "Read the driver's message; the server's log usually says more.",
    ),
    "variable-refused": Entry(
        "The server does not know a session variable of `variables`, or refuses its value. Names of time zones need "
        "the time zone tables on MySQL and MariaDB.",
        "variables: {serach_path: shop}",
        "Correct the name or the value; `SHOW VARIABLES` or `SHOW ALL` lists what the server has. Load the time zone "
        "tables with mysql_tzinfo_to_sql, or write an offset such as '+01:00'.",
    ),
    # query and what follows
    "read-only": Entry(
        "The server takes no writes: it is a standby, or was demoted to one, or is set to read only.",
        "url: postgresql://app@replica.internal/shop",
        "Point the profile at the primary; behind several addresses of PostgreSQL `query: {target_session_attrs: "
        "read-write}`.",
    ),
    "missing-table": Entry(
        "A statement names a table that the database does not have: nobody has created it yet, or the profile points "
        "at another database.",
        "session.exec(select(Hero)).all()   # and no create_tables() before",
        "Create it: `db.create_tables()` after importing the models, or `alembic upgrade head`. `dbconfig show` names "
        "the database that is in use.",
    ),
    "busy": Entry(
        "The database answers, and the first query did not end in time or met a lock.",
        "another process holds the SQLite file",
        "Look who holds the lock.",
    ),
    "clock-skew": Entry(
        "The clocks of this machine and of the server differ by more than a second: time stamps made here and "
        "there do not fit.",
        "a virtual machine that slept",
        "Let both follow NTP.",
    ),
    "pool-timeout": Entry(
        "All connections of the pool are in use, and none came back within `pool_timeout`. The notes of the "
        "exception "
        "say who holds them longest, and since which line of the program.",
        "a request that keeps its session open while it waits for another service",
        "Give connections back sooner: a short `with db.session()`. Then look at the sizes: `dbconfig check "
        "--workers N`.",
    ),
    "pool-over-budget": Entry(
        "All processes together may open more connections than the server has free. Under load some requests "
        "would fail with too-many-connections.",
        "pool_size: 20\nmax_overflow: 40   # 8 workers: 480 connections, the server has 97",
        "Take the sizes that the message proposes, or put PgBouncer between.",
    ),
    "pooler-undeclared": Entry(
        "A pooler such as PgBouncer stands before the server, and the profile does not say so. It refuses the startup "
        "options by which time limits and variables are set, and in transaction mode a server connection is another "
        "client's in the next moment, with whatever was set or prepared on it.",
        "url: postgresql://app@pgbouncer:6432/shop\nstatement_timeout: 10s",
        "Write `pgbouncer: true`; it does no harm in session mode.",
    ),
    "recycle-too-late": Entry(
        "The server closes idle connections before `pool_recycle` replaces them: a request gets a dead connection.",
        "pool_recycle: 8h   # MariaDB's wait_timeout is 600 s",
        "Set `pool_recycle` below the server's timeout, or `pool_pre_ping: true`.",
    ),
}
