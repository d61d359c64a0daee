"""A fork at a bad moment: no lock of what observes statements stays locked in a child."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbconfig import Profile, Registry
from dbconfig.engine import slow_statements
from tests.databases.test_fork import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture(autouse=True)
def _forking_with_threads_is_what_is_tested() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


def budget(db: Registry) -> tuple[Any, Callable[[], object]]:
    made = slow_statements._Budget()
    return made.lock, made.take


def plans(db: Registry) -> tuple[Any, Callable[[], object]]:
    made = slow_statements._Plans(db.engine(), "shop", {})
    made._busy = True  # a thread of the parent, which the child does not have

    def ask() -> None:
        made.ask("SELECT 1", None)
        assert made._asked, "it never asks for a plan again"

    return made._lock, ask


def durations(db: Registry) -> tuple[Any, Callable[[], object]]:
    pytest.importorskip("opentelemetry.trace")
    from dbconfig.integrations.otel_statements import Durations

    made = Durations()
    made.observe((("a", 1),), 0.1)

    def observe() -> None:
        made.observe((("a", 1),), 0.1)
        ((_, counted),) = made.take()
        assert counted.count == 1, "what the parent has counted"

    return made._lock, observe


def reader(db: Registry) -> tuple[Any, Callable[[], object]]:
    from dbconfig.integrations.figures import Reader

    made = Reader(db)
    return made._lock, made.read


@pytest.mark.parametrize("owner", [budget, plans, durations, reader])
def test_a_lock_that_another_thread_holds_is_free_in_the_child(owner: Any, tmp_path: Any) -> None:
    with Registry.from_profile(Profile(name="shop", url=f"sqlite:///{tmp_path}/a.db")) as db:
        lock, use = owner(db)
        held, ended = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                ended.wait(120)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            assert held.wait(30)
            assert in_child(use) == ""
        finally:
            ended.set()
            thread.join()
