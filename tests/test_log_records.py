"""Every log record carries its facts as attributes, so that a JSON log has fields instead of one text."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbconfig.engine.pool.facts import facts
from tests.engine.pool.twins import Async, Sync
from tests.support.clock import Clock

PACKAGE = Path(__file__).parents[1] / "dbconfig"
LEVELS = {"info", "warning", "error", "critical", "exception"}
# What `logging` refuses in `extra`.
RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                logger = node.func.value
                if isinstance(logger, ast.Name) and logger.id in (
                    "_log",
                    "logger",
                    "log",
                ):  # SQLAlchemy's are attributes
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_record_that_an_operator_sees_has_facts() -> None:
    found = dict(calls())
    assert len(found) > 25
    assert [place for place, call in found.items() if "extra" not in {each.arg for each in call.keywords}] == []


def test_no_fact_has_a_name_that_logging_refuses() -> None:
    for place, call in calls():
        for node in ast.walk(next(each.value for each in call.keywords if each.arg == "extra")):
            keys = (
                [key.value for key in node.keys if isinstance(key, ast.Constant)] if isinstance(node, ast.Dict) else []
            )
            keys += [each.arg for each in node.keywords] if isinstance(node, ast.Call) else []
            assert not RESERVED & set(keys), place


@pytest.mark.parametrize(
    ("name", "profile", "database", "pool"),
    [
        ("shop", "shop", "default", "shop"),
        ("shop/default", "shop", "default", "shop"),
        ("shop/facts", "shop", "facts", "shop/facts"),
        ("shop/reads", "shop", "default", "shop/reads"),
        ("shop/facts/replica2", "shop", "facts", "shop/facts/replica2"),
    ],
)
def test_the_name_of_a_pool_says_the_profile_and_the_database(
    name: str, profile: str, database: str, pool: str
) -> None:
    assert facts(name, x=1) == {"pool": pool, "profile": profile, "database": database, "x": 1}


@pytest.mark.parametrize("kind", [Sync, Async])
def test_a_leak_says_where_and_for_how_long(
    kind: Any, server: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    engine = kind(server, pool_leak_warning=30.0)
    connection = engine.connect()
    clock.advance(40)
    (record,) = [each for each in caplog.records if each.name == "dbconfig.pool.leaks"]
    held: Any = record
    assert (held.pool, held.profile, held.database) == ("testing", "testing", "default")
    assert held.seconds >= 30
    assert held.place.startswith("tests/")
    assert held.holder_thread
    engine.close(connection)
    engine.dispose()
