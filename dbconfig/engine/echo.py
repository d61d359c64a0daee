"""Echo once: if the program has configured logging, SQLAlchemy's own handler would print records twice."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.log import InstanceLogger


def print_once(engine: Engine) -> None:
    """Replace the handler that SQLAlchemy adds for `echo` and `echo_pool` with one that is silent if others print."""
    for owner in (engine, engine.pool):
        if isinstance(owner.logger, InstanceLogger):
            logger = owner.logger.logger
            for handler in [each for each in logger.handlers if _is_sqlalchemys(each)]:
                logger.removeHandler(handler)
                logger.addHandler(_Echo(handler.formatter))


def _is_sqlalchemys(handler: logging.Handler) -> bool:
    formatter = handler.formatter
    written = "%(asctime)s %(levelname)s %(name)s %(message)s"  # sqlalchemy.log
    return type(handler) is logging.StreamHandler and formatter is not None and formatter._fmt == written


class _Echo(logging.Handler):
    """Prints a record to stdout, unless a handler of the program prints it."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        # Checked each time: logging is often configured after the engine is created.
        if not _is_printed(record):
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()


def _is_printed(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(_prints(handler) and record.levelno >= handler.level for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _prints(handler: logging.Handler) -> bool:
    """Return whether a handler may print: one that writes to a file, buffers, or drops its records does not."""
    stream: Any = getattr(handler, "stream", None)
    return not isinstance(handler, (_Echo, logging.NullHandler, logging.FileHandler)) and not isinstance(
        stream, io.StringIO
    )
