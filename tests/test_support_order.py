"""In which order the workers of a parallel run get the tests."""

from pathlib import Path

import pytest

from tests.support.order import LONG, long_first


@pytest.mark.parametrize("workers", range(1, 8))
@pytest.mark.parametrize("long", [0, 1, 5, 6, 20, 50])
def test_each_worker_begins_with_its_share_of_those_that_take_long(workers: int, long: int) -> None:
    items = [f"test {number}" for number in range(50)]
    slow = set(items[-long:]) if long else set()
    ordered = long_first(items, workers, slow.__contains__)
    assert sorted(ordered) == sorted(items)
    left, shares = list(ordered), []
    for worker in range(workers):  # as pytest-xdist deals them out
        count = len(left) // (workers - worker)
        shares.append(left[:count])
        del left[:count]
    for share in shares:
        mine = [each in slow for each in share]
        assert mine == sorted(mine, reverse=True)
        assert long // workers <= sum(mine) <= -(-long // workers)


@pytest.mark.parametrize("path", sorted(LONG), ids=lambda path: path.name)
def test_a_file_of_long_tests_exists(path: Path) -> None:
    assert path.is_file()
