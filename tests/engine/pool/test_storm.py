"""What many processes do to a server that is away: the simulation of docs/scale.md, with fewer of them."""

import pytest

from benchmarks import storm


def test_a_process_makes_two_attempts_a_second_however_many_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "PROCESSES", 20)
    monkeypatch.setattr(storm, "RATE", 10.0)
    ours, naive = storm.simulate(storm.Ours), storm.simulate(storm.Naive)
    assert 20 < ours["while away, a second"] <= 20 * 2.5
    assert naive["while away, a second"] > 20 * ours["while away, a second"]
    assert ours["steady after"] < storm.AFTER
