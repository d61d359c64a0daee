"""Errors of ours, and SQLAlchemy's with our notes, cross a process whole: text, notes, what they say of the work."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dbconfig import CommitUncertain, ConfigError, DBConfigError, Profile, ProfileNotFound, Registry, load
from dbconfig.cli.commands.check.network import StepFailed
from dbconfig.engine.pool.deadline import DeadlineExceeded
from dbconfig.engine.primary.finder import NoPrimary
from dbconfig.settings.small_files import Unreadable
from dbconfig.settings.url_parsing import InvalidURL
from tests.sessions.conftest import units_of
from tests.support.drivers import BY_NAME
from tests.support.ports import free_port


def raised_by(function: Callable[[], Any]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def uncertain() -> Exception:
    lost = OperationalError("COMMIT", None, ConnectionError("gone"))
    return CommitUncertain(lost, committed=["facts"], unknown=["default"])


def refused() -> Exception:
    url = f"postgresql+psycopg2://u@127.0.0.1:{free_port()}/d"
    with Registry.from_profile(Profile(name="a", url=url, pool_timeout=1)) as db:
        return raised_by(db.engine().connect)


def pool_timeout() -> Exception:
    url = "sqlite:///file:crossing?mode=memory&uri=true"
    profile = Profile(name="a", url=url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with Registry.from_profile(profile) as db, db.engine().connect():
        return raised_by(db.engine().connect)


ERRORS: dict[str, Callable[[], Exception]] = {
    "CommitUncertain": uncertain,
    "ConfigError": lambda: raised_by(lambda: Profile(name="a", url="sqlite://", pool_sise=3)),
    "ProfileNotFound": lambda: raised_by(lambda: load("nobody", path=Path("/nowhere"), environ={})),
    "DBConfigError": lambda: DBConfigError("in words"),
    "a connection that failed": refused,
    "a pool that is full": pool_timeout,
    "a deadline": lambda: DeadlineExceeded("in words", seconds=1.0, spent={"connecting": 0.5}),
    "no primary": lambda: NoPrimary({("h", 5432): "recovering"}, [("i", 5432)]),
    "a step of `dbconfig check`": lambda: StepFailed("connection-failed", "login", "in words"),
    "a URL": lambda: InvalidURL("in words", "help", "invalid-url"),
    "a file": lambda: Unreadable("in words", too_large=True),
}
WAYS: dict[str, Callable[[Exception], Exception]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ERRORS)
def test_an_error_keeps_its_class_its_text_and_its_notes(name: str, way: str) -> None:
    error = ERRORS[name]()
    error.add_note("one of the application's")
    found = WAYS[way](error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.__notes__ == error.__notes__
    if type(error).__module__.startswith("dbconfig"):
        assert vars(found).keys() == vars(error).keys()
    assert found is not error


def test_an_uncertain_commit_still_names_the_databases() -> None:
    found: Any = pickle.loads(pickle.dumps(uncertain()))
    assert (found.committed, found.unknown) == (("facts",), ("default",))
    assert isinstance(found.orig, ConnectionError)


@pytest.mark.parametrize("kind", [CommitUncertain, ConfigError, ProfileNotFound, DBConfigError])
def test_a_result_backend_that_speaks_json_makes_it_of_its_arguments(kind: type[Exception]) -> None:
    # Celery sends the name of the class and its args, and calls the class with them.
    sent = json.loads(
        json.dumps([str(part) for part in {CommitUncertain: uncertain}.get(kind, lambda: kind("x"))().args])
    )
    assert isinstance(kind(*sent), kind)


def fail() -> None:
    raise uncertain()


def test_the_parent_of_a_worker_gets_it() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor, pytest.raises(CommitUncertain) as raised:
        executor.submit(fail).result(60)
    assert raised.value.committed == ("facts",)
    assert "Complete or undo the work" in raised.value.__notes__[0]


@pytest.mark.parametrize("name", BY_NAME)
def test_an_uncertain_commit_of_each_driver_can_be_pickled(name: str, request: pytest.FixtureRequest) -> None:
    """It holds the driver's own error, whatever that one holds."""
    units = units_of(name, request)
    error = raised_by(lambda: units.run(lambda session: session.execute(text("SELECT * FROM no_such_table"))))
    found = pickle.loads(pickle.dumps(CommitUncertain(error)))
    assert isinstance(found, CommitUncertain)
    assert str(found) == str(CommitUncertain(error))
