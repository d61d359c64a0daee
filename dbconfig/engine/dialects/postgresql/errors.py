"""PostgreSQL's errors and their meanings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dbconfig.engine.dialects.error_table import (
    CLIENT_SETTING,
    CONFLICT,
    CONNECTION_LOST,
    DATABASE_DENIED,
    DATABASE_MISSING,
    HOST_UNKNOWN,
    LOGIN_REJECTED,
    NEVER,
    NO_PRIMARY,
    NOT_A_DATABASE,
    READ_ONLY,
    REFUSED,
    STARTING_UP,
    TABLE_MISSING,
    TIMED_OUT,
    TLS_REFUSED,
    TLS_REQUIRED,
    TLS_UNTRUSTED,
    TOO_MANY,
    TOO_SLOW,
    UNREACHABLE,
    VARIABLE_REFUSED,
    Fate,
    Meaning,
)
from dbconfig.errors.light_dataclass import replace

_UNCERTAIN: Final = Meaning(Fate.UNCERTAIN)
_POOLER: Final = Meaning(Fate.FINAL, "pooler-undeclared", "login")

# By SQLSTATE. Source: https://www.postgresql.org/docs/current/errcodes-appendix.html, and the reason where the name of
# the condition does not say it.
CODES: Final[Mapping[str, Meaning]] = {
    # the server rolled back in favor of another transaction
    "40000": CONFLICT,  # transaction_rollback
    "40001": CONFLICT,  # serialization_failure
    "40P01": CONFLICT,  # deadlock_detected
    "55P03": CONFLICT,  # lock_not_available: lock_timeout, NOWAIT
    # feature_not_supported: "cached plan must not change result type", known by the function that raises it
    "0A000": replace(CONFLICT, only="RevalidateCachedQuery"),
    # COMMIT without an outcome
    "40003": _UNCERTAIN,  # statement_completion_unknown: CockroachDB's "result is ambiguous"
    "08007": _UNCERTAIN,  # transaction_resolution_unknown
    # the connection
    "08000": CONNECTION_LOST,  # connection_exception
    "08003": CONNECTION_LOST,  # connection_does_not_exist
    "08006": CONNECTION_LOST,  # connection_failure
    "08001": REFUSED,  # sqlclient_unable_to_establish_sqlconnection
    "08004": STARTING_UP,  # sqlserver_rejected_establishment_of_sqlconnection
    "57P01": CONNECTION_LOST,  # admin_shutdown, pg_terminate_backend
    "57P02": CONNECTION_LOST,  # crash_shutdown
    "57P03": STARTING_UP,  # cannot_connect_now: starting up, shutting down, in recovery
    "57P04": replace(DATABASE_MISSING, ends=True),  # database_dropped
    "57P05": CONNECTION_LOST,  # idle_session_timeout
    "25P03": CONNECTION_LOST,  # idle_in_transaction_session_timeout
    "25P04": replace(NEVER, ends=True),  # transaction_timeout: the same work would take as long again
    "53300": TOO_MANY,  # too_many_connections
    # login
    "28000": LOGIN_REJECTED,  # invalid_authorization_specification: pg_hba.conf, role does not exist
    "28P01": LOGIN_REJECTED,  # invalid_password
    "3D000": DATABASE_MISSING,  # invalid_catalog_name
    "42P01": TABLE_MISSING,  # undefined_table
    "42501": DATABASE_DENIED,  # insufficient_privilege
    # a session variable
    "42704": VARIABLE_REFUSED,  # undefined_object: no parameter of this name
    "22023": VARIABLE_REFUSED,  # invalid_parameter_value
    "42602": VARIABLE_REFUSED,  # invalid_name
    "55P02": VARIABLE_REFUSED,  # cant_change_runtime_param
    # a transaction that failed before: the earlier error decides
    "25P02": NEVER,  # in_failed_sql_transaction
    "25006": READ_ONLY,  # read_only_sql_transaction: of the server, or of the application's own: pool.failover asks
    "57014": TOO_SLOW,  # query_canceled: statement_timeout
}

# The last resort: libpq gives no SQLSTATE for a failed connection, only its own text and the server's.
# The first matching row applies. Sources: libpq's fe-connect.c and fe-secure-openssl.c, the server's postmaster.c and
# postinit.c, PgBouncer's objects.c and client.c (which is never translated), asyncpg's protocol.pyx.
WORDS: Final = (
    (r'definition of service "|in service file "|too long in service file|nested service spec', CLIENT_SETTING),
    (r'invalid (?:[a-z_]+|"[a-z_]+") value: "|invalid connection option "|invalid integer value "', CLIENT_SETTING),
    (r"`\w+` parameter must be one of|is expected to be one of|No such TLS version", CLIENT_SETTING),
    (r"could not translate host name|Name or service not known|nodename nor servname", HOST_UNKNOWN),
    (r"(?i)temporary failure in name resolution", HOST_UNKNOWN),
    (r"certificate verify failed|server certificate for|root certificate file|certificate file", TLS_UNTRUSTED),
    (r"private key file|no root certificate|SSL error: (?!.*EOF)", TLS_UNTRUSTED),
    (r"(?i)connection refused|no such file or directory|could not connect to server", REFUSED),
    (r"(?i)no route to host|network is unreachable", UNREACHABLE),
    (r"(?i)timeout expired|timed out|connection timeout|query_wait_timeout", TIMED_OUT),
    (r"received invalid response to (?:SSL|GSS)|expected authentication request", NOT_A_DATABASE),
    (r"does not support SSL|does not support GSSAPI|SSL was required|rejected SSL upgrade", TLS_REFUSED),
    (r"no pg_hba\.conf entry[^\n]*(?:no encryption|SSL off)", TLS_REQUIRED),
    (r"too many clients|connection slots are reserved|too many connections|no more connections allowed", TOO_MANY),
    (r"is (?:starting up|shutting down|not yet accepting|in recovery mode)|not accepting connections", STARTING_UP),
    (r"server_login_retry|pgbouncer cannot connect|server login failed|server conn crashed", STARTING_UP),
    (r'database "[^"\n]*" does not exist|no such database', DATABASE_MISSING),
    (r"permission denied for database", DATABASE_DENIED),
    (r"unrecognized configuration parameter|invalid (?:value for|configuration) parameter", VARIABLE_REFUSED),
    (r"permission denied to set parameter|parameter \"[^\"\n]*\" (?:cannot|requires)", VARIABLE_REFUSED),
    (r"authentication failed|no password supplied|no pg_hba\.conf entry", LOGIN_REJECTED),
    (r'role "[^"\n]*" does not exist|is not permitted to log in|no such user', LOGIN_REJECTED),
    (r"session is not read-only|session is read-only|server is (?:not )?in hot standby", NO_PRIMARY),
    (r"unsupported startup parameter", _POOLER),
    (r"(?i)server closed the connection|connection reset|closed unexpectedly|EOF detected", CONNECTION_LOST),
    (r"terminating connection due to|server terminated abnormally|client_login_timeout", CONNECTION_LOST),
    (r"could not (?:receive data from|send data to) server|the connection is (?:closed|lost)", CONNECTION_LOST),
    (r"connection is closed|unexpected connection_lost|closed in the middle of operation", CONNECTION_LOST),
    (r"cannot switch to state|connection already closed|underlying connection is closed", CONNECTION_LOST),
)


def meaning(error: Any) -> Meaning | None:
    """Return what an error of a driver means; None if the table has no row for it."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    text = str(error)
    if isinstance(state, str) and state:
        return of_state(state, f"{text} {_function(error)}")
    return of_words(text)


def of_state(state: str, text: str) -> Meaning | None:
    """Return the row of a SQLSTATE; PgBouncer uses one for all of its errors, so its text decides."""
    if state == "08P01":
        return of_words(text)
    row = CODES.get(state)
    if state == "28000" and "pg_hba.conf" in text:  # a name that is never translated
        row = of_words(text) or row
    return row if row is None or row.valid_for(text) else NEVER


def of_words(text: str) -> Meaning | None:
    return next((found for pattern, found in WORDS if re.search(pattern, text)), None)


def _function(error: Any) -> str:
    """Return the name of the server's function that raised an error, if the driver reports it."""
    for found in (error, getattr(error, "__cause__", None)):
        diagnostics = getattr(found, "diag", None)
        name = getattr(diagnostics, "source_function", None) or getattr(found, "server_source_function", None)
        if name:
            return str(name)
    return ""
