"""The errors of MySQL and MariaDB, and their meanings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dbconfig.engine.dialects.error_table import (
    CONFLICT,
    CONNECTION_LOST,
    DATABASE_DENIED,
    DATABASE_MISSING,
    HOST_UNKNOWN,
    LOGIN_REJECTED,
    NEVER,
    NOT_A_DATABASE,
    READ_ONLY,
    REFUSED,
    STARTING_UP,
    TABLE_MISSING,
    TLS_REFUSED,
    TLS_REQUIRED,
    TLS_UNTRUSTED,
    TOO_MANY,
    TOO_SLOW,
    VARIABLE_REFUSED,
    Fate,
    Meaning,
)
from dbconfig.errors.light_dataclass import replace

# The whole transaction is rolled back, not only the statement: https://mariadb.com/kb/en/innodb-lock-modes/ and
# https://dev.mysql.com/doc/refman/8.4/en/innodb-error-handling.html
_ROLLED_BACK: Final = replace(CONFLICT, rolls_back=True)

# By number. Sources: [m] https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html,
# [c] https://dev.mysql.com/doc/mysql-errors/8.4/en/client-error-reference.html,
# [a] https://mariadb.com/kb/en/mariadb-error-code-reference/, and the reason where the text there does not say it.
CODES: Final[Mapping[int, Meaning]] = {
    # the server rolled back in favor of another transaction
    1213: _ROLLED_BACK,  # [m] ER_LOCK_DEADLOCK; Galera gives it at COMMIT too
    1020: _ROLLED_BACK,  # [a] ER_CHECKREAD, under MariaDB's innodb_snapshot_isolation; by experiment on 10.11
    1613: _ROLLED_BACK,  # [m] ER_XA_RBTIMEOUT
    1614: _ROLLED_BACK,  # [m] ER_XA_RBDEADLOCK
    3101: _ROLLED_BACK,  # [m] ER_TRANSACTION_ROLLBACK_DURING_COMMIT: group replication's certification
    1205: CONFLICT,  # [m] ER_LOCK_WAIT_TIMEOUT; the statement alone, unless innodb_rollback_on_timeout
    3572: CONFLICT,  # [m] ER_LOCK_NOWAIT
    3058: CONFLICT,  # [m] ER_USER_LOCK_DEADLOCK
    1412: CONFLICT,  # [m] ER_TABLE_DEF_CHANGED: "please retry transaction"
    1615: CONFLICT,  # [m] ER_NEED_REPREPARE
    1206: replace(NEVER, rolls_back=True),  # [m] ER_LOCK_TABLE_FULL
    # COMMIT without an outcome
    # [m] ER_ERROR_DURING_COMMIT: of Galera when a node loses its cluster, where others may have the work already
    1180: Meaning(Fate.UNCERTAIN, ends=True),
    # the connection
    1053: CONNECTION_LOST,  # [m] ER_SERVER_SHUTDOWN
    1152: CONNECTION_LOST,  # [m] ER_ABORTING_CONNECTION
    1158: CONNECTION_LOST,  # [m] ER_NET_READ_ERROR
    1159: CONNECTION_LOST,  # [m] ER_NET_READ_INTERRUPTED
    1160: CONNECTION_LOST,  # [m] ER_NET_ERROR_ON_WRITE
    1161: CONNECTION_LOST,  # [m] ER_NET_WRITE_INTERRUPTED
    1184: CONNECTION_LOST,  # [m] ER_NEW_ABORTING_CONNECTION
    1927: CONNECTION_LOST,  # [a] ER_CONNECTION_KILLED
    2006: CONNECTION_LOST,  # [c] CR_SERVER_GONE_ERROR
    2013: CONNECTION_LOST,  # [c] CR_SERVER_LOST
    2055: CONNECTION_LOST,  # [c] CR_SERVER_LOST_EXTENDED
    3169: CONNECTION_LOST,  # [m] ER_SESSION_WAS_KILLED
    4031: CONNECTION_LOST,  # [m] ER_CLIENT_INTERACTION_TIMEOUT
    2002: REFUSED,  # [c] CR_CONNECTION_ERROR: the socket of a server that is not up
    2003: REFUSED,  # [c] CR_CONN_HOST_ERROR
    2005: HOST_UNKNOWN,  # [c] CR_UNKNOWN_HOST
    2026: TLS_REFUSED,  # [c] CR_SSL_CONNECTION_ERROR
    # [m] ER_UNKNOWN_COM_ERROR: a Galera node outside the primary component answers with it
    1047: replace(STARTING_UP, only="WSREP"),
    3032: STARTING_UP,  # [m] ER_SERVER_OFFLINE_MODE
    1040: TOO_MANY,  # [m] ER_CON_COUNT_ERROR
    1203: TOO_MANY,  # [m] ER_TOO_MANY_USER_CONNECTIONS
    # [m] ER_USER_LIMIT_REACHED names the resource: the others are counted by the hour
    1226: replace(TOO_MANY, only="max_user_connections"),
    # login
    1044: DATABASE_DENIED,  # [m] ER_DBACCESS_DENIED_ERROR
    1146: TABLE_MISSING,  # [m] ER_NO_SUCH_TABLE
    1142: replace(DATABASE_DENIED, stage="query"),  # [m] ER_TABLEACCESS_DENIED_ERROR
    1049: DATABASE_MISSING,  # [m] ER_BAD_DB_ERROR
    1045: LOGIN_REJECTED,  # [m] ER_ACCESS_DENIED_ERROR
    1129: LOGIN_REJECTED,  # [m] ER_HOST_IS_BLOCKED
    1130: LOGIN_REJECTED,  # [m] ER_HOST_NOT_PRIVILEGED
    1251: LOGIN_REJECTED,  # [m] ER_NOT_SUPPORTED_AUTH_MODE
    1698: LOGIN_REJECTED,  # [m] ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    1820: LOGIN_REJECTED,  # [m] ER_MUST_CHANGE_PASSWORD
    1862: LOGIN_REJECTED,  # [m] ER_MUST_CHANGE_PASSWORD_LOGIN
    2059: LOGIN_REJECTED,  # [c] CR_AUTH_PLUGIN_CANNOT_LOAD
    3118: LOGIN_REJECTED,  # [m] ER_ACCOUNT_HAS_BEEN_LOCKED
    4151: LOGIN_REJECTED,  # [a] ER_ACCOUNT_HAS_BEEN_LOCKED
    2061: TLS_REQUIRED,  # [c] CR_AUTH_PLUGIN_ERR: "Authentication requires secure connection"
    3159: TLS_REQUIRED,  # [m] ER_SECURE_TRANSPORT_REQUIRED
    # a session variable
    1193: VARIABLE_REFUSED,  # [m] ER_UNKNOWN_SYSTEM_VARIABLE
    1227: VARIABLE_REFUSED,  # [m] ER_SPECIFIC_ACCESS_DENIED_ERROR: at the connect nothing but SET needs a privilege
    1228: VARIABLE_REFUSED,  # [m] ER_LOCAL_VARIABLE
    1229: VARIABLE_REFUSED,  # [m] ER_GLOBAL_VARIABLE
    1231: VARIABLE_REFUSED,  # [m] ER_WRONG_VALUE_FOR_VAR
    1232: VARIABLE_REFUSED,  # [m] ER_WRONG_TYPE_FOR_VAR
    1238: VARIABLE_REFUSED,  # [m] ER_INCORRECT_GLOBAL_LOCAL_VAR: read-only
    1298: VARIABLE_REFUSED,  # [m] ER_UNKNOWN_TIME_ZONE
    # a read-only server
    # [m] ER_OPTION_PREVENTS_STATEMENT names the option: there are others
    1290: replace(READ_ONLY, only=r"--(?:super-|innodb-)?read[-_]only"),
    # [m] ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION: of the server, or of the application's own: pool.failover asks
    1792: READ_ONLY,
    1836: READ_ONLY,  # [m] ER_READ_ONLY_MODE
    1874: READ_ONLY,  # [m] ER_INNODB_READ_ONLY
    # limits of time
    1969: TOO_SLOW,  # [a] ER_STATEMENT_TIMEOUT
    3024: TOO_SLOW,  # [m] ER_QUERY_TIMEOUT
}
CLIENT: Final = range(2000, 3000)  # the numbers of client errors
# Texts of driver errors without an answer of the server, and so without a number: for a peer that speaks another
# protocol, and for a connection that was lost while it was being set up.
WORDS: Final = (
    (r"(?i)certificate", TLS_UNTRUSTED),
    (r"(?i)packet sequence number wrong|not a valid|unsupported protocol|protocol version", NOT_A_DATABASE),
    (r"'?cryptography'? package is required", TLS_REQUIRED),  # of PyMySQL and asyncmy: the password needs TLS, or RSA
    (r"(?i)lost connection|not connected|connection (?:is|was) closed|closed connection", CONNECTION_LOST),
    (r"0 bytes read on a total of|readexactly", CONNECTION_LOST),
    (r"^\(0, ''\)$", CONNECTION_LOST),  # PyMySQL's InterfaceError of a connection whose socket it has closed already
)


def meaning(error: Any) -> Meaning | None:
    """Return what an error of a driver means; None if the table has no row for it."""
    arguments, text = getattr(error, "args", ()), str(error)
    number = arguments[0] if arguments and isinstance(arguments[0], int) else 0
    row = CODES.get(number)
    if row is not None and not row.valid_for(text):
        row = NEVER
    # A server's number is unambiguous, and its text may repeat the statement's. A client's number may have several
    # causes.
    if number and number not in CLIENT:
        return row
    return next((found for pattern, found in WORDS if re.search(pattern, text)), row)
