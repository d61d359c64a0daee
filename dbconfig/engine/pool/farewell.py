"""How an asyncio connection closes: cleanly within a time limit, or immediately."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy.util import greenlet_spawn

from dbconfig.engine.pool import driver

logger: logging.Logger = logging.getLogger(__name__)

# Seconds for a polite end. A server that is gone does not answer one, and an end must not wait for it.
CLOSE_LIMIT = 2.0


async def close(dialect: Any, connection: Any, *, terminate: bool) -> None:
    """Close a connection politely; when that takes too long, fails, or is cancelled, at once."""
    # The part of SQLAlchemy's `do_terminate` that is polite, which there goes on beside whoever is cancelled: after our
    # limit its error would be one that nobody retrieves.
    own = getattr(connection, "_terminate_graceful_close", None) if terminate and dialect.has_terminate else None
    try:
        async with asyncio.timeout(CLOSE_LIMIT):
            await (greenlet_spawn(dialect.do_close, connection) if own is None else own())
    except Exception as error:
        logger.debug("a connection did not close cleanly: %s", error)
        cut(dialect, connection)
    except BaseException:  # the loop ends, and cancels all that is under way in it
        cut(dialect, connection)
        raise


def cut(dialect: Any, connection: Any) -> None:
    """Close a connection at once, without a word. Not where SQLAlchemy can await: it would say good-bye."""
    own, under = driver.of(dialect), dialect.get_driver_connection(connection)
    transport = own.transport(under)
    try:
        if dialect.has_terminate:
            dialect.do_terminate(connection)
        else:
            own.hang_up(under)
        if transport is not None:
            transport.abort()  # a closed transport first sends what it has, to a server that may not take it
    except Exception as error:  # closed already, or its loop is
        logger.debug("the socket of a connection could not be closed: %s", error)
