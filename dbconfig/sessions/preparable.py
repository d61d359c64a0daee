"""Which transactions of a session can be prepared, so that those of several databases commit together."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from sqlalchemy import Connection, Engine

from dbconfig.engine.dialects.mysql import xa
from dbconfig.settings.known_drivers import family

# Whether the server of an engine keeps prepared transactions: max_prepared_transactions is 0 by default.
_keeps: weakref.WeakKeyDictionary[Engine, bool] = weakref.WeakKeyDictionary()


def begin(connection: Connection, earlier: Iterable[Connection]) -> None:
    """Begin the transaction of a connection as one that can be prepared, if an earlier one of its session cannot.

    MySQL can prepare only transactions that began as XA, which costs round trips: one database of a session needs none.
    """
    if family(connection.dialect.name) != "mysql" or connection.in_nested_transaction():
        return
    if not all(is_preparable(each) for each in earlier):
        xa.begin(connection)


def is_preparable(connection: Connection) -> bool:
    """Return whether the transaction of a connection can be prepared now."""
    system, engine = family(connection.dialect.name), connection.engine
    if system == "mysql":
        return xa.name_of(connection) is not None
    if system != "postgresql":
        return False
    if engine not in _keeps:
        found = connection.exec_driver_sql("SHOW max_prepared_transactions").scalar_one()
        _keeps[engine] = int(found) > 0
    return _keeps[engine]
