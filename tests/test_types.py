"""What a type checker says of a program that uses the library."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".mypy_cache"
PROGRAM = """
from typing import assert_type
from sqlmodel import Session
from dbconfig import Profile, Registry, db

Profile(name="ok", url="sqlite://", pool_timeout="5s", echo="debug", databases={"a": {"url": "sqlite://"}})
Profile(name="x", pool_sise=3)
Profile(name="x", pool_size="three")
Profile(name="x", poolclass="QueePool")
assert_type(db.session(), Session)
with Registry().transaction(schema="tenant_a") as session:
    assert_type(session, Session)
"""
WRONG = {
    7: 'Unexpected keyword argument "pool_sise"',
    8: 'Argument "pool_size" to "Profile" has incompatible type "str"',
    9: 'Argument "poolclass" to "Profile" has incompatible type "Literal[\'QueePool\']"',
}


def test_a_misspelled_key_and_a_wrong_value_of_a_profile_are_errors(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    cache = tmp_path / "cache"
    if KEPT.exists():  # what `make check` has found out of all that is imported: a tenth of the work is left
        shutil.copytree(KEPT, cache)
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--strict", "--cache-dir", str(cache)]
    command = [sys.executable, "-m", "mypy", *options, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(WRONG), done.stdout + done.stderr
    for line, text in WRONG.items():
        assert any(error.startswith(f"program.py:{line}: ") and text in error for error in errors), done.stdout
