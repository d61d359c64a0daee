"""What a mutation run asks of pytest: the time and the lines of each test, certain tests only, and which one failed."""

import json
import math
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.mutation import probes

_seconds: dict[str, float] = {}


def pytest_configure() -> None:
    if probes.FOLDER in os.environ:
        probes.begin()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that the file MUTANTS_ONLY names, each by its name, its file, or a folder."""
    if "MUTANTS_ONLY" not in os.environ:
        return
    wanted = set(json.loads(Path(os.environ["MUTANTS_ONLY"]).read_text()))
    kept = [item for item in items if not wanted.isdisjoint(names(item.nodeid))]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def names(test: str) -> set[str]:
    """Return what a test may be asked for by: its own name, its file, its folders."""
    file = Path(test.partition("::")[0])
    return {test, *map(str, (file, *file.parents))}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if probes.FOLDER not in os.environ:
        return (yield)
    probes.forget()
    try:
        return (yield)
    finally:
        probes.note(item.nodeid, _seconds.get(item.nodeid, math.nan))


def pytest_runtest_logstart(nodeid: str) -> None:
    _tell("began", nodeid)


def _tell(what: str, test: str) -> None:
    if "MUTANTS_EVENTS" in os.environ:
        with Path(os.environ["MUTANTS_EVENTS"]).open("a") as events:
            events.write(json.dumps([what, test]) + "\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _tell("failed", report.nodeid)
    spent = report.duration if report.outcome == "passed" else math.nan
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + spent
