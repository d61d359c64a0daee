"""A database for synchronous code with any driver: an asynchronous one gets an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine import create
from dbconfig.engine.pool import forks
from dbconfig.settings.database import DatabaseSettings

T = TypeVar("T")

_FAREWELL: Final = 1.0  # seconds to wait for a connection to close; then its socket is left to the process


class Database:
    """A database and its engine, whose functions run where the driver can await."""

    def __init__(self, engine: Engine, loop: _Loop | None) -> None:
        self.engine = engine
        self._loop = loop

    def call(self, work: Callable[[Engine], T]) -> T:
        """Return what a function of the engine returns; it must use the engine only within the call."""
        return work(self.engine) if self._loop is None else self._loop.call(work, self.engine)


class _Loop:
    """An event loop in a thread, so that callers are written once, for both kinds of drivers."""

    def __init__(self) -> None:
        forks.notice()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dbconfig-loop", daemon=True)
        self._thread.start()

    def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call a function that awaits in the loop, and return its result; from any thread except the loop's own."""
        return asyncio.run_coroutine_threadsafe(greenlet_spawn(work, *arguments), self._loop).result()

    def close(self, engine: Engine) -> None:
        """Cancel what still runs, close the connections, and stop."""
        asyncio.run_coroutine_threadsafe(self._end(engine), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, engine: Engine) -> None:
        from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet

        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_FAREWELL)
        with suppress(TimeoutError):  # a server that stays silent: the sockets go with the process
            async with asyncio.timeout(_FAREWELL):
                await AsyncEngine(engine).dispose()
        await self._loop.shutdown_asyncgens()


@contextmanager
def connected(
    settings: DatabaseSettings,
    label: str,
    extra: Mapping[str, Any] | None = None,
    *,
    read_only: bool = False,
    beside: Engine | None = None,
) -> Iterator[Database]:
    """Yield a database with a synchronous driver, or with an asynchronous one if no other is installed; closes it.

    Args:
        settings: of the database.
        label: of its engine.
        extra: arguments of create_engine that only code can express.
        read_only: a read-only server is expected.
        beside: the engine whose database in memory this one shares.

    Raises:
        ConfigError: no driver is installed, or a setting cannot be used.
    """
    asynchronous = settings.only_asynchronous()
    engine = create.build(settings, label, extra, asynchronous=asynchronous, beside=beside, read_only=read_only)
    if not asynchronous:
        try:
            yield Database(engine, None)
        finally:
            engine.dispose()
        return
    loop = _Loop()
    try:
        yield Database(engine, loop)
    finally:
        loop.close(engine)
