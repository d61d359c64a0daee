"""Each kind of problem: provoked for real, as the golden file has it with and without colour, and explained."""

import re
from pathlib import Path

import pytest

from dbconfig.errors.catalogue import CATALOGUE
from tests.cli.conftest import Golden, Project
from tests.cli.provocations import PROVOCATIONS

_NEED_SERVERS = {
    "timed-out", "tls-refused", "login-rejected", "database-missing", "database-denied", "too-many-connections",
    "starting-up", "connection-failed", "read-only", "clock-skew", "pool-over-budget", "recycle-too-late",
    "tls-required", "no-primary", "tls-untrusted", "test-database", "pooler-undeclared", "variable-refused",
    "client-setting", "read-only-by-default",
}  # fmt: skip
# What the notes of an exception tell, which have no colour.
_PLAIN = {"missing-table", "pool-timeout", "pool-overloaded", "deadline-exceeded", "unknown-shard"}


def slugs() -> list[object]:
    return [pytest.param(slug, marks=pytest.mark.server if slug in _NEED_SERVERS else ()) for slug in PROVOCATIONS]


@pytest.mark.parametrize("slug", slugs())
def test_a_problem_is_told_as_its_golden_file_says(
    slug: str, project: Project, golden: Golden, request: pytest.FixtureRequest
) -> None:
    provoke = PROVOCATIONS[slug]
    plain = provoke(project, ("--color", "never"), request.getfixturevalue)
    assert f"[{slug}]" in plain.err, plain.text
    assert "\x1b" not in plain.text
    golden(f"{slug}.txt", project.normalised(plain.err))
    if slug in _PLAIN:
        return
    coloured = provoke(project, ("--color", "always"), request.getfixturevalue)
    assert "\x1b[" in coloured.err
    golden(f"{slug}.colour.txt", project.normalised(coloured.err).replace("\x1b", "␛"))
    # Colour says nothing that words do not.
    assert project.normalised(re.sub(r"\x1b\[[\d;]*m", "", coloured.err)) == project.normalised(plain.err)


@pytest.mark.parametrize("slug", CATALOGUE)
def test_a_problem_is_explained(slug: str, project: Project) -> None:
    explained = project.run("explain", slug)
    entry = CATALOGUE[slug]
    assert explained.code == 0
    assert explained.err == ""
    assert entry.meaning in explained.out
    assert entry.advice() in explained.out
    assert all(text.strip() for text in (entry.meaning, entry.example, entry.fix))


def test_every_kind_of_problem_is_provoked_and_has_its_golden_files():
    """Those that no command meets too; and nothing is left of a kind that is gone."""
    assert set(PROVOCATIONS) == set(CATALOGUE)
    expected = {f"{slug}.txt" for slug in CATALOGUE} | {f"{slug}.colour.txt" for slug in set(CATALOGUE) - _PLAIN}
    assert {path.name for path in (Path(__file__).parent / "golden").glob("*.txt")} == expected
