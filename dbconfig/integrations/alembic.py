"""Alembic: an `env.py` of one call, for every profile, sync or async, offline or online, one database or several."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from logging.config import fileConfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, Engine, MetaData, text
from sqlalchemy.exc import OperationalError

from dbconfig.config.folder import find_folder, shown_path
from dbconfig.engine import create
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.integrations import alembic_errors
from dbconfig.integrations.alembic_shards import in_a_loop, in_parallel, lent, print_table, revisions, settings_of
from dbconfig.registry.registry import Registry
from dbconfig.registry.registry import default as _application
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import DEFAULT
from dbconfig.settings.shards import SEPARATOR

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["LOCK_TIMEOUT", "NAMING_CONVENTION", "revisions", "run_migrations", "upgrade"]

_log = logging.getLogger(__name__)

# https://alembic.sqlalchemy.org/en/latest/naming.html: not every system can drop an unnamed constraint.
NAMING_CONVENTION: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
LOCK_TIMEOUT: Final = 600.0  # seconds; another container's migrations may rewrite a large table
_LOCK: Final = 0x616C656D626963  # "alembic"
_POLL: Final = 0.5  # seconds


def run_migrations(
    metadata: MetaData | Mapping[str, MetaData],
    *,
    registry: Registry | None = None,
    asynchronous: bool | None = None,
    **options: Any,
) -> None:
    """Run the current `alembic` command: the whole content of an `env.py`.

    In that command, an error of the profile or the connection is printed without a traceback (`--raiseerr` shows it).

    The profile is ENVIRONMENT's. `-x database=NAME` picks one of several databases, `-x database=NAME/SHARD` a shard:
    without it, the shards of a database are migrated one after another, or, with `-x parallel=8`, eight at a time, each
    in a separate process; a table then shows the revision of each. A connection in ``config.attributes["connection"]``
    is used unchanged, for migrations within tests.

    Args:
        metadata: of the models; or of each database, by its name in the profile: then each has its own functions,
            `upgrade_NAME` and `downgrade_NAME`, in a revision.
        registry: another registry than `dbconfig.db`.
        asynchronous: use an asynchronous driver; None: only if the profile names one.
        options: for `context.configure`, in addition to those that the profile determines.
    """
    config = context.config
    if config.config_file_name is not None and config.attributes.get("configure_logger", _is_ours_to_log(config)):
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    with alembic_errors.reported(config):
        _run(registry or _application, metadata, asynchronous, options)


def _run(
    source: Registry,
    metadata: MetaData | Mapping[str, MetaData],
    asynchronous: bool | None,
    options: Mapping[str, Any],
) -> None:
    config = context.config
    several = isinstance(metadata, Mapping)
    targets = dict(metadata) if isinstance(metadata, Mapping) else {DEFAULT: metadata}
    given_x = context.get_x_argument(as_dictionary=True)
    picked = given_x.get("database")
    if picked is not None and not several:
        targets = {picked: targets[DEFAULT]}
    elif picked is not None:
        targets = {picked: targets[_known(picked.partition(SEPARATOR)[0], targets)]}
    spread = list(_spread(source, targets))
    if "parallel" in given_x and len(spread) > 1:
        in_parallel(config, source, [shard for _, _, shard in spread], given_x["parallel"])
        return
    try:
        _run_each(source, spread, several, asynchronous, options)
    finally:
        if len(spread) > len(targets) and config.cmd_opts is not None:
            print_table(config, source, [shard for _, _, shard in spread])


def _run_each(
    source: Registry,
    spread: list[tuple[str, MetaData, str]],
    several: bool,
    asynchronous: bool | None,
    options: Mapping[str, Any],
) -> None:
    config = context.config
    for name, target, shard in spread:
        if len(spread) > 1 and SEPARATOR in shard:
            _log.info("shard %s", shard, extra={"database": name, "shard": shard})
        own = name.partition(SEPARATOR)[0]
        settings = settings_of(source, shard)
        given = {"target_metadata": target, "render_as_batch": settings.backend == "sqlite", **options}
        if several:
            given |= {"upgrade_token": f"{own}_upgrades", "downgrade_token": f"{own}_downgrades"}
        run = _Run(own if several else "", given)
        if context.is_offline_mode():
            run.offline(settings, asynchronous)
        elif (connection := config.attributes.get("connection")) is not None:
            if connection.dialect.name == "sqlite":
                _suspend_foreign_keys(connection)
            run.on(connection)
        else:
            with alembic_errors.connecting(config, settings, shard):
                run.online(settings, asynchronous, f"{source.profile.name}/{shard}")


def _spread(registry: Registry, targets: Mapping[str, MetaData]) -> Iterator[tuple[str, MetaData, str]]:
    """Yield each database, or each of its shards: its name in env.py, and its name in the profile.

    Commands with the same result for all shards run for one: a new revision, and SQL output.
    """
    config = context.config
    once = context.is_offline_mode() or getattr(config.cmd_opts, "autogenerate", False)
    once = once or config.attributes.get("connection") is not None
    for name, target in targets.items():
        shards = registry.parts.profiles.every_shard(name) if SEPARATOR not in name else [name]
        for shard in shards[:1] if once else shards:
            yield name, target, shard


def _is_ours_to_log(config: Config) -> bool:
    """Whether the ini configures logging: in the `alembic` command, not in a program, which would lose its handlers."""
    return config.cmd_opts is not None and not logging.getLogger().handlers


def _known(name: str, targets: Mapping[str, MetaData]) -> str:
    if name in targets:
        return name
    message = f"env.py has no database {quoted(name)}"
    raise ConfigError([Problem("unknown-database", message, notes=(f"it has: {', '.join(targets)}",))])


class _Run:
    """The migrations of one database."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._arguments = {"engine_name": name} if name else {}
        self._options = options

    def offline(self, settings: DatabaseSettings, asynchronous: bool | None) -> None:
        wanted = settings.only_asynchronous() if asynchronous is None else asynchronous
        url = settings.public_url(settings.driver(asynchronous=wanted))
        context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **self._options)
        self._migrate()

    def online(self, settings: DatabaseSettings, asynchronous: bool | None, label: str) -> None:
        wanted = settings.only_asynchronous() if asynchronous is None else asynchronous
        engine = create.build(settings, label, asynchronous=wanted)
        if wanted:
            in_a_loop(partial(_locked, engine, self.on))
            return
        try:
            with engine.connect() as connection, _alone(connection):
                self.on(connection)
        finally:
            engine.dispose()

    def on(self, connection: Connection) -> None:
        context.configure(connection=connection, **self._options)
        self._migrate()

    def _migrate(self) -> None:
        with context.begin_transaction():
            context.run_migrations(**self._arguments)


async def _locked(engine: Engine, work: Callable[[Connection], None]) -> None:
    """Migrate with a connection of an asynchronous engine, and dispose of the engine."""

    def locked(connection: Connection) -> None:
        with _alone(connection):
            work(connection)

    await lent(engine, locked)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Let one process at a time migrate: the others wait, and then find nothing to do."""
    system = connection.dialect.name
    if system == "sqlite":
        with _sqlite_alone(connection):
            yield
        return
    mysql = system in ("mysql", "mariadb")
    if not mysql and system != "postgresql":
        yield  # no lock is supported: run the migrations of such a database from one process
        return
    take = "SELECT GET_LOCK(:key, 0)" if mysql else "SELECT pg_try_advisory_lock(:key)"
    give = "SELECT RELEASE_LOCK(:key)" if mysql else "SELECT pg_advisory_unlock(:key)"
    # MySQL's locks are the server's, PostgreSQL's the database's.
    key: dict[str, Any] = {"key": f"alembic/{connection.engine.url.database}"[:64] if mysql else _LOCK}
    deadline = time.monotonic() + LOCK_TIMEOUT
    waited = False
    while not connection.scalar(text(take), key):
        connection.rollback()  # an open transaction would block the other process's CREATE INDEX CONCURRENTLY
        if time.monotonic() > deadline:
            raise TimeoutError(f"another process has been migrating this database for {LOCK_TIMEOUT:.0f} s")
        if not waited:
            _log.info("another process is migrating this database; waiting for it", extra={"seconds": LOCK_TIMEOUT})
        waited = True
        time.sleep(_POLL)
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text(give), key)
        connection.commit()


def _suspend_foreign_keys(connection: Connection) -> None:
    """Let a batch migration recreate a table that others refer to; no effect once the caller has written."""
    from dbconfig.engine.dialects.sqlite.foreign_keys import suspend_foreign_keys  # import its driver on demand

    suspend_foreign_keys(connection)


@contextmanager
def _sqlite_alone(connection: Connection) -> Iterator[None]:
    """Hold the write lock of the file, in one transaction with the migrations: all of them, or none."""
    driver: Any = connection.connection.dbapi_connection
    cursor = driver.cursor()
    cursor.execute("PRAGMA foreign_keys")
    enforced = cursor.fetchone()[0]
    cursor.execute("PRAGMA foreign_keys = OFF")  # a batch migration drops a table that others refer to
    try:
        with connection.begin():
            cursor.execute("ROLLBACK")
            _begin_immediate(connection)
            yield
    finally:
        cursor.execute(f"PRAGMA foreign_keys = {enforced}")  # the connection may be of the application's pool
        cursor.close()


def _begin_immediate(connection: Connection) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:  # the busy timeout is shorter than other processes' migrations
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        else:
            return


def upgrade(connectable: Engine | AsyncEngine, revision: str = "head", *, ini: str | None = None) -> None:
    """Upgrade the database of an engine: for the `db_setup` of tests, or at the start of a single process.

    >>> upgrade(db.engine())

    Args:
        connectable: `db.engine()`, or `db.async_engine()`. This blocks the event loop; to avoid that, use
            `await asyncio.to_thread(upgrade, db.engine())`.
        revision: the target revision.
        ini: Alembic's configuration; None is `alembic.ini` beside `config/`, or else in the working directory.

    Raises:
        ConfigError: the file does not exist.
    """
    config = Config(_found(ini))
    config.attributes["configure_logger"] = False

    def migrate(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()

    if isinstance(connectable, Engine):
        with connectable.connect() as connection, _alone(connection):
            migrate(connection)
        return
    # The engine's connections belong to its loop, so open others of the same kind.
    engine = connectable.sync_engine
    in_a_loop(partial(_locked, Engine(engine.pool.recreate(), engine.dialect, engine.url), migrate))


def _found(ini: str | None) -> str:
    """Return the path of Alembic's configuration."""
    name = ini or "alembic.ini"
    places = [Path(name)]
    with suppress(ConfigError):  # a registry may be created in code, without a folder
        own = find_folder().project / name
        places.insert(0 if ini is None else 1, own)
    for place in places:
        if place.is_file():
            return str(place)
    looked = tuple(f"looked for {shown_path(place.absolute())}" for place in places)
    message = f"{quoted(name)} was not found"
    raise ConfigError([Problem("no-config", message, help="dbconfig init --alembic writes one", notes=looked)])
