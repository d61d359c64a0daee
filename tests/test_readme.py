"""What the README says is run: its YAML loads, its Python runs, its error is the real one, its links exist."""

import re
from pathlib import Path

import pytest
import yaml
from sqlmodel import Field, MetaData, SQLModel

import dbconfig
from dbconfig import ConfigError, Registry, load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRON = {"DB_PASSWORD": "p@ss/w%rd", "DATABASE_URL": "postgresql://app:secret@db.internal/shop"}


def blocks(language: str) -> list[str]:
    return [
        text
        for found, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
        if found == language
    ]


def test_every_yaml_of_the_readme_is_a_profile(tmp_path: Path) -> None:
    assert len(blocks("yaml")) >= 2
    for number, text in enumerate(blocks("yaml")):
        (tmp_path / f"profile{number}.yaml").write_text(text)
        profile = load(f"profile{number}", path=tmp_path, environ=ENVIRON)
        assert profile.databases["default"].sqlalchemy_url().password == "p@ss/w%rd"


def test_the_first_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Base(SQLModel):
        metadata = MetaData()

    class Hero(Base, table=True):
        __tablename__ = "readme_hero"
        id: int | None = Field(default=None, primary_key=True)
        name: str

    (tmp_path / "development.yaml").write_text("url: sqlite://\n")
    with Registry(tmp_path, environ={}) as db:
        monkeypatch.setitem(vars(dbconfig), "db", db)
        db.create_tables(Hero)
        names: dict[str, object] = {"Hero": Hero}
        exec(blocks("python")[0], names)
        assert [hero.name for hero in names["heroes"]] == ["Deadpond"]


def test_the_error_of_the_readme_is_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = [block for block in blocks("") if block.startswith("error[")]
    config = tmp_path / "config"
    config.mkdir()
    (config / "production.yaml").write_text("# a comment\nurl: sqlite:///data/app.db\npool_size: 20\nmax_overflw: 40\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load("production", environ={})
    assert str(raised.value) == shown.rstrip("\n")


def test_the_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\((\w[\w./]+)\)|`((?:config|examples)/[\w./]+)`", README):
        assert (ROOT / (name[0] or name[1])).exists(), name


def test_the_shipped_configuration_says_what_the_readme_says() -> None:
    texts = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "config").glob("*.yaml")}
    assert set(texts) == {"default", "development", "testing", "production"}
    production = load("production", path=ROOT / "config", environ=ENVIRON)
    settings = production.databases["default"]
    assert (settings.pool_size, settings.max_overflow, settings.protected) == (20, 40, True)
    assert load("testing", path=ROOT / "config", environ={}).databases["default"].in_memory
    assert load("development", path=ROOT / "config", environ={}).databases["default"].echo is False
