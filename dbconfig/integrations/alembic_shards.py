"""Migrations of many shards: the revision of each, and parallel execution."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dbconfig.engine import create
from dbconfig.errors import ConfigError
from dbconfig.registry.registry import Registry
from dbconfig.registry.registry import default as _application
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import DEFAULT

_PARALLEL: Final = ("upgrade", "downgrade")  # commands whose result differs between shards
_LAST_WORDS: Final = 12  # lines of a process that failed


def revisions(database: str = DEFAULT, *, registry: Registry | None = None) -> dict[str, tuple[str, ...]]:
    """Return the revision of a database, or of each of its shards, by name; () is a database without migrations.

    >>> revisions("orders")
    {'orders/eu': ('8f1d2c3b4a59',), 'orders/us': ()}
    """
    source = registry or _application
    return {name: _revision(source, name) for name in source.parts.profiles.every_shard(database)}


def _revision(source: Registry, name: str) -> tuple[str, ...]:
    found: list[tuple[str, ...]] = []

    def read(connection: Connection) -> None:
        found.append(tuple(MigrationContext.configure(connection).get_current_heads()))

    settings = settings_of(source, name)
    label = f"{source.profile.name}/{name}"
    if settings.only_asynchronous():
        in_a_loop(partial(lent, create.build(settings, label, asynchronous=True), read))
        return found[0]
    engine = create.build(settings, label)
    try:
        with engine.connect() as connection:
            read(connection)
    finally:
        engine.dispose()
    return found[0]


def print_table(config: Config, source: Registry, names: Sequence[str]) -> None:
    """Print the revision of each shard, or why it cannot be reached."""
    width = max(map(len, names))
    for name in names:
        try:
            where = ", ".join(_revision(source, name)) or "(none)"
        except (SQLAlchemyError, OSError, ConfigError) as error:
            where = f"not reached: {(str(error).splitlines() or [type(error).__name__])[0]}"
        config.print_stdout("%s", f"{name:<{width}}  {where}")


def in_parallel(config: Config, source: Registry, names: Sequence[str], count: str) -> None:
    """Upgrade or downgrade several databases at a time, each in a process, since Alembic has one context in each.

    Raises:
        CommandError: some of them failed, while the others continued; or the command does not support it.
    """
    command = _command(config)
    if not count.isdecimal() or not int(count):
        raise CommandError(f"-x parallel={count}: a number of databases at a time, at least 1")

    def run(name: str) -> str:
        words = [*command[0], "-x", f"database={name}", *command[1]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode == 0:
            return ""
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-_LAST_WORDS:]
        return "\n".join(f"{name}: {line}" for line in lines) or f"{name}: exit {done.returncode}"

    with ThreadPoolExecutor(int(count), thread_name_prefix="alembic") as threads:
        failed = [words for words in threads.map(run, names) if words]
    print_table(config, source, names)
    if failed:
        raise CommandError("\n".join([f"{len(failed)} of {len(names)} databases failed:", *failed]))


def _command(config: Config) -> tuple[list[str], list[str]]:
    """Return the running command, split where the option for the database is inserted.

    Raises:
        CommandError: it was not passed to `alembic`, or is a command that runs once for all shards.
    """
    given: Any = config.cmd_opts
    name = given.cmd[0].__name__ if given is not None else ""
    if name not in _PARALLEL or given.sql:
        words = f"alembic {name}".strip() if given is not None else "a program"
        raise CommandError(f"-x parallel is for alembic upgrade and alembic downgrade, and this is {words}")
    x = [part for each in given.x or () if not each.startswith("parallel=") for part in ("-x", each)]
    before = [sys.executable, "-m", "alembic", "-c", str(config.config_file_name), "-n", config.config_ini_section, *x]
    tag = ["--tag", given.tag] if getattr(given, "tag", None) else []
    return before, [name, *tag, "--", given.revision]


def settings_of(registry: Registry, name: str) -> DatabaseSettings:
    """Return the settings for migrations: without a pool, and without a statement timeout."""
    settings = registry.parts.profiles.resolve(name).settings
    given = {"poolclass": "NullPool", "statement_timeout": None, "engine_idle_timeout": None}
    return settings.model_copy(update=given)


async def lent(engine: Engine, work: Callable[[Connection], None]) -> None:
    """Call a function with a connection of an asynchronous engine, and dispose of the engine."""
    from sqlalchemy.ext.asyncio import AsyncEngine

    made = AsyncEngine(engine)
    try:
        async with made.connect() as connection:
            await connection.run_sync(work)
    finally:
        await made.dispose()


def in_a_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, whether or not a loop runs here: Alembic's commands cannot be awaited."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    # In an application's lifespan. Its loop is blocked meanwhile, as with a synchronous driver.
    run = partial(copy_context().run, lambda: asyncio.run(work()))
    with ThreadPoolExecutor(1, thread_name_prefix="alembic") as thread:
        thread.submit(run).result()
