"""XA: transactions of MySQL or MariaDB that can be prepared, because they begin with XA START.

https://dev.mysql.com/doc/refman/en/xa.html, https://mariadb.com/kb/en/xa-transactions/
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, Engine

from dbconfig.engine.dialects.set_up import info_of

_BEGUN: Final = "dbconfig.xa"  # in the information of a connection: the name of its XA transaction
_PREPARED: Final = "dbconfig.xa.prepared"  # likewise, once COMMIT and ROLLBACK are rejected
# From these versions on, another connection can finish a prepared transaction whose own connection is lost.
_MARIADB: Final = (10, 5)
_MYSQL: Final = (8, 0, 31)
_UNKNOWN: Final = 1397  # XAER_NOTA
_OUTSIDE: Final = (1399, 1400)  # XAER_RMFAIL, XAER_OUTSIDE: a transaction has begun already


def attach(engine: Engine) -> None:
    """Let COMMIT and ROLLBACK on the connections of an engine end a transaction that has begun as XA."""
    dialect: Any = engine.dialect
    commit, rollback = dialect.do_commit, dialect.do_rollback

    def do_commit(connection: Any) -> None:
        name = _name(connection)
        if name is None:
            commit(connection)
            return
        _execute(connection, f"XA END '{name}'")
        _execute(connection, f"XA COMMIT '{name}' ONE PHASE")
        del connection.info[_BEGUN]

    def do_rollback(connection: Any) -> None:
        name = _name(connection)
        if name is None:
            rollback(connection)
        elif connection.info.get(_PREPARED):
            connection.invalidate()  # another connection can finish it, and this one must not be used before
        else:
            with suppress(dialect.loaded_dbapi.Error):  # after a deadlock it has already ended
                _execute(connection, f"XA END '{name}'")
            _execute(connection, f"XA ROLLBACK '{name}'")
            del connection.info[_BEGUN]

    dialect.do_commit, dialect.do_rollback = do_commit, do_rollback


def begin(connection: Connection) -> None:
    """Begin the transaction of a connection as XA, where it can be prepared and finished by another connection."""
    dialect: Any = connection.dialect
    if dialect.server_version_info < (_MARIADB if dialect.is_mariadb else _MYSQL):
        return
    name = f"dbconfig-{uuid4().hex}"
    pooled = connection.connection
    try:
        _execute(pooled, f"XA START '{name}'")
    except dialect.loaded_dbapi.Error as error:
        if error.args[:1] and error.args[0] in _OUTSIDE:
            return
        raise
    pooled.info[_BEGUN] = name


def name_of(connection: Connection) -> str | None:
    """Return the name of the XA transaction that a connection is in."""
    return None if connection.closed or connection.invalidated else _name(connection.connection)


def prepare(connection: Connection, name: str) -> None:
    """Prepare it: from then on it persists until `finish`, even if the connection is lost."""
    pooled = connection.connection
    connection.exec_driver_sql(f"XA END '{name}'")
    connection.exec_driver_sql(f"XA PREPARE '{name}'")
    pooled.info[_PREPARED] = True


def finish(connection: Connection, verb: str, name: str) -> None:
    """Execute `COMMIT` or `ROLLBACK` for what is prepared, on its own connection or on one in AUTOCOMMIT."""
    connection.exec_driver_sql(f"XA {verb} '{name}'")
    if _name(connection.connection) == name:
        connection.connection.info.pop(_BEGUN)
        connection.connection.info.pop(_PREPARED, None)


def is_done(connection: Connection, error: Any, name: str) -> bool:
    """Return whether an error of `finish` means that an earlier call has reached the server.

    MariaDB reports the name as unknown while its connection is not yet known to be dead, but still lists it.
    """
    if not error.args or error.args[0] != _UNKNOWN:
        return False
    dialect: Any = connection.dialect
    if not dialect.is_mariadb:
        return True
    return name not in {_text(row[3]) for row in connection.exec_driver_sql("XA RECOVER")}


def _name(connection: Any) -> str | None:
    found: str | None = info_of(connection).get(_BEGUN)
    return found


def _execute(connection: Any, statement: str) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
