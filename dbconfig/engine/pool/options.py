"""The options of our pool beyond QueuePool's own arguments, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool.ping import Check

Connected: TypeAlias = Callable[[], AbstractContextManager[Any]]  # opens a connection outside the pool


class Judge(Protocol):
    """Classifies errors of a database system; the pool knows none of them."""

    full: int  # how many connects failed because the server had no connection left

    def connects_again(self, error: BaseException) -> bool:
        """Whether the same connection attempt may succeed in a moment."""

    def ends_connection(self, error: BaseException) -> bool:
        """Whether a statement's error means that its connection can no longer be used."""

    def refuses_writes(self, error: BaseException) -> bool:
        """Whether a statement was rejected because the server, or the transaction, is read-only."""

    def read_only_because(self, connected: Connected) -> str:
        """Return what makes transactions read-only by default on a server that accepts writes; "" if nothing does."""


class SystemErrors:
    """Classifies errors of the operating system only."""

    full = 0

    def connects_again(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError | ConnectionError)

    def ends_connection(self, error: BaseException) -> bool:
        return False

    def refuses_writes(self, error: BaseException) -> bool:
        return False

    def read_only_because(self, connected: Connected) -> str:
        return ""


SYSTEM_ERRORS: Final = SystemErrors()


class LineOptions(NamedTuple):
    """What our pool needs to know beyond QueuePool's own arguments."""

    name: str = "pool"
    max_waiting: int | None = None
    queue_target: float | None = None
    check: Check | None = None
    min_idle: int = 0
    idle_timeout: float | None = None
    keepalive: float | None = None
    judge: Judge = SYSTEM_ERRORS
    patient: bool = True  # wait for a server that cannot be reached; else its callers can use another one


def own_arguments(pool: QueuePool) -> dict[str, Any]:
    """Return QueuePool's own arguments of a pool, to make another one like it."""
    return {
        "pool_size": pool._pool.maxsize,
        "max_overflow": pool._max_overflow,
        "pre_ping": pool._pre_ping,
        "use_lifo": pool._pool.use_lifo,
        "timeout": pool._timeout,
        "recycle": pool._recycle,
        "echo": pool.echo,
        "logging_name": pool._orig_logging_name,
        "reset_on_return": pool._reset_on_return,
        "_dispatch": pool.dispatch,
        "dialect": pool._dialect,
    }
