"""What a process does not use, it does not load."""

from __future__ import annotations

import subprocess
import sys

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
    "unicodedata",
    "dbconfig.config.protected_databases",
    "dbconfig.config.suggestions",
    "dbconfig.engine.create_tables",
    "dbconfig.engine.primary",
    "dbconfig.sessions.retry",
    "dbconfig.sessions.several_databases",
    "dbconfig.engine.pool.tasks",
    "dbconfig.engine.pool.task_places",
    "dbconfig.engine.pool.line",
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
