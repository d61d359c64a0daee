"""Several hosts of one database: new connections go to the primary, and old ones to another server are ended."""

from __future__ import annotations

import asyncio
import logging
import weakref
from functools import partial
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.util import greenlet_spawn

from dbconfig.engine import pool
from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import JUDGED, NO_PRIMARY, UNKNOWN, Fate, Meaning
from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.engine.pool import caretaker, driver, farewell, forks, sockets
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.primary import greeting
from dbconfig.engine.primary.finder import Finder, NoPrimary, TaskFinder, ThreadFinder
from dbconfig.engine.primary.search import SPACING, Host
from dbconfig.settings import hosts
from dbconfig.settings.database import DatabaseSettings, ReplicaSettings
from dbconfig.settings.known_drivers import PORTS

logger: logging.Logger = logging.getLogger("dbconfig.primary")

PLACE: Final = "dbconfig.host"  # in the info of a connection's record: where it leads
# Seconds that a connection is in use before somebody looks whether its server is still the primary: it may wait for a
# machine that stands still. And seconds until the next look, when it was.
HELD: Final = 2.0
HEALTHY: Final = 5.0

# Ways to choose a server that are the driver's own.
_OWN: Final = ("hostaddr", "load_balance_hosts", "service")


def wants(settings: DatabaseSettings) -> str:
    """Return which of several hosts is looked for: "primary", "read-write", "any"; "" is for the driver to decide."""
    query = settings.address.query
    if len(_hosts(settings)) < 2 or any(name in query or name in settings.connect_args for name in _OWN):
        return ""
    if settings.backend != "postgresql":
        return "any" if isinstance(settings, ReplicaSettings) else "primary"
    wanted = str(settings.connect_args.get("target_session_attrs") or query["target_session_attrs"][-1])
    return wanted if wanted in ("primary", "read-write", "any") else ""


def _hosts(settings: DatabaseSettings) -> list[Host]:
    address = settings.address
    if settings.backend == "sqlite" or settings.is_generic or "host" not in address.query:
        return []
    return list(dict.fromkeys(hosts.servers(None, address.port, address.query, PORTS[settings.backend])))


def attach(engine: Engine, settings: DatabaseSettings, name: str) -> None:
    """Let each connect of an engine look for the primary, where its settings name several hosts."""
    wanted = wants(settings)
    if not wanted:
        return
    dialect: Any = engine.dialect
    kind = TaskFinder if dialect.is_async else ThreadFinder
    finder = kind(dialect, settings.backend, _hosts(settings), settings.connect_timeout, wants=wanted)
    connect, known = dialect.connect, weakref.ref(engine)

    def connect_to_primary(*arguments: Any, **keywords: Any) -> Any:
        try:
            return finder.connect(partial(connect, *arguments), keywords)
        except NoPrimary as found:
            raise _error(dialect, settings, found) from next(
                (each for each in found.said.values() if isinstance(each, BaseException)), None
            )
        finally:
            keywords.clear()  # the password, which error reporters print with the local variables of a frame

    dialect.connect = connect_to_primary  # on the dialect object of this engine alone

    def replace(host: Host, alone: bool) -> None:
        found = known()
        if found is not None:
            _replace(found, name, host, alone=alone)

    finder.on_change = replace
    if isinstance(finder, TaskFinder):
        finder.pool = lambda: getattr(known(), "pool", None)
    _note_places(engine, finder, _Watch(engine, finder) if wanted != "any" else None)


def _note_places(engine: Engine, finder: ThreadFinder | TaskFinder, watch: _Watch | None) -> None:
    """Write the server of each connection into its record, and doubt that server when the connection is lost."""
    dialect: Any = engine.dialect

    def note(connection: Any, record: Any) -> None:
        record.info[PLACE] = place = finder.place_of(connection)
        if watch is None:
            return
        if place != finder.memory.last:
            error = dialect.loaded_dbapi.OperationalError("another connect has found another primary meanwhile")
            setattr(error, JUDGED, NO_PRIMARY)
            raise error
        watch.begin()

    on_connect(engine, note, first=True)

    @event.listens_for(engine, "handle_error")
    def doubt(context: ExceptionContext) -> None:
        if context.is_disconnect and context.connection is not None:
            proxied = context.connection._dbapi_connection
            place = proxied.info.get(PLACE) if proxied is not None and proxied.is_valid else None
            finder.memory.doubt(place)


def _replace(engine: Engine, name: str, host: Host, *, alone: bool) -> None:
    """End the connections to other servers than the primary.

    Args:
        engine: whose connections.
        name: its name in logs.
        host: the primary.
        alone: no other server may be written to, so that what is under way there ends as well.
    """
    ledger = pool.ledger(engine)
    others = [record for record in ledger.live() if record.info.get(PLACE) not in (None, host)]
    place = hosts.joined(*host)
    logger.warning(
        "%s: the primary is now %s; replacing %d connections to other servers",
        name,
        place,
        len(others),
        extra=facts(name, primary=place, replaced=len(others)),
    )
    pool.retire(engine, others)
    if not alone:
        return
    busy = {id(record) for record in ledger.records()}
    own = driver.of(engine.dialect)
    for record in others:
        if id(record) in busy and record.dbapi_connection is not None:
            fd = own.socket(record.driver_connection)
            if fd is not None:
                sockets.shut(fd)


def _error(dialect: Any, settings: DatabaseSettings, found: NoPrimary) -> Exception:
    """Return what was said by all hosts as one error of the driver's kind, which knows what it means."""
    rows: list[Meaning] = []
    words = []
    for host, said in found.said.items():
        text = " ".join(str(said).split()) or type(said).__name__
        words.append(f"{hosts.joined(*host)}: {text}")
        rows.append(_meaning(said, settings))
    words += [f"{hosts.joined(*host)}: no answer yet" for host in found.silent]
    text = f"none of the hosts is a usable primary ({'; '.join(words)})"
    error: Exception = dialect.loaded_dbapi.OperationalError(text)
    # Who was let in knows that the login is right; else one that is refused for good is what has to be mended.
    final = next((row for row in rows if row.fate is Fate.FINAL and row is not UNKNOWN), None)
    alike = rows[0] if rows and not found.silent and all(row == rows[0] for row in rows) else None
    setattr(error, JUDGED, NO_PRIMARY if NO_PRIMARY in rows else final or alike or NO_PRIMARY)
    return error


def _meaning(said: str | BaseException, settings: DatabaseSettings) -> Meaning:
    if isinstance(said, str):
        return NO_PRIMARY
    return errors.of_connect(said, settings.backend) or UNKNOWN


def _end_unanswered(engine: Engine, finder: Finder) -> None:
    """End what waits for a server that was left, and that no longer greets clients.

    Where one server alone may be written to, that has happened when another one was found. A node of Galera is one of
    several: it is left because it was slow to answer, and may still be at work.
    """
    name, now = pool.ledger(engine).name, finder.memory.last
    own = driver.of(engine.dialect)
    late: dict[Host, list[Any]] = {}
    for holder in pool.ledger(engine).holders():
        place = holder.record.info.get(PLACE)
        if holder.seconds > HELD and place not in (None, now):
            late.setdefault(place, []).append(holder.record)
    for place, records in late.items():
        if greeting.is_heard(place):
            continue
        logger.warning(
            "%s: %s does not respond; closing %d connections that wait for it",
            name,
            hosts.joined(*place),
            len(records),
            extra=facts(name, server=hosts.joined(*place), replaced=len(records)),
        )
        for record in records:
            if record.dbapi_connection is None or record.info.get(PLACE) != place:
                continue  # it was closed, or connected to another server, while this one was asked
            fd = own.socket(record.driver_connection)
            if fd is not None:
                sockets.shut(fd)


class _Watch:
    """Looks for the primary while a connection is in use for long: nobody else would, if all wait for a dead one."""

    def __init__(self, engine: Engine, finder: Finder) -> None:
        self._engine = weakref.ref(engine)
        self._finder = finder
        self._running = False
        self._looking = False
        self._quiet_until = 0.0
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        forks.after_fork_in_child(self.forget)

    def forget(self) -> None:
        self._running = self._looking = False

    def begin(self) -> None:
        engine = self._engine()
        if engine is not None and engine.dialect.is_async:
            self._loop = weakref.ref(asyncio.get_running_loop())
        if not self._running:
            self._running = True
            caretaker.add(id(self), self, SPACING)

    def __call__(self) -> float | None:
        engine = self._engine()
        if engine is None or not pool.ledger(engine).live():
            self._running = False
            return None  # until the next connection
        if not self._looking and monotonic() >= self._quiet_until and _is_held(engine):
            self._looking = True
            self._begin_look(engine)
        return SPACING

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
            self._end_unanswered(engine)
            self._quiet_until = monotonic() + HEALTHY
        except Exception as error:  # whoever needs a connection is told
            logger.debug("no primary found: %s", error)
            return error
        return None

    def _looks_on(self, engine: Engine, error: Exception | None) -> bool:
        """Return whether the next search follows at once.

        Until the next round nobody would ask, and a promotion would be seen a second later. No host is asked more than
        once a second, however the searches follow each other.
        """
        return getattr(error, JUDGED, None) is NO_PRIMARY and _is_held(engine)

    def _end_unanswered(self, engine: Engine) -> None:
        if engine.dialect.name in ("mysql", "mariadb"):  # whose servers speak first
            _end_unanswered(engine, self._finder)

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
            await asyncio.to_thread(self._end_unanswered, engine)
            self._quiet_until = monotonic() + HEALTHY
        except Exception as error:
            logger.debug("no primary found: %s", error)
            return error
        return None


def _is_held(engine: Engine) -> bool:
    """Return whether a connection is in use for so long that it may wait for a dead server."""
    return any(each.seconds > HELD for each in pool.ledger(engine).holders())


def _connect(engine: Engine) -> Any:
    """Connect past the pool, as the pool does."""
    nobodys: Any = SimpleNamespace(info={})
    return engine.pool._invoke_creator(nobodys)
