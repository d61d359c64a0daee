"""Which profile is loaded, and from which files."""

import sys
from pathlib import Path

import pytest

from dbconfig import ConfigError, ProfileNotFound, load
from dbconfig.config import profile_files
from dbconfig.config.active_profile import near_profile
from dbconfig.config.folder import find_folder, shown_path
from dbconfig.config.profile_files import is_name
from dbconfig.settings.environment_variables import Environment
from tests.configs import told

LITE = "url: sqlite:///a.db\n"


@pytest.mark.parametrize(
    ("argument", "environ", "name", "reason"),
    [
        (None, {}, "development", "ENVIRONMENT is not set: development"),
        (None, {"ENVIRONMENT": "testing"}, "testing", "ENVIRONMENT, environment"),
        ("testing", {"ENVIRONMENT": "development"}, "testing", "argument"),
    ],
)
def test_a_profile_is_chosen_by_the_caller_else_by_environment(project, argument, environ, name, reason):
    profile = project.load({"development.yaml": LITE, "testing.yml": LITE}, environ, argument)
    assert (profile.name, profile.reason) == (name, reason)


def test_a_dotenv_file_can_choose_the_profile(project):
    profile = project.load({"testing.yaml": LITE, "../.env": "ENVIRONMENT=testing\n"})
    assert (profile.name, profile.reason) == ("testing", "ENVIRONMENT, .env:1")


def test_an_unknown_profile_is_told_with_its_origin_and_those_that_exist(project):
    error = project.refuse(
        {"default.yaml": LITE, "development.yaml": LITE, "production.yaml": LITE}, {"ENVIRONMENT": "prod"}
    )
    assert type(error) is ProfileNotFound
    assert str(error) == (
        "error[unknown-profile]: profile 'prod' does not exist\n"
        "  --> ENVIRONMENT, environment  (ENVIRONMENT)\n"
        "  = note: the name comes from ENVIRONMENT, environment\n"
        "  = note: profiles in config: development, production\n"
        "  = help: did you mean 'production'?"
    )


@pytest.mark.parametrize(
    ("name", "help"),
    [
        *(("prodution", "did you mean 'production'?"), ("PRODUCTION", "did you mean 'production'?")),
        *(("dev", "did you mean 'development'?"), ("qa", "make config/qa.yaml")),
    ],
)
def test_an_unknown_profile_that_was_asked_for_in_code_says_so(project, name, help):
    problem = project.problem({"development.yaml": LITE, "production.yaml": LITE}, {"ENVIRONMENT": "x"}, name)
    assert problem.help == help
    assert problem.notes[0] == "the caller passed the name; ENVIRONMENT is ignored"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "a/b",
        "a\\b",
        "production\n",
        " production",
        "a.b",
        "-a",
        "ä",
        "a" * 65,
        "default",
        "postgresql://u:hunter@h/d",
        "\x1b[2J",
    ],
)
def test_a_name_that_is_no_safe_file_name_is_never_looked_for(project, name):
    error = project.refuse({"default.yaml": LITE, "production.yaml": LITE}, {"ENVIRONMENT": name})
    (problem,) = error.problems
    assert (type(error), problem.slug) == (ProfileNotFound, "profile-name")
    assert problem.message.endswith("is not a valid profile name: use letters, digits, `_`, and `-`, but not `default`")
    assert "hunter" not in str(error)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("environ", "argument", "subject"),
    [({"ENVIRONMENT": ""}, None, "ENVIRONMENT"), ({"ENVIRONMENT": " "}, None, "ENVIRONMENT"), ({}, "", "the name")],
)
def test_an_empty_name_is_no_profile(project, environ, argument, subject):
    problem = project.problem({"development.yaml": LITE}, environ, argument)
    assert problem.message == f"{subject} is empty"


def test_profiles_are_laid_over_each_other(project):
    files = {
        "default.yaml": LITE + "pool_size: 1\nmax_overflow: 1\npool_timeout: 1\n",
        "production.yaml": "extends: shared\nmax_overflow: 3\npool_timeout: 3\n",
        "shared.yaml": "max_overflow: 2\npool_timeout: 2\npool_recycle: 2\n",
        "staging.yaml": "extends: production\npool_timeout: 4\n",
    }
    settings = project.settings(files, profile="staging")
    assert (settings.pool_size, settings.pool_recycle, settings.max_overflow, settings.pool_timeout) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("files", "slug", "place", "message", "help"),
    [
        ({"development.yaml": "extends: a\n", "a.yaml": "extends: b\n", "b.yaml": f"{LITE}extends: a\n"},
         "extends-cycle", "config/b.yaml:2:1", "`extends` forms a cycle: a → b → a",
          "remove `extends` from one of them"),
        ({"development.yaml": f"{LITE}extends: development\n"},
         "extends-cycle", "config/development.yaml:2:1",
         "`extends` forms a cycle: development → development", "remove `extends` from one of them"),
        ({"development.yaml": f"{LITE}extends: prod\n", "production.yaml": LITE},
         "unknown-profile", "config/development.yaml:2:1", "`extends` names a profile that does not exist: 'prod'",
         "did you mean 'production'?"),
        ({"development.yaml": f"{LITE}extends: ../x\n"}, "wrong-type", "config/development.yaml:2:1",
         "`extends` must be the name of a profile (text), not a path", "profiles: development"),
        ({"development.yaml": f"{LITE}extends: [a, b]\n"}, "wrong-type", "config/development.yaml:2:1",
         "`extends` must be the name of a profile (text), not a path", "profiles: development"),
        ({"default.yaml": "extends: development\n", "development.yaml": LITE}, "invalid-value",
         "config/default.yaml:1:1",
         "default.yaml cannot have `extends`: every profile already builds on it", "remove it"),
    ],
)  # fmt: skip
def test_extends_that_leads_nowhere_is_told(project, files, slug, place, message, help):
    problem = project.problem(files)
    assert (problem.slug, str(problem.location), problem.key) == (slug, place, "extends")
    assert (problem.message, problem.help) == (message, help)


def test_two_files_of_one_profile_are_ambiguous(project):
    problem = project.problem({"development.yaml": LITE, "development.yml": LITE})
    assert problem.message == (
        "profile 'development' has two files, config/development.yaml and config/development.yml: it is "
        "unclear which one to use"
    )


def test_other_files_in_the_folder_are_no_profiles(project):
    project.write(
        {"development.yaml": LITE, "schema.json": "{}", "a.b.yaml": "x", "notes.txt": "x", ".hidden.yaml": "x"}
    )
    with pytest.raises(ProfileNotFound) as caught:
        load("x", path=project.config)
    assert caught.value.problems[0].notes[1] == "profiles in config: development"


class TestTheFolder:
    def test_is_found_above_the_working_directory(self, project, monkeypatch):
        project.write(LITE)
        (project.root / "pyproject.toml").touch()
        (project.root / "src" / "app").mkdir(parents=True)
        monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
        monkeypatch.chdir(project.root / "src" / "app")
        assert find_folder().path == project.config

    def test_is_found_beside_the_script_wherever_it_is_run_from(self, project, monkeypatch, tmp_path_factory):
        project.write(LITE)
        monkeypatch.setattr(sys.modules["__main__"], "__file__", str(project.root / "main.py"), raising=False)
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert find_folder().path == project.config

    def test_is_not_looked_for_beside_a_tool_however_it_is_called(self, project, monkeypatch, tmp_path):
        project.write(LITE)
        (tmp_path / "other" / "config").mkdir(parents=True)
        (tmp_path / "other" / "config" / "development.yaml").write_text("url: sqlite://\n")
        up = "../" * len((tmp_path / "other").parts[1:])  # as the shell has it from ../.venv/bin/tool
        tool = f"{tmp_path}/other/{up}{sys.prefix[1:]}/bin/tool"
        monkeypatch.setattr(sys.modules["__main__"], "__file__", tool, raising=False)
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
        monkeypatch.chdir(project.root)
        assert find_folder().path == project.config

    def test_is_not_looked_for_above_the_project(self, project, monkeypatch):
        project.write(LITE)
        inner = project.root / "inner"
        inner.mkdir()
        (inner / "pyproject.toml").touch()
        monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
        monkeypatch.chdir(inner)
        with pytest.raises(ConfigError) as caught:
            load()
        assert str(caught.value) == (
            "error[no-config]: no `config` folder with YAML files was found\n"
            f"  = note: looked for {inner / 'config'}\n"
            "  = help: run `dbconfig init`, or make config/development.yaml with `url: sqlite:///data/app.db`"
        )

    @pytest.mark.parametrize(("name", "what"), [("nothing", "does not exist"), ("a.yaml", "is a file, not a folder")])
    def test_that_was_named_must_be_there(self, project, name, what):
        (project.root / "a.yaml").write_text(LITE)
        with pytest.raises(ConfigError) as caught:
            load(path=name)
        assert caught.value.problems[0].message == f"the config folder '{name}' {what}"

    def test_that_is_elsewhere_is_named_in_full(self, project, monkeypatch, tmp_path_factory):
        project.write("url: sqlite://\npool_sise: 3\n")
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        with pytest.raises(ConfigError) as caught:
            load(path=project.config, environ={})
        assert told(caught.value) == [("unknown-key", f"{project.config}/development.yaml:2:1", "pool_sise")]

    def test_that_is_given_by_a_relative_path_is_named_from_the_working_directory(self, project):
        project.write("url: sqlite://\npool_sise: 3\n")
        with pytest.raises(ConfigError) as caught:
            load(path="./config", environ={})
        assert told(caught.value) == [("unknown-key", "config/development.yaml:2:1", "pool_sise")]

    def test_that_cannot_be_listed_is_told(self, project, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(
            "dbconfig.config.profile_files.os.listdir", refuse
        )  # root, as in a container, could list it
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            load(path=project.config)


def test_a_path_is_shown_in_full_where_there_is_no_working_directory(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert shown_path(Path("/etc/config")) == "/etc/config"
    assert Environment({}).get("X") is None


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *((text, True) for text in ("a", "9", "eu-1", "a_", "a-", "a-_b", "A" * 64)),
        *((text, False) for text in ("", "-", "_", "-a", "_a", "a.b", "a b", "a/b", "é", "²", "a²", "A" * 65)),
    ],
)
def test_a_name_has_letters_and_digits_and_begins_with_one(text, valid):
    assert is_name(text) is valid


@pytest.mark.parametrize(
    ("name", "near"),
    [
        *((name, "production") for name in ("prod", " PROD ", "pr", "prodution", "productoin")),
        *((name, "") for name in ("p", "", " ", "rod", "x")),
        ("dev", "development"),
        ("te", "testing"),
    ],
)
def test_a_profile_that_was_probably_meant_is_a_near_miss_or_begins_so(name, near):
    assert near_profile(name, ["development", "production", "testing"]) == near


@pytest.mark.parametrize(
    ("place", "folder", "within"),
    [("/a/b", "/a", True), ("/a", "/a", True), ("/a", "/a/", True), ("/ab", "/a", False), ("/a", "/a/b", False)],
)
def test_a_place_is_within_a_folder_or_the_folder_itself(place, folder, within):
    assert profile_files._is_within(place, folder) is within


def test_the_files_of_profiles_are_found_in_order_with_both_endings(tmp_path):
    for name in ("b.yml", "a.yaml", "b.yaml", "default.yaml", "c.txt", "-x.yaml", "yaml", ".yaml"):
        (tmp_path / name).write_text("")
    found = profile_files.by_profile(str(tmp_path))
    assert found == {"a": ["a.yaml"], "b": ["b.yaml", "b.yml"], "default": ["default.yaml"]}
    assert list(found) == [*profile_files.names(str(tmp_path)), "default"]
    assert profile_files.names(str(tmp_path)) == ["a", "b"]


def test_a_folder_that_cannot_be_read_has_no_children(tmp_path):
    assert profile_files._children(str(tmp_path / "none")) == []
    (tmp_path / "a.yaml").write_text("")
    assert profile_files._children(str(tmp_path)) == ["a.yaml"]
