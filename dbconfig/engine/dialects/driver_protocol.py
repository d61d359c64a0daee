"""The engine's interface to a driver; each driver implements it in its own module, and no code checks its name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Connection, Dialect, Engine

from dbconfig.engine.pool import driver as of_pool
from dbconfig.settings.known_drivers import family


class Driver(of_pool.Driver):
    """A driver without special support; `connection` is the driver's own, never SQLAlchemy's adapter of it."""

    deaf = False  # to signals while it waits for the server, which it does in C
    tells_transactions = False  # `in_transaction` knows, without asking the server
    statement_methods: tuple[str, ...] = ()  # of its connection: what takes a statement as its first argument
    tells_tags = False  # its `execute` returns the server's command tag of the statement
    begins_by = ""  # the method of its connection that is called for each BEGIN that the driver sends

    def in_failed_transaction(self, connection: Any) -> bool | None:
        """Return whether the transaction has failed and only accepts ROLLBACK; None if that is unknown."""
        return None

    def was_in_failed_transaction(self, error: BaseException) -> bool:
        """Return whether the server rejected a statement only because an earlier one of the transaction had failed."""
        return False

    def is_open(self, connection: Any) -> bool:
        """Return whether a transaction is open, as far as the driver knows without asking the server."""
        return self.in_transaction(connection)

    def has_begun(self, connection: Any, adapted: Any) -> bool:
        """Return whether the driver, or SQLAlchemy's adapter of it, considers a transaction that it has begun open."""
        return False

    def may_write(self, connection: Any) -> bool:
        """Return whether a transaction is open that the server has reported as READ WRITE."""
        return False

    def begin_read_only(self, connection: Any) -> None:
        """Keep every transaction that the driver begins on a connection read-only, whatever is requested."""

    def failed_transaction(self) -> Exception:
        """Return the driver's error of a transaction that has failed before its COMMIT."""
        raise NotImplementedError

    def ask_before_ends(self, connection: Any, ask: Callable[[str], None]) -> None:
        """Call a function with each statement of a connection that may end a transaction, where the class allows it."""

    def cursor_class(self, connection: Any) -> type | None:
        """Return the class of the cursors that `cursor_factory` of a connection creates, or None."""
        return None

    def password(self, text: str) -> str:
        """Return a password in the form that the driver expects."""
        return text

    def cancel_aside(self, connection: Any) -> None:
        """Cancel, from another thread, what a connection executes; for a driver that is deaf to signals."""

    def ask_unprepared(self, pooled: Any, question: str) -> None:
        """Execute a query without preparing it, and discard the result."""
        cursor = pooled.cursor()
        try:
            cursor.execute(question)
            cursor.fetchone()  # psycopg gets a result without rows
        finally:
            cursor.close()

    def let_class_change(self, engine: Engine) -> None:
        """Make an engine use connections whose class can be replaced, where the class of the driver's own cannot."""


def own_of(connection: Connection) -> Any:
    """Return the driver's own connection, also of one that `detach()` has taken out of its pool."""
    pooled: Any = connection.connection
    own = pooled.driver_connection
    return connection.dialect.get_driver_connection(pooled.dbapi_connection) if own is None else own


def of(dialect: Dialect) -> Driver:
    """Return the driver of an engine's dialect."""
    name = dialect.driver.removesuffix("_async")
    place = f"{__package__}.{family(dialect.name)}"
    if find_spec(place) is None or find_spec(f"{place}.{name}") is None:
        return Driver()
    module: Any = import_module(f"{place}.{name}")
    found: Driver = module.DRIVER
    return found
