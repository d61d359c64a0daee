"""An event loop in a thread of its own, for tests whose callers are threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of other threads, all in one loop, until it is closed."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._runner = asyncio.Runner(loop_factory=factory)
        self.loop = self._runner.get_loop()
        self._over: asyncio.Future[None] = self.loop.create_future()
        self._thread = Thread(target=self._work, name="loop", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        async def until_closed() -> None:
            await self._over

        self._runner.run(until_closed())
        self._runner.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], limit: float = 120.0) -> T:
        return self.submit(work).result(limit)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set_result, None)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the loop does not end"
