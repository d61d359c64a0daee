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
    assert "https://raw.githubusercontent.com/sqlmodel-dbconfig/dbconfig/main/docs/images/spike_timeline.svg" in targets


def test_one_address_of_the_repository_is_used_everywhere() -> None:
    source = PROJECT["urls"]["Source"].removeprefix("https://github.com/")
    for name in ("docs/policy.md", "docs/schemastore.json", "config/schema.json", "mkdocs.yml"):
        text = (ROOT / name).read_text()
        for found in re.findall(r"https://(?:raw\.githubusercontent|github)\.com/([\w-]+/[\w-]+)", text):
            assert found == source, name


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
