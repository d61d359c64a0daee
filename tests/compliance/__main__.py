"""Run SQLAlchemy's suite for dialects on a stock engine and on ours, and print where the results differ.

    python -m tests.compliance                        # SQLite, PostgreSQL and MariaDB: some minutes each
    python -m tests.compliance sqlite -k StringTest   # one system; further arguments go to pytest

Exits with 1 if there is a difference.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.support import servers

SYSTEMS = ("sqlite", "postgresql", "mariadb")
SETTINGS = """
[tool:pytest]
addopts = -v --tb=line -p no:warnings -p no:cacheprovider
python_files = test_suite.py
[sqla_testing]
requirement_cls = requirements:Requirements
profile_file = profiles.txt
"""
REQUIREMENTS = """
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

class Requirements(SuiteRequirements):
    @property
    def schemas(self):
        return exclusions.closed()
"""
_OUTCOME = re.compile(r"(test_suite\.py::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\s+\[")
_DIALECT = re.compile(r"_(?:sqlite|postgresql|mysql|mariadb)\S*?::")


def main() -> int:
    arguments = sys.argv[1:]
    chosen = [name for name in arguments if name in SYSTEMS] or list(SYSTEMS)
    more = [each for each in arguments if each not in SYSTEMS]
    different = False
    for system in chosen:
        stock, ours = (outcomes(system, more, ours=ours) for ours in (False, True))
        found = sorted(name for name in stock.keys() | ours.keys() if stock.get(name) != ours.get(name))
        passed = sum(outcome == "PASSED" for outcome in ours.values())
        print(f"{system}: {len(ours)} tests, {passed} pass on our engine, {len(found)} differ from a stock engine")
        for name in found:
            print(f"  {name}: {stock.get(name)} on a stock engine, {ours.get(name)} on ours")
        different = different or bool(found)
    return int(different)


def outcomes(system: str, more: list[str], *, ours: bool) -> dict[str, str]:
    """Return the outcome of each test of the suite on a fresh database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "conftest.py").write_text((Path(__file__).parent / "plugin.py").read_text())
        (folder / "test_suite.py").write_text("from sqlalchemy.testing.suite import *\n")
        (folder / "requirements.py").write_text(REQUIREMENTS)
        (folder / "setup.cfg").write_text(SETTINGS)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(Path.cwd())))}
        environ |= {"DBCONFIG_COMPLIANCE": "ours" if ours else "stock"}
        if system == "sqlite":
            url = f"sqlite:///{folder}/suite.db"
        elif system == "postgresql":
            server = stack.enter_context(servers.postgresql())
            url, environ["PGPASSWORD"] = server.url("postgresql+psycopg2"), server.password
        else:
            server = stack.enter_context(servers.mariadb())
            root = create_engine(f"mysql+pymysql://root@/mysql?unix_socket={server.socket}")
            with root.begin() as connection:  # an engine of ours has no password in its URL, which the suite copies
                connection.execute(text("CREATE USER bare@'%' IDENTIFIED BY ''"))
                connection.execute(text("GRANT ALL ON *.* TO bare@'%'"))
            root.dispose()
            url = f"mysql+pymysql://bare@{server.host}:{server.port}/{server.database}"
        command = [sys.executable, "-m", "pytest", "--dburi", url, *more]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    found = (_OUTCOME.match(line) for line in done.stdout.splitlines())
    results = {_DIALECT.sub("::", match[1]): match[2] for match in found if match}
    if not results:
        raise SystemExit(done.stdout + done.stderr)
    return results


if __name__ == "__main__":
    raise SystemExit(main())
