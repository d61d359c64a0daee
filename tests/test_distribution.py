"""What is built: the index page has no dead link, and the sdist builds the same wheel."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dbconfig.config.json_schema import ID
from tests.support.documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def hook() -> Any:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_link_of_the_index_page_is_absolute() -> None:
    page = hook().with_absolute_links((ROOT / "README.md").read_text(), PROJECT["urls"]["Source"])
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith("https://")] == []
    raw = PROJECT["urls"]["Source"].replace("github.com", "raw.githubusercontent.com")
    assert f"{raw}/main/docs/images/spike_timeline.svg" in targets


def test_the_address_of_the_repository_is_written_in_two_places_which_agree() -> None:
    """What CONTRIBUTING.md says before a release; the other files are generated, or read pyproject.toml."""
    source = PROJECT["urls"]["Source"].removeprefix("https://github.com/")
    assert f"https://raw.githubusercontent.com/{source}/main/config/schema.json" == ID
    assert all(source in url or "github.io/" in url for url in PROJECT["urls"].values())
    folders = [ROOT / name for name in ("dbconfig", "docs", "config", "examples", "contrib", ".github")]
    paths = [*ROOT.glob("*.*"), *(path for folder in folders for path in folder.rglob("*"))]
    texts = [
        each for each in paths if each.suffix in (".py", ".md", ".toml", ".yml", ".yaml", ".json") and each.is_file()
    ]
    named = {each.relative_to(ROOT).as_posix() for each in texts if source in each.read_text(encoding="utf-8")}
    assert named == {"pyproject.toml", "dbconfig/config/json_schema.py", "config/schema.json", "docs/schemastore.json"}


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    def build(kind: str, source: Path, target: Path) -> Path:
        command = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(target), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=280)
        return next(target.iterdir())

    def contents(wheel: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    for name in (
        "Makefile",
        "SECURITY.md",
        "mkdocs.yml",
        "hatch_build.py",
        "tests/conftest.py",
        "benchmarks/RESULTS.md",
    ):
        assert (unpacked / name).is_file(), name
    direct, by_way = (build("wheel", each, tmp_path / each.name) for each in (ROOT, unpacked))
    assert contents(direct) == contents(by_way)
