"""PostgreSQL's errors: which are transient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dbconfig.engine.dialects.driver_protocol import Fate

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final[Mapping[str, Fate]] = {
    "40001": Fate.CONFLICT,  # serialization_failure
    "40P01": Fate.CONFLICT,  # deadlock_detected
    "55P03": Fate.CONFLICT,  # lock_not_available: lock_timeout, NOWAIT
    "25006": Fate.LOST,  # read_only_sql_transaction: this was the primary once; the pool leaves it
    "57P01": Fate.LOST,  # admin_shutdown, pg_terminate_backend
    "57P02": Fate.LOST,  # crash_shutdown
    "57P03": Fate.ABSENT,  # cannot_connect_now: starting up, in recovery
    "57P05": Fate.LOST,  # idle_session_timeout
    "25P03": Fate.LOST,  # idle_in_transaction_session_timeout
    "53300": Fate.ABSENT,  # too_many_connections
}


# psycopg2 and psycopg give no SQLSTATE when a connection cannot be made, only the text of libpq and of the server.
_HEALING: Final = (
    "connection refused",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "not accepting connections",
    "too many clients",
    "too many connections",
    "remaining connection slots are reserved",
    "timeout expired",
    "timed out",
    "could not translate host name",
    "name or service not known",
    "temporary failure in name resolution",
    "no route to host",
    "network is unreachable",
    "connection reset",
    "server closed the connection unexpectedly",
    "no such file or directory",  # the socket of a server that is not up
    "session is read-only",  # target_session_attrs: no primary yet
    "session is not read-only",
)
