"""Errors of the `alembic` command: what is wrong with a profile or a connection, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from dbconfig.engine.connection_failures import classify, problem
from dbconfig.errors import ConfigError

if TYPE_CHECKING:
    from alembic.config import Config

    from dbconfig.settings.database import DatabaseSettings


@contextmanager
def reported(config: Config) -> Iterator[None]:
    """End the `alembic` command with exit code 1 and the text of a ConfigError; raise it in other programs.

    `alembic --raiseerr` shows the traceback.
    """
    try:
        yield
    except ConfigError as error:
        if not _is_command(config):
            raise
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from error


@contextmanager
def connecting(config: Config, settings: DatabaseSettings, database: str) -> Iterator[None]:
    """Turn the error of a failed connect into a ConfigError in the `alembic` command, with the value at fault."""
    try:
        yield
    except SQLAlchemyError as error:
        if not _is_command(config) or not _is_of_connect(error):
            raise
        raise ConfigError([problem(classify(error, settings), settings, database)]) from error


def _is_of_connect(error: SQLAlchemyError) -> bool:
    """Whether `connection_failures.annotate` has explained it; a failed migration keeps its traceback."""
    notes = getattr(error, "__notes__", ())
    return getattr(error, "statement", None) is None and any(note.startswith("dbconfig[") for note in notes)


def _is_command(config: Config) -> bool:
    """Whether this process is the `alembic` command: a program that calls `alembic.config.main` handles errors."""
    options: Any = config.cmd_opts
    program = Path(sys.argv[0])
    is_alembic = program.stem == "alembic" or program.parts[-2:] == ("alembic", "__main__.py")
    return options is not None and not getattr(options, "raiseerr", False) and is_alembic
