"""Which failed connects are worth another attempt: the server is away or full, not unwilling."""

from __future__ import annotations

# PyMySQL and mysqlclient put the code first: cannot connect, gone away, lost, too many connections (server, host,
# user), server shutdown in progress.
_MYSQL = frozenset({2002, 2003, 2006, 2013, 2055, 1040, 1203, 1226, 1053})
# What PostgreSQL says in SQLSTATE, where the driver tells (asyncpg): connection exceptions, too many connections,
# shutting down, crashed, starting up.
_SQLSTATES = ("08000", "08001", "08003", "08004", "08006", "53300", "57P01", "57P02", "57P03")
# psycopg2 and psycopg give no SQLSTATE for a failed connect, only libpq's text. What is not listed here, a
# server that speaks another language included, counts as final: the caller learns of it at once.
_TEXTS = (
    "connection refused",
    "could not connect to server",
    "connection timed out",
    "timeout expired",
    "connection timeout",
    "server closed the connection unexpectedly",
    "connection reset by peer",
    "no such file or directory",
    "network is unreachable",
    "no route to host",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "not accepting connections",
    "too many clients already",
    "too many connections",
    "remaining connection slots are reserved",
    "terminating connection due to administrator command",
    "ssl syscall error: eof detected",
    "server terminated abnormally",
)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same connect may well succeed in a moment."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if error.args and isinstance(error.args[0], int):
        return error.args[0] in _MYSQL  # before SQLSTATE, which PyMySQL 1.2 tells too, in classes that say less
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return state in _SQLSTATES
    text = str(error).lower()
    return any(known in text for known in _TEXTS)
