"""Several hosts of one database: new connections go to the primary, and connections to other servers are closed."""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from dbconfig.engine import pool
from dbconfig.engine.dialects import errors
from dbconfig.engine.dialects.error_table import JUDGED, NO_PRIMARY, READ_ONLY_BY_DEFAULT, UNKNOWN, Fate, Meaning
from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.engine.pool import driver, sockets
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.primary.finder import NoPrimary, ReadOnlyByDefault, TaskFinder, ThreadFinder
from dbconfig.engine.primary.search import Host
from dbconfig.engine.primary.watch import PLACE, Watch
from dbconfig.settings import hosts
from dbconfig.settings.database import DatabaseSettings, ReplicaSettings
from dbconfig.settings.known_drivers import PORTS

logger: logging.Logger = logging.getLogger("dbconfig.primary")

# The driver's own ways to choose a server.
_OWN: Final = ("hostaddr", "load_balance_hosts", "service")


def wants(settings: DatabaseSettings) -> str:
    """Return which of several hosts is wanted: "primary", "read-write", "any"; "" leaves the choice to the driver."""
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
    """Make each connect of an engine search for the primary, if its settings name several hosts."""
    wanted = wants(settings)
    if not wanted:
        return
    dialect: Any = engine.dialect
    kind = TaskFinder if dialect.is_async else ThreadFinder
    finder = kind(dialect, settings, _hosts(settings), wants=wanted)
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

    watch = Watch(engine, finder)
    what = "the server for reads" if wanted == "any" else "the primary"

    def replace(host: Host, alone: bool) -> None:
        found = known()
        if found is None:
            return
        _replace(found, name, what, host, alone=alone)
        if not alone:
            watch.listen(found)

    finder.on_change = replace
    if isinstance(finder, TaskFinder):
        finder.pool = lambda: getattr(known(), "pool", None)
    _note_places(engine, finder, watch, any_server=wanted == "any")


def _note_places(engine: Engine, finder: ThreadFinder | TaskFinder, watch: Watch, *, any_server: bool) -> None:
    """Write the server of each connection into its record, and mark it as doubtful when the connection is lost."""
    dialect: Any = engine.dialect

    def note(connection: Any, record: Any) -> None:
        record.info[PLACE] = place = finder.place_of(connection)
        if place != finder.memory.last and not any_server:
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


def _replace(engine: Engine, name: str, what: str, host: Host, *, alone: bool) -> None:
    """Close the connections to servers other than the primary.

    Args:
        engine: whose connections.
        name: its name in logs.
        what: the role of the server, for logs.
        host: the primary.
        alone: no other server accepts writes, so connections in use there are closed as well.
    """
    ledger = pool.ledger(engine)
    others = [record for record in ledger.live() if record.info.get(PLACE) not in (None, host)]
    place = hosts.joined(*host)
    logger.warning(
        "%s: %s is now %s; replacing %d connections to other servers",
        name,
        what,
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
    """Return the answers of all hosts as one error of the driver's class, already classified."""
    rows: list[Meaning] = []
    words = []
    for host, said in found.said.items():
        text = " ".join(str(said).split()) or type(said).__name__
        words.append(f"{hosts.joined(*host)}: {text}")
        rows.append(_meaning(said, settings))
    words += [f"{hosts.joined(*host)}: no answer yet" for host in found.silent]
    text = f"none of the hosts is a usable primary ({'; '.join(words)})"
    error: Exception = dialect.loaded_dbapi.OperationalError(text)
    # A host that accepted the login shows that it is valid; otherwise a permanent rejection is what has to be fixed.
    final = next((row for row in rows if row.fate is Fate.FINAL and row is not UNKNOWN), None)
    alike = rows[0] if rows and not found.silent and all(row == rows[0] for row in rows) else None
    # A role and a database are the same on all hosts: none of them will accept writes after a failover either.
    decided = next((row for row in (READ_ONLY_BY_DEFAULT, NO_PRIMARY) if row in rows), None)
    setattr(error, JUDGED, decided or final or alike or NO_PRIMARY)
    return error


def _meaning(said: str | BaseException, settings: DatabaseSettings) -> Meaning:
    if isinstance(said, str):
        return NO_PRIMARY
    if isinstance(said, ReadOnlyByDefault):
        return READ_ONLY_BY_DEFAULT
    return errors.of_connect(said, settings.backend) or UNKNOWN
