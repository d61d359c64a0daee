"""SQLite: shared databases in memory, transactions that actually begin, foreign keys, WAL, and timeouts."""

from __future__ import annotations

import itertools
import os
import sqlite3
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Engine, event

from dbconfig.engine import pool
from dbconfig.engine.dialects.driver_arguments import unknown_argument, variable_names
from dbconfig.engine.dialects.set_up import on_connect
from dbconfig.engine.dialects.sqlite import file_identity
from dbconfig.engine.dialects.sqlite import foreign_keys as foreign_keys
from dbconfig.engine.dialects.sqlite.connection import driver_of
from dbconfig.engine.dialects.sqlite.pragmas import (
    BUSY_TIMEOUT,
    _literal,
    _read_only,
    _set_journal_mode,
    _unknown_pragmas,
)
from dbconfig.engine.dialects.sqlite.statement_timeout import connection_class
from dbconfig.engine.dialects.sqlite.transactions import begin, run
from dbconfig.engine.dialects.sqlite.write_queue import queue_of
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings import driver_parameters
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from dbconfig.settings.database import DatabaseSettings


_CONNECT: Final = driver_parameters.SQLITE
_URI: Final = driver_parameters.SQLITE_FILE_URL
_memories = itertools.count(1)


def address(settings: DatabaseSettings, drivername: str) -> URL:
    name = _memory_name(settings)
    if name:
        # The memdb VFS: one database for all connections and threads. A shared cache fails with "table is locked",
        # and one connection for all threads mixes their transactions.
        return URL.create(drivername, database=f"file:/{quote(name)}", query={"vfs": "memdb", "uri": "true"})
    url = settings.public_url(drivername)
    if settings.path is not None:
        return url
    return url.set(database=f"file:{quote(str(_file(settings)))}").update_query_dict({"uri": "true"})


def arguments(settings: DatabaseSettings, drivername: str) -> dict[str, Any]:
    _check(settings)
    given = {key: value for key, value in settings.connect_args.items() if not isinstance(value, Secret)}
    timeout = settings.lock_timeout if settings.lock_timeout is not None else BUSY_TIMEOUT
    factory = connection_class(_own_class(settings, given), settings.statement_timeout)
    return {"timeout": timeout, **given, "factory": factory}


def _own_class(settings: DatabaseSettings, given: dict[str, Any]) -> type[sqlite3.Connection] | None:
    own = given.get("factory")
    if own is None or (isinstance(own, type) and issubclass(own, sqlite3.Connection)):
        return own
    message = "`factory` must be a class derived from sqlite3.Connection"
    key = "connect_args.factory"
    raise ConfigError([Problem("invalid-value", message, settings.origin(key), key)])


def attach(engine: Engine, settings: DatabaseSettings) -> None:
    dialect: Any = engine.dialect
    dialect.do_begin = begin  # on the dialect object of this engine alone
    memory = engine.url.query.get("vfs") == "memdb"
    place = "" if memory else f": {_file(settings)}"
    if memory:
        keep(engine)
        watch_memory(engine)
    else:
        _open_by(engine, settings, _file(settings))
        file_identity.watch(engine, _file(settings))
    pragmas: dict[str, Any] = {"foreign_keys": True}
    if not memory and not _read_only(settings):
        pragmas |= {"journal_mode": "WAL", "synchronous": "NORMAL"}
    pragmas |= variable_names(settings)

    def set_pragmas(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        # No transaction is open here: a PRAGMA within one is ignored or rejected.
        try:
            for name, value in pragmas.items():
                if name == "journal_mode":
                    _set_journal_mode(connection, str(value))
                else:
                    run(connection, f"PRAGMA {name} = {_literal(value)}")
        except sqlite3.DatabaseError as error:
            error.args = (f"{error}{place}",)
            raise

        driver_of(connection).switched = False

    on_connect(engine, set_pragmas)

    def restore_foreign_keys(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        # Not at checkin, where an error or a cancellation would cost the pool a connection.
        ours = driver_of(connection)
        if ours.switched:
            run(connection, f"PRAGMA foreign_keys = {_literal(pragmas['foreign_keys'])}")
            ours.switched = False

    pool.inspect_each_loan(engine, restore_foreign_keys)


def set_up_foreign(engine: Engine, settings: DatabaseSettings) -> None:
    """Do nothing: no such connections exist here."""


def session_reset(engine: Engine, settings: DatabaseSettings) -> None:
    """Return None: a new connection costs less than finding out what was attached, set, and created."""


def watch_memory(engine: Engine) -> None:
    """Make the connections of a database in memory queue for writing, and begin transactions late."""
    database = f"memory:{engine.url.database}"

    @event.listens_for(engine, "connect", insert=True)
    def join(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        ours = driver_of(connection)
        ours.in_memory, ours.queue = True, queue_of(database)


def _memory_name(settings: DatabaseSettings) -> str:
    """Return the name of a database in memory, or "" for a file; an unshared one gets a new name."""
    database, query = settings.address.database or "", settings.address.query
    in_memory = settings.in_memory or database == "file::memory:" or "memory" in query.get("mode", ())
    if "memdb" in query.get("vfs", ()) or (in_memory and "shared" in query.get("cache", ())):
        return database.removeprefix("file:").strip("/:")  # one database for all engines of the process that name it
    return f"dbconfig-{os.getpid()}-{next(_memories)}" if in_memory else ""


def _file(settings: DatabaseSettings) -> Path:
    """Return the file, resolved against the project folder, not against the working directory."""
    path = settings.path or (settings.folder or Path()) / (settings.address.database or "").removeprefix("file:")
    return path.absolute()


def keep(engine: Engine) -> None:
    """Keep one connection open, so that the database in memory lives as long as its engine."""
    database = str(engine.url.database)
    keeper = sqlite3.connect(f"{database}?vfs=memdb", uri=True, check_same_thread=False)
    weakref.finalize(engine, keeper.close)


def _open_by(engine: Engine, settings: DatabaseSettings, path: Path) -> None:
    """Create the folder of a file that may be created, and name the file in the error if it cannot be opened."""
    may_create = not {"ro", "rw"} & {*settings.address.query.get("mode", ())}
    dialect: Any = engine.dialect
    connect = dialect.connect

    def open_file(*arguments: Any, **keywords: Any) -> DBAPIConnection:
        try:
            if may_create:
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"unable to open database file {path}: its folder cannot be created: {error.strerror}"
            raise sqlite3.OperationalError(message) from error
        try:
            opened: DBAPIConnection = connect(*arguments, **keywords)
        except sqlite3.OperationalError as error:
            error.args = (f"{error} {path}: {_hindrance(path)}",)
            raise
        return opened

    # Not with a `do_connect` listener: one that returns a connection hides the application's listeners.
    dialect.connect = open_file  # on the dialect object of this engine alone


def _hindrance(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    needed, kind = (path, os.R_OK) if path.exists() else (path.parent, os.W_OK)
    if not needed.exists():
        return "the folder does not exist"
    if not os.access(needed, kind):
        return "permission denied"
    return "the file does not exist" if not path.exists() else "the operating system denies access"


def _check(settings: DatabaseSettings) -> None:
    problems = [_refused(settings, name) for name in settings.connect_args if name not in _CONNECT]
    problems += _unknown_pragmas(settings)
    if problems:
        raise ConfigError(problems)


def _refused(settings: DatabaseSettings, name: str) -> Problem:
    if name not in driver_parameters.OWN_BEGIN:
        return unknown_argument(settings, name, "sqlite3", "connect_args")
    message, help = driver_parameters.own_begin(name)
    key = f"connect_args.{name}"
    return Problem("not-applicable", message, settings.origin(key), key, help)
