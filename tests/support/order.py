"""The order of the tests of a parallel run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

_TESTS = Path(__file__).parents[1]
LONG = frozenset(
    _TESTS / name
    for name in (
        "asynchronous/test_random_cancellations.py",
        "databases/test_primary_among_hosts.py",
        "engine/pool/test_line_properties.py",
        "engine/pool/test_struck_tasks.py",
        "integrations/test_fastapi_app.py",
        "integrations/test_pytest_applications.py",
        "integrations/test_pytest_asynchronous_only.py",
        "integrations/test_pytest_plugin.py",
        "integrations/test_workers.py",
        "test_tutorial.py",
        "test_types.py",
    )
)
"""Files whose tests take two seconds and more, mostly waiting."""


def long_first(items: Sequence[Item], workers: int, is_long: Callable[[Item], bool]) -> list[Item]:
    """Return the items such that each worker begins with its share of those that take long.

    A worker gets a part of the list at the beginning, and one that has finished takes from the end of another's. A test
    of ten seconds that begins last keeps one worker busy while the others have nothing left to do.
    """
    long = [each for each in items if is_long(each)]
    others = [each for each in items if not is_long(each)]
    ordered: list[Item] = []
    for worker in range(workers):
        own = long[worker::workers]
        # As many as pytest-xdist's `worksteal` sends to this worker.
        size = (len(items) - len(ordered)) // (workers - worker)
        count = max(0, size - len(own))
        ordered += [*own, *others[:count]]
        del others[:count]
    return ordered
