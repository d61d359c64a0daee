"""docs/pool.md says of each behavior whether asyncio has it, and names a test that proves it there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
# What makes a test one of asyncio: fixtures that make both kinds of engines or asynchronous ones, or coroutines.
ASYNCHRONOUS = re.compile(r"\b(twin|world|engines|registry|async|asyncpg|trio|loop_factory|new_event_loop)\b")


def test_each_behavior_of_the_pool_names_a_test_with_asyncio_that_exists() -> None:
    section = (ROOT / "docs" / "pool.md").read_text().partition("## Threads and asyncio")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert all(len(row) == 4 for row in rows)
    sources: dict[str, str] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for found in re.split(r"^(?=(?:async )?def |@)", file.read_text(), flags=re.M):
            name = re.match(r"(?:async )?def (test_\w+)", found)
            if name is not None:
                sources[name[1]] = found
    for behavior, threads, asyncio, test in rows:
        assert threads.startswith(("yes", "with", "–")), behavior
        assert asyncio.startswith(("yes", "no: ")), behavior
        assert ASYNCHRONOUS.search(sources[test.strip("`")]), behavior
