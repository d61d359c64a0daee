"""Echo once: if the program has configured logging, SQLAlchemy's own handler would print records twice."""

from __future__ import annotations

import io
import logging
import os
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
        if any(_prints(handler, record) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _prints(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """Return whether a handler may print a record: one that sends it elsewhere or filters it out does not."""
    if isinstance(handler, (_Echo, logging.NullHandler, logging.FileHandler)) or record.levelno < handler.level:
        return False
    if not handler.filter(record):
        return False
    if (known := sys.modules.get("logging.handlers")) is not None:
        if isinstance(handler, known.MemoryHandler):
            return handler.target is not None and _prints(handler.target, record)
        elsewhere = (known.SocketHandler, known.SysLogHandler, known.SMTPHandler, known.HTTPHandler)
        if isinstance(handler, elsewhere):
            return False
    return not isinstance(handler, logging.StreamHandler) or _is_seen(handler.stream)


def _is_seen(stream: Any) -> bool:
    """Return whether a stream leads to the output of the program, or to a terminal."""
    if stream in (sys.stdout, sys.stderr):
        return True
    try:
        return bool(stream.isatty()) or any(os.path.sameopenfile(stream.fileno(), ours) for ours in (1, 2))
    except (AttributeError, OSError, ValueError):  # it has no descriptor, or the program has closed its own output
        return not isinstance(stream, io.StringIO)
