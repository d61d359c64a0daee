"""Reading sessions of an event loop, and which server they read from."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig.reading import ReadOnlySession, SnapshotSession
from dbconfig.routing import RoutedSession, RoutedSnapshot, Router
from dbconfig.sessions import async_session_arguments
from dbconfig.settings import DatabaseSettings


class AsyncRouter(Router):
    """Chooses servers for reading in an event loop: what waits, waits as asyncio does."""

    def __init__(self, *arguments: Any) -> None:
        # Weak: the engines of a loop are found by their loop, which nothing that they refer to may keep.
        self._loop = weakref.ref(asyncio.get_running_loop())
        self._looks: set[asyncio.Task[None]] = set()
        super().__init__(*arguments)

    def begin_look(self) -> None:
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
        loop.call_soon_threadsafe(self._begin_in_loop)

    def _begin_in_loop(self) -> None:
        task = asyncio.ensure_future(greenlet_spawn(self.look))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    def pause(self, seconds: float) -> None:
        await_only(asyncio.sleep(seconds))


@dataclass(frozen=True, slots=True)
class AsyncReaders:
    """What asynchronous reading sessions of one database are made with."""

    plain: Callable[[], AsyncSession]
    snapshot: Callable[[], AsyncSession]
    pick: Callable[[], Engine]  # the next server's
    router: AsyncRouter | None = None  # None: there are no replicas

    def over_several(self, kinds: Iterable[type[Session]], arguments: Mapping[str, Any]) -> AsyncReaders:
        """Return what makes sessions that find the database of each statement by themselves."""
        plain, snapshot = _makers(None, kinds, arguments)
        return replace(self, plain=plain, snapshot=snapshot)


def open_readers(
    settings: DatabaseSettings, label: str, open_engine: Callable[..., Engine], beside: Engine | None
) -> AsyncReaders:
    """Return what makes reading sessions in the running loop; nothing is connected.

    Args:
        settings: of the database.
        label: its name in logs.
        open_engine: makes an engine for reading of settings, a name, and how.
        beside: the engine whose database in memory is read.
    """
    arguments: dict[str, Any] = async_session_arguments(settings)
    kinds: tuple[type[Session], type[Session]]
    if settings.replicas:
        router = AsyncRouter(settings, label, partial(open_engine, patient=False))
        arguments |= {"router": router}
        kinds = (RoutedSession, RoutedSnapshot)
        return AsyncReaders(*_makers(None, kinds, arguments), router.choose, router)
    engine = open_engine(settings, f"{label}/reads", beside=beside)
    kinds = (ReadOnlySession, SnapshotSession)
    return AsyncReaders(*_makers(AsyncEngine(engine), kinds, arguments), lambda: engine)


def _makers(
    engine: AsyncEngine | None, kinds: Iterable[type[Session]], arguments: Mapping[str, Any]
) -> tuple[Callable[[], AsyncSession], Callable[[], AsyncSession]]:
    plain, snapshot = (partial(AsyncSession, engine, sync_session_class=each, **arguments) for each in kinds)
    return plain, snapshot
