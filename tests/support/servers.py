"""Start private PostgreSQL and MariaDB servers from the installed programs."""

from collections.abc import Mapping

from tests.support import mysql
from tests.support.mariadb import MariaDBServer
from tests.support.postgresql import PostgreSQLServer
from tests.support.server import Server, ServerMissing

__all__ = ["MariaDBServer", "PostgreSQLServer", "Server", "ServerMissing", "mariadb", "postgresql"]


def postgresql(
    *, durable: bool = False, tls: bool = False, settings: Mapping[str, object] | None = None
) -> PostgreSQLServer:
    """Return a new PostgreSQL server, running.

    Args:
        durable: write to disk what is committed, as in production; slower.
        tls: offer TLS with the self-signed `certificate`.
        settings: further lines of postgresql.conf.

    Raises:
        ServerMissing: PostgreSQL is not installed.
    """
    return PostgreSQLServer(durable=durable, tls=tls, settings=settings).start()


def mariadb(*, durable: bool = False, tls: bool = False, settings: Mapping[str, object] | None = None) -> MariaDBServer:
    """Return a new MariaDB server, running, or MySQL where the environment asks for it; see `postgresql`.

    Raises:
        ServerMissing: MariaDB is not installed.
    """
    kind = mysql.MySQLServer if mysql.wanted() else MariaDBServer
    return kind(durable=durable, tls=tls, settings=settings).start()
