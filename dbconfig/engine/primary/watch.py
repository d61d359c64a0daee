"""Searches for the primary while a connection is in use for long, and ends waits for a silent server."""

from __future__ import annotations

import asyncio
import logging
import weakref
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine import pool
from dbconfig.engine.dialects.error_table import JUDGED, NO_PRIMARY
from dbconfig.engine.pool import caretaker, driver, farewell, forks, sockets
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.record import Record
from dbconfig.engine.primary import greeting
from dbconfig.engine.primary.finder import Finder
from dbconfig.engine.primary.search import Host
from dbconfig.settings import hosts

logger: logging.Logger = logging.getLogger("dbconfig.primary")

PLACE: Final = "dbconfig.host"  # in the info of a connection's record: its host
# Seconds that a connection is in use, without another one being returned, before its server is checked to be still the
# primary: it may wait for a stopped machine. Also the seconds until the next check.
HELD: Final = 1.0
HEALTHY: Final = 5.0
SHORTEST: Final = 0.05  # seconds between two rounds


class Watch:
    """Searches for the primary while a connection is in use for long: callers that wait for a dead server would not."""

    def __init__(self, engine: Engine, finder: Finder) -> None:
        self._engine = weakref.ref(engine)
        self._finder = finder
        self._running = False
        self._looking = False
        self._listening = False
        self._looked_at = self._quiet_until = 0.0
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        self._running = self._looking = self._listening = False

    def begin(self) -> None:
        engine = self._engine()
        if engine is not None and engine.dialect.is_async:
            self._loop = weakref.ref(asyncio.get_running_loop())
        if not self._running:
            self._running = True
            caretaker.add(id(self), self, HELD)

    def __call__(self) -> float | None:
        engine = self._engine()
        if engine is None or not pool.ledger(engine).live():
            self._running = False
            return None  # until the next connection
        if self._looking:
            return HELD
        wait = self._wait(engine, monotonic())
        if wait <= 0:
            self._looking = True
            self._begin_look(engine)
            return HELD
        return max(SHORTEST, min(HELD, wait))

    def _wait(self, engine: Engine, now: float) -> float:
        """Return the seconds until the next check, if nothing happens until then."""
        held = max((each.seconds for each in pool.ledger(engine).holders()), default=0.0)
        if held < HELD:
            return HELD - held
        # A server that serves others is working; it may have become silent since the last one.
        returned = max((each.returned_at for each in pool.ledger(engine).live() if isinstance(each, Record)), default=0)
        due = self._quiet_until
        return (min(due, returned + HELD) if returned > self._looked_at else due) - now

    def _begin_look(self, engine: Engine) -> None:
        try:
            if not engine.dialect.is_async:
                Thread(target=self._look, args=(engine,), name="dbconfig-primary", daemon=True).start()
                return
            loop = self._loop() if self._loop is not None else None
            if loop is None:
                raise RuntimeError("the event loop has ended")
            loop.call_soon_threadsafe(self._look_in_loop, engine)
        except RuntimeError as error:
            self._looking = False
            logger.debug("the search for the primary did not start: %s", error)

    def _look(self, engine: Engine) -> None:
        try:
            while self._looks_on(engine, self._search(engine)):
                pass
        finally:
            self._looking = False

    def _search(self, engine: Engine) -> Exception | None:
        try:
            engine.dialect.do_close(_connect(engine))
            self._found(engine)
        except Exception as error:  # the next caller that needs a connection gets the error
            logger.debug("no primary found: %s", error)
            return error
        return None

    def _looks_on(self, engine: Engine, error: Exception | None) -> bool:
        """Return whether the next search follows immediately.

        Otherwise a promotion would be noticed a second later, in the next round. No host is asked more than once per
        second, even if searches follow each other.
        """
        return getattr(error, JUDGED, None) is NO_PRIMARY and _is_held(engine)

    def _look_in_loop(self, engine: Engine) -> None:
        task = asyncio.ensure_future(self._async_look(engine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _async_look(self, engine: Engine) -> None:
        try:
            while self._looks_on(engine, await self._async_search(engine)):
                pass
        finally:
            self._looking = False

    async def _async_search(self, engine: Engine) -> Exception | None:
        try:
            connection = await greenlet_spawn(_connect, engine)
            await farewell.close(engine.dialect, connection, terminate=False)
            self._found(engine)
        except Exception as error:
            logger.debug("no primary found: %s", error)
            return error
        return None

    def _found(self, engine: Engine) -> None:
        self._looked_at = monotonic()
        self._quiet_until = self._looked_at + HEALTHY
        self.listen(engine)

    def listen(self, engine: Engine) -> None:
        """Start a thread that closes connections waiting for a former primary that no longer greets clients.

        If only one server accepts writes, that happened when another one was found. A Galera node and a replica are one
        of several: they were abandoned because they were slow to answer, and may still be working.
        """
        if self._listening or not _left(engine, self._finder):
            return
        self._listening = True
        try:
            Thread(target=self._listen, args=(engine,), name="dbconfig-greeting", daemon=True).start()
        except RuntimeError as error:
            self._listening = False
            logger.debug("the former primary does not listen: %s", error)

    def _listen(self, engine: Engine) -> None:
        try:
            for place in _left(engine, self._finder):
                begun = monotonic()
                if not greeting.is_heard(place, greeting.question(engine.dialect.name)):
                    _end(engine, place, begun)
        finally:
            self._listening = False


def _left(engine: Engine, finder: Finder) -> set[Host]:
    """Return the servers other than the last primary to which connections are in use."""
    places = {record.info.get(PLACE) for record in pool.ledger(engine).records()}
    return places - {None, finder.memory.last}


def _end(engine: Engine, place: Host, begun: float) -> None:
    """Close the connections to a silent server that were already in use at a given time."""
    name, seconds = pool.ledger(engine).name, monotonic() - begun
    own = driver.of(engine.dialect)
    late = [each.record for each in pool.ledger(engine).holders() if each.seconds >= seconds]
    late = [record for record in late if record.info.get(PLACE) == place and record.dbapi_connection is not None]
    if not late:
        return
    logger.warning(
        "%s: %s does not respond; closing %d connections that wait for it",
        name,
        hosts.joined(*place),
        len(late),
        extra=facts(name, server=hosts.joined(*place), replaced=len(late)),
    )
    for record in late:
        fd = own.socket(record.driver_connection)
        if fd is not None:
            sockets.shut(fd)


def _is_held(engine: Engine) -> bool:
    """Return whether a connection has been in use for so long that it may wait for a dead server."""
    return any(each.seconds > HELD for each in pool.ledger(engine).holders())


def _connect(engine: Engine) -> Any:
    """Connect as the pool does, but outside it."""
    nobodys: Any = SimpleNamespace(info={})
    return engine.pool._invoke_creator(nobodys)
