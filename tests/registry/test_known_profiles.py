"""The profiles that a registry has loaded: when they are read again, and which."""

from __future__ import annotations

from dbconfig import Profile
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
    with known.exchange({"default": known.get().databases["default"]}):
        assert known.exchanged
        assert known.forget() is False
        assert databases(known)[0] == "a.db"
    assert not known.exchanged
    assert known.forget() is True
    assert databases(known) == ["c.db", "d.db"]


def test_a_profile_of_code_replaces_what_was_loaded(project: Project) -> None:
    known = profiles(project)
    assert known.get().name == "development"
    given = Profile(name="given", url="sqlite:///e.db")
    known.give(given)
    assert known.get() is given
    assert known.read_again({None: given}) == {None: given}
