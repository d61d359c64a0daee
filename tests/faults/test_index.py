"""docs/faults.md names a test for each scenario, and each of them exists."""

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
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| `(test_\w+)` \|", (ROOT / "docs" / "faults.md").read_text(), re.M)
    named = {identifier for identifiers, _ in rows for identifier in re.findall(r"[NPTS]\d\d", identifiers)}
    assert named == set(IDENTIFIERS)
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert {test for _, test in rows} - known == set()
