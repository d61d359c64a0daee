"""What an editor shows of the YAML files: asked from the language server that editors use."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.key_kinds import description
from tests.cli.language_server import LanguageServer
from tests.cli.test_generated import RIGHT, WRONG

ROOT = Path(__file__).parents[2]
HEAD = "# yaml-language-server: $schema=schema.json\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """yaml-language-server, installed into a folder of the test run."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node is not installed: the editor's answers are not tested")
    folder = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--no-audit", "--no-fund", "--silent", "yaml-language-server@1"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=180)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("yaml-language-server cannot be installed: the editor's answers are not tested")
    return folder / "node_modules/.bin/yaml-language-server"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editor") / "config"
    shutil.copytree(ROOT / "config", folder)
    return folder


@pytest.fixture(scope="module")
def editor(program: Path, folder: Path) -> Iterator[LanguageServer]:
    with LanguageServer(program, folder.parent) as server:
        yield server


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["default", "development", "testing", "production"])
def test_nothing_is_wrong_with_what_is_shipped(editor: LanguageServer, folder: Path, name: str) -> None:
    assert editor.open(folder / f"{name}.yaml") == []


def test_nothing_is_wrong_with_what_is_right(editor: LanguageServer, folder: Path) -> None:
    for number, text in enumerate(RIGHT):
        assert editor.open(write(folder, f"right{number}", HEAD + text)) == [], text


def test_the_line_at_fault_is_marked(editor: LanguageServer, folder: Path) -> None:
    for number, text in enumerate(WRONG):
        found = editor.open(write(folder, f"wrong{number}", HEAD + text))
        assert [each["range"]["start"]["line"] for each in found] == [2], (text, found)


def test_the_schema_key_works_as_the_comment_does(editor: LanguageServer, folder: Path) -> None:
    text = "$schema: schema.json\nurl: sqlite:///app.db\nmax_overflw: 1\n"
    assert editor.open(write(folder, "key", text))[0]["range"]["start"]["line"] == 2


@pytest.mark.parametrize("value", ["5", "${POOL_SIZE}"])
@pytest.mark.parametrize("key", DatabaseSettings.model_fields)
def test_a_key_is_explained_where_the_mouse_rests(editor: LanguageServer, folder: Path, key: str, value: str) -> None:
    path = write(folder, f"hover-{key}-{len(value)}", f"{HEAD}{key}: {value}\n")
    editor.open(path)
    shown = editor.hover(path, 1, 2)
    assert _bare(description(key, DatabaseSettings.model_fields[key])) in _bare(shown)


def test_the_keys_are_offered_with_their_texts(editor: LanguageServer, folder: Path) -> None:
    path = write(folder, "complete", f"{HEAD}\n")
    editor.open(path)
    offered = editor.complete(path, 1, 0)
    for key, field in DatabaseSettings.model_fields.items():
        assert key in offered
        assert _bare(description(key, field)) in _bare(str(offered[key].get("documentation", "")))
    assert {"SQLite", "PostgreSQL", "MySQL or MariaDB"} <= set(offered)


def test_the_values_of_a_key_are_offered(editor: LanguageServer, folder: Path) -> None:
    path = write(folder, "values", f"{HEAD}poolclass: \n")
    editor.open(path)
    offered = editor.complete(path, 1, 11)
    assert {"QueuePool", "NullPool"} <= set(offered)
    assert "Opens a connection for each use" in str(offered["NullPool"].get("documentation", ""))


def _bare(text: str) -> str:
    """Return a text without what Markdown adds to it."""
    return "".join(text.replace("\\", "").split())
