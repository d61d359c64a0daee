"""An exception of a connection as a problem; and engines for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from dbconfig.engine import create
from dbconfig.engine.connection_failures import Failure, classify, problem
from dbconfig.errors.problem import Problem
from dbconfig.settings.database import DatabaseSettings


def as_problem(error: BaseException, settings: DatabaseSettings, database: str) -> Problem:
    """Return why a connection failed, as a problem."""
    cause = error.__cause__ if isinstance(error, TimeoutError) and error.__cause__ is not None else error
    if isinstance(cause, TimeoutError):
        return problem(Failure("timed-out", "login", str(cause)), settings, database)
    return problem(classify(cause, settings), settings, database)


@contextmanager
def engine_of(settings: DatabaseSettings, label: str, **changes: object) -> Iterator[Engine]:
    """Return an engine that is closed at the end and writes no log: stdout is the command's answer."""
    engine = create.build(settings.model_copy(update={"echo": False, "echo_pool": False, **changes}), label)
    try:
        yield engine
    finally:
        engine.dispose()
