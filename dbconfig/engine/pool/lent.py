"""A checked-out connection: SQLAlchemy's own proxy, with a fast path out and back if there are no listeners."""

from __future__ import annotations

from sys import is_finalizing
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from sqlalchemy.pool.base import ResetStyle, _ConnectionFairy

if TYPE_CHECKING:
    from dbconfig.engine.pool.record import Record

_ROLLBACK: Final = ResetStyle.reset_rollback


class _NoFinalizer:
    """The finalizer that SQLAlchemy detaches at checkin; here `__del__` does the work."""

    def detach(self) -> None:
        pass


class _Nobody:
    """Does nothing."""


def nothing(dead: object) -> None:
    # As SQLAlchemy's own: Python clears references that have a callback before it runs any.
    pass


class Lent(_ConnectionFairy):
    """SQLAlchemy's proxy of a connection, for our pool of threads.

    SQLAlchemy registers a finalizer for each checkout, which costs as much as the rest of the checkout. ``__del__``
    does the same. Unused work is skipped: events without a listener, log records that are not written.
    """

    __slots__ = ("_loan",)

    _pool: Any  # a FairPool, in a higher layer
    _connection_record: Record | None

    _finalizer: Any = _NoFinalizer()

    def __init__(self, pool: Any, connection: Any, record: Record, echo: Any) -> None:
        self._pool = pool
        self._counter = 0
        self._echo = echo
        self.dbapi_connection = connection
        self._connection_record = record
        # In this order: an interrupt in between leaves nothing checked out.
        self._loan = record.fairy_ref = ref(self, nothing)
        pool.lent.add(record)

    # SQLAlchemy looks these up on the driver's connection each time, after it has not found them here.

    def commit(self) -> Any:
        return self.dbapi_connection.commit()

    def rollback(self) -> Any:
        return self.dbapi_connection.rollback()

    def close(self) -> None:
        self._counter -= 1
        if self._counter == 0:
            self._checkin()

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        pool, record = self._pool, self._connection_record
        pool.lent.discard(record)
        dispatch = pool.dispatch
        if (
            record is None
            or self.dbapi_connection is None
            or self._echo
            or pool._reset_on_return is not _ROLLBACK
            or dispatch.reset
            or dispatch.checkin
            or record.finalize_callback
        ):
            super()._checkin(transaction_was_reset)
            return
        if not transaction_was_reset:
            try:
                pool._dialect.do_rollback(self)
            except BaseException as error:
                self._end_by(error)
        if record.fairy_ref is not None:
            record.fairy_ref = None
            pool._do_return_conn(record)
        self.dbapi_connection = None  # type: ignore[assignment]  # as SQLAlchemy does
        self._connection_record = None

    def _end_by(self, error: BaseException) -> None:
        """Close a connection that cannot be reset; its place is free. An interrupt propagates."""
        record = self._connection_record
        assert record is not None
        self._pool.logger.error("Exception during reset or similar", exc_info=True)
        if isinstance(error, Exception):
            record.invalidate(e=error)
            return
        self.dbapi_connection = None  # type: ignore[assignment]
        self._connection_record = None
        record._checkin_failed(error)
        raise error

    def detach(self) -> None:
        self._pool.lent.discard(self._connection_record)
        super().detach()

    def __del__(self) -> None:
        try:
            self._end()
        except BaseException:
            # An exception from a signal handler: Python prints it here, and nothing else returns the connection.
            self._end()
            raise

    def _end(self) -> None:
        try:
            record = object.__getattribute__(self, "_connection_record")
            if record is None:  # the usual case: it was returned
                return
            loan = object.__getattribute__(self, "_loan")
        except AttributeError:
            return  # interrupted before it was initialized
        if record.fairy_ref is not loan or is_finalizing():
            return
        leaks = self._pool.leaks
        # It was never returned. The record must show that it has no holder.
        self._loan = record.fairy_ref = ref(_Nobody())
        if leaks is not None:
            leaks.forgotten(record)
        self._checkin()
