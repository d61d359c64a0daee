"""What the README says is run: its first screen to the letter, its YAML, its error, its links."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

import dbconfig
from dbconfig import ConfigError, Registry, load
from tests.support.documents import ROOT, blocks, run

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")
ENVIRON = {"DB_PASSWORD": "p@ss/w%rd", "DATABASE_URL": "postgresql://app:secret@db.internal/shop"}


def test_it_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_the_first_screen_leads_to_the_first_row(tmp_path: Path) -> None:
    install, output = blocks(PAGE, "console")[:2]
    assert install.text.splitlines() == ["$ pip install sqlmodel-dbconfig", "$ dbconfig init"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DBCONFIG_", "ENVIRONMENT"))}

    def spawn(*arguments: str) -> str:
        command = [sys.executable, "-W", "error", *arguments]
        # An empty HOME, as a new user has.
        env = {**kept, "HOME": str(tmp_path / "home")}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=250)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    spawn("-m", "dbconfig", "init")
    (tmp_path / "main.py").write_text(blocks(PAGE, "python")[0].text)
    command, *expected = output.text.splitlines()
    assert command == "$ python main.py"
    assert spawn("main.py").splitlines() == expected
    assert (tmp_path / "data" / "development.db").is_file()


def test_every_yaml_of_the_readme_is_a_profile(tmp_path: Path) -> None:
    assert blocks(PAGE, "yaml")
    for number, block in enumerate(blocks(PAGE, "yaml")):
        (tmp_path / f"profile{number}.yaml").write_text(block.text)
        profile = load(f"profile{number}", path=tmp_path, environ=ENVIRON)
        assert profile.databases["default"].sqlalchemy_url().password == "p@ss/w%rd"


def test_what_it_gives_beyond_create_engine_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiosqlite")
    (tmp_path / "development.yaml").write_text(f"url: sqlite:///{tmp_path}/app.db\n")
    (block,) = blocks(PAGE, "python")[1:]
    with Registry(tmp_path, environ={}) as db:
        monkeypatch.setitem(vars(dbconfig), "db", db)
        seen: list[int] = []
        names: dict[str, Any] = {"db": db, "transfer": lambda session: seen.append(session.scalar(text("SELECT 7")))}
        run(block.text, str(block), names)
        assert seen == [7]


def test_the_error_of_the_readme_is_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = [block.text for block in blocks(PAGE, "") if block.text.startswith("error[")]
    config = tmp_path / "config"
    config.mkdir()
    (config / "production.yaml").write_text("# a comment\nurl: sqlite:///data/app.db\npool_size: 20\nmax_overflw: 40\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load("production", environ={})
    assert str(raised.value) == shown.rstrip("\n")


def test_the_extras_that_it_installs_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"sqlmodel-dbconfig\[(\w+)\]", README)) <= set(project["optional-dependencies"])


def test_the_files_that_the_readme_names_exist_and_every_page_is_named() -> None:
    named = {name.partition("#")[0] for name in re.findall(r"\]\((?!https?:)([^)]+)\)", README)}
    for name in named:
        assert (ROOT / name).exists(), name
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= named


def test_the_shipped_configuration_says_what_the_readme_says() -> None:
    texts = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "config").glob("*.yaml")}
    assert set(texts) == {"default", "development", "testing", "production"}
    production = load("production", path=ROOT / "config", environ=ENVIRON)
    settings = production.databases["default"]
    assert (settings.pool_size, settings.max_overflow, settings.protected) == (20, 40, True)
    assert load("testing", path=ROOT / "config", environ={}).databases["default"].in_memory
    assert load("development", path=ROOT / "config", environ={}).databases["default"].echo is False
