"""Admission of requests to a pool's connections: they wait here, in their event loop, not in one of its few threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio
from anyio.to_thread import current_default_thread_limiter

from dbconfig.engine.pool.shedding import Shedding

# Seconds for which a request that was let in is expected to take its connection. One that does something else first,
# such as waiting for another service, does not keep others from an idle pool.
RESERVED: Final = 0.1


class Place:
    """One request's place: reserved, then in use while its session has a connection, then free."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._uses = False

    def use(self) -> None:
        """Record that the session has taken a connection."""
        with self._admission.lock:
            self._admission.reserved.pop(self, None)
            self._admission.used += not self._uses
            self._uses = True

    def leave(self) -> None:
        """Record that the session no longer has a connection; it may take another one."""
        with self._admission.lock:
            self._admission.reserved.pop(self, None)
            self._admission.used -= self._uses
            self._uses = False
        self._admission.let_in()


class Shed(Exception):
    """A request was dropped, so that later ones are served soon."""


class _Waiter:
    """A request that waits in its event loop; it may be woken from any thread."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self.arrived = time.monotonic()
        self.is_shed = False
        self.event = anyio.Event()
        self._thread = threading.get_ident()
        self._soon = _soon()

    def wake(self) -> None:
        try:
            if threading.get_ident() == self._thread:
                self.event.set()  # without a message to the loop, which costs a system call
            else:
                self._soon(lambda: self.event.set())  # the current one by then
        except RuntimeError:  # the loop was closed, and the request with it
            return


def _soon() -> Callable[[Callable[[], object]], object]:
    """Return a function that calls another one in the running event loop, from any thread."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        from trio.lowlevel import current_trio_token  # AnyIO's other backend

        soon: Callable[[Callable[[], object]], object] = current_trio_token().run_sync_soon
        return soon


class Admission:
    """Admits as many requests as a pool has connections; the others wait in order of arrival.

    FastAPI has 40 threads, for endpoints and for writing responses. If all of them waited for a connection, requests
    that hold one could not finish, and all would block until `pool_timeout`.

    Args:
        limit: how many connections the pool may have.
        in_use: how many of them are in use, by any caller.
        target: the wait that callers accept, `pool_queue_target`.
    """

    def __init__(self, limit: int, in_use: Callable[[], int], target: float | None = None) -> None:
        self.lock = threading.Lock()
        self.used: int = 0
        self.reserved: dict[Place, float] = {}  # until when, the oldest first
        self.limit, self._in_use = limit, in_use
        self._waiting: deque[_Waiter] = deque()
        self._shedding = None if target is None else Shedding(target)

    def place_at_once(self) -> Place | None:
        """Return a place, reserved for a request, unless it has to wait for one."""
        with self.lock:
            # Threads are counted only where it matters: that takes longer than all the rest.
            if self._waiting or not (self._has_room(False) or self._has_room(_threads_are_free())):
                return None
            if self._shedding is not None:
                self._shedding.relax()
            return self._reserve()

    def _reserve(self) -> Place:
        place = Place(self)
        self.reserved[place] = time.monotonic() + RESERVED
        return place

    async def place(self, patience: float) -> Place:
        """Wait for a place, reserved for this request.

        Raises:
            TimeoutError: no place became free within this many seconds.
            Shed: the request was dropped, because the queue did not drain.
        """
        waiter = _Waiter()
        with self.lock:
            if self._shedding is not None and not self._waiting:
                self._shedding.relax()
            self._waiting.append(waiter)
        try:
            with anyio.fail_after(patience):
                self.let_in(_threads_are_free())
                while waiter.place is None:
                    await self._woken(waiter)
                    if waiter.is_shed:
                        raise Shed
                    if waiter.place is None:  # else the next one, which was woken too, looks for all
                        self.let_in(_threads_are_free())
        except BaseException:
            self._withdraw(waiter)
            raise
        return waiter.place

    def guest(self) -> Place:
        """Return a place without waiting; it counts while it is in use."""
        return Place(self)

    async def _woken(self, waiter: _Waiter) -> None:
        with self.lock:
            first = bool(self._waiting) and self._waiting[0] is waiter
        if first:
            # No event marks the expiry of a reservation: the first waiter checks for all.
            with anyio.move_on_after(RESERVED):
                await waiter.event.wait()
        else:
            await waiter.event.wait()
        if waiter.place is None:
            waiter.event = anyio.Event()

    def let_in(self, threads_are_free: bool = False) -> None:
        """Give the free places to the waiters."""
        woken: list[_Waiter] = []
        with self.lock:
            while self._waiting and self._has_room(threads_are_free):
                now = time.monotonic()
                woken += self._shed(now)
                waiter = self._waiting.popleft()
                if self._shedding is not None:
                    self._shedding.served(now - waiter.arrived, now)
                waiter.place = self._reserve()
                woken.append(waiter)
            # Not while they wait for a server that is down, rather than for each other.
            if self._shedding is not None and self._waiting and self._in_use() >= self.limit:
                now = time.monotonic()
                self._shedding.stands(now - self._waiting[0].arrived, now)
                woken += self._shed(now)
            if woken and self._waiting:
                woken.append(self._waiting[0])  # it looks for all from now on
        for each in woken:
            each.wake()

    def _shed(self, now: float) -> list[_Waiter]:
        """Drop callers that have waited too long, except the last one; the lock is held."""
        dropped: list[_Waiter] = []
        shedding = self._shedding
        while shedding is not None and len(self._waiting) > 1 and shedding.drops(now - self._waiting[0].arrived, now):
            waiter = self._waiting.popleft()
            waiter.is_shed = True
            dropped.append(waiter)
        return dropped

    def _has_room(self, threads_are_free: bool) -> bool:
        if self.used + len(self.reserved) < self.limit:
            return True
        # Admitted requests without a connection may all start at the same time and then wait in threads: admit more
        # only while threads remain for those that hold one.
        now = time.monotonic()
        young = sum(until > now for until in self.reserved.values())
        return threads_are_free and self.used + young < self.limit and self._in_use() + young < self.limit

    def _withdraw(self, waiter: _Waiter) -> None:
        with self.lock:
            if waiter.place is None and not waiter.is_shed:
                self._waiting.remove(waiter)
            first = self._waiting[0] if self._waiting else None
        if waiter.place is not None:
            waiter.place.leave()
        elif first is not None:
            first.wake()  # it looks for all from now on


def _threads_are_free() -> bool:
    limiter = current_default_thread_limiter()
    return limiter.available_tokens * 2 > limiter.total_tokens
