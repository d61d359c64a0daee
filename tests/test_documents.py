"""Every block of the documentation is run, or says in the page's source why not, or which test runs it."""

import os
import re
from pathlib import Path

import pytest
import yaml

from dbconfig import load
from tests.support.documents import ROOT, Block, blocks, pages, setup_of
from tests.support.interpreter import run_module

# Set where a block's `${…}` refers to them.
ENVIRON = {"DB_PASSWORD": "p@ss/w%rd", "DATABASE_URL": "postgresql://app:secret@db.internal/shop"}
PYTHON = [page for page in pages() if blocks(page, "python") and page.name not in ("README.md", "tutorial.md")]
YAML = [block for page in pages() for block in blocks(page, "yaml") if page.name not in ("README.md", "tutorial.md")]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_from_its_first_block_to_its_last(page: Path, tmp_path: Path) -> None:
    for line in re.findall(r"^# needs: (.*)$", setup_of(page), re.MULTILINE):
        for package in line.split():
            pytest.importorskip(package)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DBCONFIG_", "ENVIRONMENT"))}
    # In a process of its own, without a script: its config/ is that of the working directory.
    command = ["tests.support.documents", str(page)]
    done = run_module(command, folder=tmp_path, environ={**env, "PYTHONPATH": str(ROOT)}, timeout=250)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_yaml_block_is_a_profile(block: Block, tmp_path: Path) -> None:
    alternatives = block.reason.startswith("shows: alternatives")
    if block.reason and not alternatives:
        assert yaml.safe_load(block.text)
        return
    for source in block.text.splitlines() if alternatives else [block.text]:
        if "url:" not in source and "drivername:" not in source:
            source = f"url: postgresql://app@db.internal/shop\n{source}"
        (tmp_path / "development.yaml").write_text(source)
        load("development", path=tmp_path, environ=ENVIRON)


def test_every_other_block_says_why_it_is_not_run() -> None:
    # Text without a language shows output; a picture is drawn by the reader's browser.
    run_here = ("python", "yaml", "", "mermaid", "text")
    found = [
        str(each) for page in pages() for each in blocks(page) if each.language not in run_here and not each.reason
    ]
    # The README and the tutorial are followed to the letter by tests of their own.
    assert [each for each in found if not each.startswith(("README.md", "docs/tutorial.md"))] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [*pages(), *(ROOT / "docs" / name for name in ("errors.md", "reference.md"))]:
        source = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", source):
            path, _, anchor = target.partition("#")
            found = (page.parent / path).resolve() if path else page
            assert found.exists(), f"{page.name}: {target}"
            if anchor and found.suffix == ".md":
                assert anchor in anchors(found), f"{page.name}: {target}"


def test_every_file_that_the_architecture_names_exists() -> None:
    """Paths stand without `dbconfig/` before them; `<system>`, `<driver>` and `<command>` are for any."""
    source = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w<>]+/)+(?:[\w<>]+(?:\.py)?)?|[\w<>]+\.py)`", source))
    assert len(named) > 40
    for name in sorted(named):
        pattern = re.sub(r"<\w+>", "*", name).rstrip("/")
        assert [*(ROOT / "dbconfig").glob(pattern), *ROOT.glob(pattern)], name
    drawn = set(re.findall(r'(\w+)\["\1:', source))
    assert drawn == {path.parent.name for path in (ROOT / "dbconfig").glob("*/__init__.py")}


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs name them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.server
@pytest.mark.parametrize("number", [0, 1], ids=["postgresql", "mariadb"])
def test_the_sql_of_a_page_runs_on_a_server(number: int, request: pytest.FixtureRequest) -> None:
    every = (block for page in pages() for block in blocks(page, "sql"))
    (block,) = (block for block in every if "tests/test_documents.py" in block.reason)
    server = request.getfixturevalue(("postgresql", "mariadb")[number])
    assert isinstance(server.sql(block.text.split(";")[number]), list)
