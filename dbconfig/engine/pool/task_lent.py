"""A connection checked out by a task: SQLAlchemy's own proxy, with a fast path back if there are no listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from sqlalchemy.pool.base import ResetStyle, _ConnectionFairy

from dbconfig.engine.pool.lent import nothing

if TYPE_CHECKING:
    from dbconfig.engine.pool.task_record import TaskRecord

_ROLLBACK: Final = ResetStyle.reset_rollback
# SQLAlchemy 2.0 tracks checkouts in another way, which is left unchanged.
HAS_SHORT_WAY: Final = hasattr(_ConnectionFairy, "_finalizer")


class TaskLent(_ConnectionFairy):
    """SQLAlchemy's proxy of a connection, for our pool of asyncio.

    Unused work is skipped: events without a listener, log records that are not written. The finalizer is SQLAlchemy's:
    only a task can return a connection properly, and a forgotten one is cut and reported.
    """

    __slots__ = ()

    _pool: Any  # a TaskPool, in a higher layer
    _connection_record: TaskRecord | None

    def __init__(self, pool: Any, connection: Any, record: TaskRecord) -> None:
        super().__init__(pool, connection, record, False)
        record.fairy_ref = ref(self, nothing)
        self._counter = 1

    # SQLAlchemy looks these up on the driver's connection each time, after it has not found them here.

    def commit(self) -> Any:
        return self.dbapi_connection.commit()

    def rollback(self) -> Any:
        return self.dbapi_connection.rollback()

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        pool, record = self._pool, self._connection_record
        dispatch = pool.dispatch
        if (
            record is None
            or self.dbapi_connection is None
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
                self._end_by(error, record)
        self._let_go()
        if record.fairy_ref is not None:
            record.fairy_ref = None
            pool._do_return_conn(record)

    def _end_by(self, error: BaseException, record: TaskRecord) -> None:
        """Close a connection that cannot be reset; its place is free. A cancellation propagates."""
        self._pool.logger.error("Exception during reset or similar", exc_info=True)
        if isinstance(error, Exception):
            record.invalidate(e=error)
            return
        self._let_go()
        record._checkin_failed(error)
        raise error

    def _let_go(self) -> None:
        self._finalizer.detach()
        self.dbapi_connection = None  # type: ignore[assignment]  # as SQLAlchemy does
        self._connection_record = None
