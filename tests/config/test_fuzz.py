"""A little of what `python -m tests.fuzz` does at length."""

import logging

import pytest

from tests.fuzz import KINDS, run


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_configuration_does_anything_but_load_or_be_told(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "dbconfig")
    tally = run(kind, 300, seed=0)
    assert tally.failures == []
    assert tally.runs == 300
    assert len(tally.slugs) > 2


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_configuration_needs_much_memory(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "dbconfig")
    assert run(kind, 60, seed=5_000, memory=True).failures == []
