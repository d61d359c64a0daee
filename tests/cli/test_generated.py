"""What is generated is up to date; the schema agrees with what is loaded; completion is understood by the shells."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml

from dbconfig import ConfigError, load
from dbconfig.config.json_schema import EXAMPLES, schema
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.key_kinds import default, description
from tests.cli.conftest import Project

ROOT = Path(__file__).parents[2]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_generated_is_up_to_date() -> None:
    generate = generator()
    for path, text in generate.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python docs/generate.py"


def test_every_key_has_an_example_and_only_arguments_of_create_engine_link_to_its_documentation() -> None:
    assert set(EXAMPLES) == set(DatabaseSettings.model_fields)
    documented = set(re.findall(r"^\s*:param (\w+)", str(sqlalchemy.create_engine.__doc__), re.MULTILINE))
    linked = re.findall(r"create_engine\.params\.(\w+)\)", (ROOT / "docs/reference.md").read_text())
    assert len(linked) > 20
    assert set(linked) <= documented


def test_init_and_the_repository_have_the_same_configuration(project: Project) -> None:
    project.run("init")
    for path in (project.folder / "config").iterdir():
        assert path.read_bytes() == (ROOT / "config" / path.name).read_bytes()


class TestSchema:
    def test_every_setting_is_in_it_with_its_text_and_its_default(self) -> None:
        definitions = schema()["definitions"]
        for key, field in DatabaseSettings.model_fields.items():
            assert definitions[key]["description"].startswith(str(field.description))
            assert definitions[key]["description"] == description(key, field)
            if default(field) not in (None, {}):
                assert definitions[key]["default"] == default(field)
        properties = schema()["properties"]
        assert set(properties) - set(DatabaseSettings.model_fields) == {"$schema", "extends", "databases"}

    def test_a_reference_is_taken_for_every_scalar_and_has_no_text_of_its_own(self) -> None:
        for key, definition in schema()["definitions"].items():
            for option in definition.get("anyOf", ()):
                if option.get("pattern", "").startswith(r"\$\{"):
                    assert set(option) == {"type", "pattern"}, key

    def test_each_default_is_what_loading_gives(self, tmp_path: Path) -> None:
        (tmp_path / "development.yaml").write_text("url: sqlite:///app.db\n")
        loaded = load(path=tmp_path, environ={}).databases["default"]
        for key, field in DatabaseSettings.model_fields.items():
            if default(field) in (None, {}) or key in ("connect_timeout",):
                continue
            (tmp_path / "other.yaml").write_text(f"url: sqlite:///app.db\n{key}: {json.dumps(default(field))}\n")
            assert getattr(load("other", path=tmp_path, environ={}).databases["default"], key) == getattr(loaded, key)

    def test_the_schema_key_is_the_editors(self, tmp_path: Path) -> None:
        (tmp_path / "development.yaml").write_text("$schema: schema.json\nurl: sqlite:///app.db\n")
        assert load(path=tmp_path, environ={}).databases["default"].backend == "sqlite"

    def test_check_jsonschema_agrees(self, tmp_path: Path) -> None:
        check = pytest.importorskip("check_jsonschema").main
        runner = pytest.importorskip("click.testing").CliRunner()
        file = str(ROOT / "config/schema.json")
        assert runner.invoke(check, ["--check-metaschema", file]).exit_code == 0
        shipped = [*(ROOT / "config").glob("*.yaml"), *(ROOT / "examples").glob("**/config/*.yaml")]
        done = runner.invoke(check, ["--schemafile", file, *map(str, shipped)])
        assert done.exit_code == 0, done.output
        wrong = {str(tmp_path / f"{number}.yaml"): text for number, text in enumerate(WRONG)}
        for path, text in wrong.items():
            Path(path).write_text(text)
        done = runner.invoke(check, ["--schemafile", file, "--output-format", "json", *wrong])
        refused = {error["filename"] for error in json.loads(done.output)["errors"]}
        assert [wrong[path] for path in wrong.keys() - refused] == []

    @pytest.mark.parametrize("text", ["RIGHT", "WRONG"])
    def test_the_loader_agrees(self, tmp_path: Path, text: str) -> None:
        for number, each in enumerate(globals()[text]):
            (tmp_path / f"p{number}.yaml").write_text(each)
            if text == "RIGHT":
                load(f"p{number}", path=tmp_path, environ={"SIZE": "5", "PW": "x"})
            else:
                with pytest.raises(ConfigError):
                    load(f"p{number}", path=tmp_path, environ={})


DB = "url: postgresql://app@db/shop\n"
WRONG = [
    f"{DB}max_overflw: 1\n",
    f"{DB}pool_size: five\n",
    f"{DB}pool_size: -1\n",
    f"{DB}pool_timeout: soon\n",
    f"{DB}poolclass: QueePool\n",
    f"{DB}echo: maybe\n",
    f"{DB}databases: {{a: {{url: 'sqlite://', max_overflw: 1}}}}\n",
    f"{DB}password: {{path: x}}\n",
    f"{DB}extends: ../x\n",
]
RIGHT = [
    f"{DB}pool_size: ${{SIZE}}\npool_timeout: ${{SIZE}}\n",
    f"{DB}pool_timeout: 500ms\npool_recycle: 1h\nconnect_timeout: 2\npool_pre_ping: true\n",
    f"{DB}password: {{file: x}}\n",
    f"{DB}password: ${{PW}}\nisolation_level: read_committed\n",
    f"{DB}echo: debug\npool_reset_on_return: none\npoolclass: queuepool\n",
    f"{DB}databases: {{a: {{url: 'sqlite://', echo: true}}}}\n",
]


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_shell_understands_its_script(self, project: Project, shell: str) -> None:
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"{shell} is not installed")
        script = project.write(f"completion.{shell}", project.run("completion", shell).out)
        done = subprocess.run([program, "-n", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_summaries_keep_their_words(self, project: Project, shell: str) -> None:
        assert "the database'\"'\"'s own shell" in project.run("completion", shell).out

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["va"], {"validate"}),
            (["show", "pro"], {"production"}),
            (["show", "--profile", ""], {"production", "testing"}),
            (["check", "--wo"], {"--workers"}),
            (["explain", "unknown-k"], {"unknown-key"}),
        ],
    )
    def test_bash_completes(self, project: Project, words: list[str], expected: set[str]) -> None:
        bash = shutil.which("bash")
        if bash is None:
            pytest.skip("bash is not installed")
        project.profile("url: sqlite://\n", "production")
        project.profile("url: sqlite://\n", "testing")
        script = project.write("completion.bash", project.run("completion", "bash").out)
        program = (
            f'dbconfig() {{ {sys.executable} -m dbconfig "$@"; }}; source {script}; '
            f"COMP_WORDS=(dbconfig {' '.join(repr(word) for word in words)}); COMP_CWORD={len(words)}; "
            'COMPREPLY=(); _dbconfig; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run([bash, "-c", program], capture_output=True, text=True, cwd=project.folder)
        assert set(done.stdout.split()) == expected, done.stderr


def test_the_hook_of_pre_commit_runs_what_exists(project: Project) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    project.profile("url: sqlite:///app.db\n")
    program, *arguments = hook["entry"].split()
    assert program == "dbconfig"
    assert project.run(*arguments).code == 0
