"""The address of a database, assembled from its URL, its keys, and PostgreSQL's parameters."""

from __future__ import annotations

from dbconfig.settings import hosts, tls
from dbconfig.settings.keys import Keys, ReplicaKeys
from dbconfig.settings.known_drivers import PORTS, backend_of, family
from dbconfig.settings.url_parsing import DatabaseURL


def compose(settings: Keys) -> DatabaseURL:
    """Return the parts of an address; the password is not read."""
    base = settings.url or DatabaseURL(settings.drivername or "")
    drivername = settings.drivername or base.drivername
    query = {**base.query, **settings.query}
    host, port = settings.host or base.host, settings.port or base.port
    backend = backend_of(drivername) if drivername else ""
    if backend == "postgresql":
        query |= {name: (value,) for name, value in tls.parameters(settings).items()}
    if isinstance(host, str) and host.startswith("/") and backend and family(backend) == "mysql":
        query = {"unix_socket": (host,), **query}  # a file, for which its drivers have their own name
        host = port = None
    if isinstance(host, tuple) and backend == "sqlite":
        host = host[0]  # which is rejected
    if isinstance(host, tuple):
        names, ports = hosts.separated(host, port or PORTS.get(backend, 0))
        query |= {"host": (names,), "port": (ports,)}
        host = port = None
    if backend == "postgresql" and "host" in query and len(hosts.servers(None, None, query, 0)) > 1:
        query |= hosts.with_ports(query, port or PORTS[backend])
        query = {"target_session_attrs": (_wanted(settings),), **query}
    return DatabaseURL(
        drivername,
        settings.username or base.username,
        settings.password or base.password,
        host,
        port,
        settings.database or base.database,
        query,
    )


def _wanted(settings: Keys) -> str:
    """Return which of several servers to use: not the first that answers, since a standby would reject every write."""
    if isinstance(settings, ReplicaKeys):
        return "any"
    # For libpq, a server is not "read-write" if sessions are read-only by default, as our read-only ones are.
    return "primary" if settings.variables.get("default_transaction_read_only") else "read-write"
