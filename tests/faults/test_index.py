"""docs/faults.md names a test for each scenario, with threads and with tasks, and each of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
IDENTIFIERS = (
    [f"N{number:02}" for number in (*range(1, 21), *range(23, 28))]
    + [f"P{number:02}" for number in (*range(1, 12), 13, 14, 15, 17, 18, 19)]
    + [f"T{number:02}" for number in range(1, 6)]
    + [f"S{number:02}" for number in range(1, 7)]
)


def test_each_scenario_has_a_test_that_exists() -> None:
    row = r"^\| ([^|]+) \| [^|]+ \| `(test_\w+)` \| (?:`(test_\w+)`|(the same test)|) ?\|"
    rows = re.findall(row, (ROOT / "docs" / "faults.md").read_text(), re.M)
    named = {identifier for identifiers, *_ in rows for identifier in re.findall(r"[NPTS]\d\d", identifiers)}
    assert named == set(IDENTIFIERS)
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert {test for row in rows for test in row[1:3] if test} - known == set()
    # What concerns the network, the server, the pool, and the process is tested with tasks, too.
    assert [row[0] for row in rows if row[0][0] in "NP" and not any(row[2:])] == []
