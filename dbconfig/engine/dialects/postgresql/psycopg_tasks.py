"""psycopg's connection for tasks: a cancelled task does not wait for the server's confirmation.

psycopg itself blocks a cancelled task for up to ten seconds while a server is silent, and sends no cancel request if
the task is cancelled again in that time. SQLAlchemy never reuses such a connection, so waiting is unnecessary.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import psycopg
from psycopg import generators, pq, waiting

logger: logging.Logger = logging.getLogger(__name__)

_ACTIVE: Final = pq.TransactionStatus.ACTIVE
_INTERVAL: Final = 0.1  # seconds, as psycopg has it
REQUEST_LIMIT: Final = 2.0  # seconds for a request to cancel
_under_way: set[asyncio.Task[None]] = set()  # an event loop refers to its tasks weakly


class Connection(psycopg.AsyncConnection[Any]):
    """Closes at the moment of a cancellation, and cancels the statement on the server in the background."""

    async def wait(self, gen: Any, interval: float = _INTERVAL, *given: Any, **options: Any) -> Any:
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, *given, **options)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self.pgconn.transaction_status == _ACTIVE:
                self._leave()
            raise

    def _leave(self) -> None:
        try:
            request = self.pgconn.cancel_conn()
            request.start()
        except psycopg.Error as error:
            logger.debug("cannot ask the server to cancel: %s", error)
        else:
            task = asyncio.get_running_loop().create_task(_deliver(request))
            _under_way.add(task)
            task.add_done_callback(_under_way.discard)
        self.pgconn.finish()


async def _deliver(request: Any) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + REQUEST_LIMIT
    try:
        while loop.time() < end:
            try:
                async with asyncio.timeout_at(end):  # psycopg 3.2 has no limit there
                    await waiting.wait_conn_async(generators.cancel(request), interval=_INTERVAL)
                return
            except asyncio.CancelledError:  # `asyncio.run` ends, often by the same Ctrl-C: it waits for this task
                continue
    except (psycopg.Error, OSError) as error:
        logger.debug("the server was not asked to cancel: %s", error)
    finally:
        request.finish()


def can_cancel() -> bool:
    """Return whether a cancel request can be sent without blocking: psycopg 3.2 with libpq 17."""
    known: Any = getattr(psycopg, "capabilities", None)
    return known is not None and bool(known.has_cancel_safe())
