"""How an asyncio connection closes: cleanly within a time limit, or immediately."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import driver

logger: logging.Logger = logging.getLogger(__name__)

# Seconds for a clean close. A server that is down does not answer, and closing must not wait for it.
CLOSE_LIMIT = 2.0


async def close(dialect: Any, connection: Any, *, terminate: bool) -> None:
    """Close a connection cleanly; if that takes too long, fails, or is cancelled, close it immediately."""
    # The clean part of SQLAlchemy's `do_terminate`, which there continues after its caller is cancelled: after our
    # limit, its error would never be retrieved.
    own = getattr(connection, "_terminate_graceful_close", None) if terminate and dialect.has_terminate else None
    try:
        async with asyncio.timeout(CLOSE_LIMIT):
            await (greenlet_spawn(dialect.do_close, connection) if own is None else own())
    except Exception as error:
        logger.debug("a connection did not close cleanly: %s", error)
        cut(dialect, connection)
    except BaseException:  # the loop ends, and cancels its tasks
        cut(dialect, connection)
        raise


def ensure(closing: asyncio.Task[None], dialect: Any, connection: Any) -> None:
    """Close a connection immediately if its `close` is cancelled: at the end of the loop perhaps before it begins."""
    closing.add_done_callback(lambda task: cut(dialect, connection) if task.cancelled() else None)


def cut(dialect: Any, connection: Any) -> None:
    """Close a connection immediately, without notifying the server. Not where SQLAlchemy can await: it would."""
    try:
        _cut(dialect, connection)
    except BaseException as first:
        try:
            _cut(dialect, connection)  # again, in case a signal handler raised before it was closed
        except Exception as error:  # closed already, or its loop is
            logger.debug("the socket of a connection could not be closed: %s", error)
        if not isinstance(first, Exception):
            raise


def _cut(dialect: Any, connection: Any) -> None:
    own, under = driver.of(dialect), dialect.get_driver_connection(connection)
    transport = own.transport(under)
    if dialect.has_terminate:
        dialect.do_terminate(connection)
    else:
        own.hang_up(under)
    if transport is not None:
        transport.abort()  # a closed transport first flushes its buffer, to a server that may not read it
