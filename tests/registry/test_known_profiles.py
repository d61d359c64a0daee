"""The profiles that a registry has loaded: when they are read again, and which."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig import Profile
from dbconfig.registry import reloading
from dbconfig.registry.profiles import Profiles
from tests.configs import Project

FILES = {"development.yaml": "url: sqlite:///a.db\n", "other.yaml": "url: sqlite:///b.db\n"}


def profiles(project: Project) -> Profiles:
    return Profiles(project.write(FILES), None, {})


def databases(known: Profiles) -> list[str | None]:
    return [known.get(name).databases["default"].address.database for name in (None, "other")]


def test_each_profile_is_read_again_under_its_own_name(project: Project) -> None:
    known = profiles(project)
    assert databases(known) == ["a.db", "b.db"]
    project.write({"development.yaml": "url: sqlite:///c.db\n", "other.yaml": "url: sqlite:///d.db\n"})
    assert databases(known) == ["a.db", "b.db"]  # those in use are not changed
    again = known.read_again(known.known())
    assert [again[name].name for name in (None, "other")] == ["development", "other"]
    known.replace(again)
    assert databases(known) == ["c.db", "d.db"]


def test_what_is_forgotten_is_loaded_again_except_in_tests(project: Project) -> None:
    known = profiles(project)
    assert databases(known) == ["a.db", "b.db"]
    project.write({"development.yaml": "url: sqlite:///c.db\n", "other.yaml": "url: sqlite:///d.db\n"})
    assert not known.exchanged
    assert known.forget() is True
    assert databases(known) == ["c.db", "d.db"]
    with known.exchange({"default": known.get().databases["default"]}):
        assert known.exchanged
        kept = [known.get(name) for name in (None, "other")]
        project.write(FILES)
        assert known.forget() is False
        assert [known.get(name) for name in (None, "other")] == kept
        assert databases(known) == ["c.db", "d.db"]
    assert databases(known) == ["a.db", "b.db"]


def test_a_profile_of_code_replaces_what_was_loaded(project: Project) -> None:
    known = profiles(project)
    assert known.get().name == "development"
    given = Profile(name="given", url="sqlite:///e.db")
    known.give(given)
    assert known.get() is given
    assert known.read_again({None: given}) == {None: given}


@pytest.mark.parametrize("same", [True, False])
def test_an_engine_is_replaced_where_its_settings_mean_something_else(same: bool) -> None:
    tried: list[str] = []
    made = SimpleNamespace(connect=lambda: SimpleNamespace(close=lambda: tried.append("connected")))
    old: Any = SimpleNamespace()
    renewal: Any = SimpleNamespace(proofs=[], made=[], kept=[], retired=[])
    before: Any = SimpleNamespace(in_memory=False, means_the_same=lambda after: same)
    after: Any = SimpleNamespace(in_memory=False)
    found = reloading._renew(renewal, old, before, after, lambda: made)  # type: ignore[arg-type, return-value]  # all it asks of one
    assert tried == ["connected"]  # in both cases: a password may have changed
    assert found is (old if same else made)
    assert (renewal.proofs, renewal.made) == (([made], []) if same else ([], [made]))
    assert (renewal.kept, renewal.retired) == (([old], []) if same else ([], [old]))


def test_an_engine_of_memory_is_kept_and_one_without_a_database_is_retired() -> None:
    old: Any = SimpleNamespace()
    renewal: Any = SimpleNamespace(proofs=[], made=[], kept=[], retired=[])
    memory: Any = SimpleNamespace(in_memory=True)
    assert reloading._renew(renewal, old, memory, memory, pytest.fail) is old
    assert renewal.retired == []
    assert reloading._renew(renewal, old, memory, None, pytest.fail) is None
    assert renewal.retired == [old]
