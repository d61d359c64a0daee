"""Marks of commits, and tokens with them: whatever their length, and whether the commit has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig.replicas import positions, read_your_writes
from dbconfig.replicas.read_your_writes import Mark


@pytest.mark.parametrize("length", range(12))
def test_a_token_of_any_length_is_read_back(length: int) -> None:
    found = read_your_writes.from_token(read_your_writes.to_token({"k" * length: Mark(5.5, "0/1")}))
    assert found == {"k" * length: Mark(5.5, "0/1", asked=True, claimed=True)}


def test_a_mark_knows_nothing_but_its_time() -> None:
    assert Mark(5.5) == Mark(5.5, "", asked=False, claimed=False)


@pytest.mark.parametrize("way", ["do_commit", "do_commit_twophase"])
def test_a_position_is_asked_for_after_a_commit_and_not_after_one_that_failed(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[str, bool]] = []
    monkeypatch.setattr(read_your_writes, "note", lambda key, mark: noted.append((key, mark.asked)))
    fails: list[Exception] = []

    def commit(*arguments: Any, **keywords: Any) -> None:
        if fails:
            raise fails.pop()

    dialect = SimpleNamespace(do_commit=commit, do_commit_twophase=commit)
    read_your_writes.watch_commits(SimpleNamespace(dialect=dialect), "shop")  # type: ignore[arg-type]  # all it asks of
    work: Callable[..., None] = getattr(dialect, way)
    work(object())
    assert noted == [("shop", False)]
    fails.append(OSError())
    with pytest.raises(OSError):  # it has no text
        work(object())
    assert noted == [("shop", False), ("shop", True)]  # only the primary may be read


@pytest.mark.parametrize(
    ("seen", "needed", "parted"),
    [
        (("a", "1", 5), ("a", "1", 5), ""),
        (("a", "1", 5), ("b", "1", 5), positions.OTHER_SYSTEM),
        (("", "1", 5), ("b", "1", 5), ""),  # what is not known is not compared
        (("a", "1", 5), ("", "1", 5), ""),
        (("a", "", 5), ("b", "", 5), positions.OTHER_SYSTEM),
        (("a", "1", 5), ("a", "2", 5), "it was promoted, and no longer follows this primary"),
        (("", "1", 5), ("", "2", 5), "it was promoted, and no longer follows this primary"),
        (("a", "", 5), ("a", "2", 5), ""),
        (("a", "1", 5), ("a", "", 5), ""),
    ],
)
def test_two_histories_are_not_compared(seen: Any, needed: Any, parted: str) -> None:
    assert positions._parted(seen, needed) == parted
