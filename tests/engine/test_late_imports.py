"""What a process does not use, it does not load."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

PROGRAM = """
import sys
from sqlmodel import text
from dbconfig import Registry
with Registry({folder!r}, profile="development", environ={{}}) as db, db.session() as session:
    session.execute(text("SELECT 1"))
print(*sys.modules)
"""
UNUSED = (
    "difflib",
    "pydantic_settings",
    "pydantic.functional_serializers",
    "dbconfig.config.protected_databases",
    "dbconfig.config.suggestions",
    "dbconfig.engine.create_tables",
    "dbconfig.engine.primary",
    "dbconfig.sessions.several_databases",
    "dbconfig.engine.pool.tasks",
    "dbconfig.engine.pool.task_places",
    "dbconfig.engine.pool.diagnostics.stats",
    "dbconfig.engine.dialects.mysql.errors",
    "dbconfig.engine.dialects.postgresql.errors",
    "dbconfig.registry.event_loops",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    config = tmp_path_factory.mktemp("project") / "config"
    config.mkdir()
    (config / "development.yaml").write_text("url: sqlite:///app.db\n")
    program = PROGRAM.format(folder=str(config))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", UNUSED)
def test_a_process_on_sqlite_does_not_load(loaded: set[str], module: str) -> None:
    assert module not in loaded


CHECKS = """
import contextlib, io, os, sys
from dbconfig.cli import main

def check(project):
    os.chdir(project)
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with contextlib.suppress(SystemExit), out, err:
        main(["check"])

check(sys.argv[1])
known = set(sys.modules)
for project in sys.argv[2:]:
    check(project)
print(*set(sys.modules) - known)
"""


def test_an_error_is_explained_without_another_import(tmp_path: Path) -> None:
    """A process that has given up its rights may be unable to read the interpreter's own files by then."""
    urls = ["sqlite:///app.db", "sqlite:///nowhere/app.db", "sqlite:///config/development.yaml"]
    for number, url in enumerate(urls):
        config = tmp_path / f"{number}" / "config"
        config.mkdir(parents=True)
        (config / "development.yaml").write_text(f"url: {url}\n")
    with closing(sqlite3.connect(tmp_path / "0" / "app.db")) as file:
        file.execute("PRAGMA journal_mode = WAL")
    projects = [str(tmp_path / f"{number}") for number in range(len(urls))]
    done = subprocess.run([sys.executable, "-c", CHECKS, *projects], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
