"""What a process costs from its start to SELECT 1: with dbconfig and a profile, and with bare SQLModel.

python -m benchmarks.startup                 on SQLite
python -m benchmarks.startup --postgresql    on a private PostgreSQL server, with psycopg2
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.paired import as_processes, report
from tests.support import servers

BARE = """
from sqlmodel import Session, create_engine, text
engine = create_engine("{url}")
with Session(engine) as session:
    session.execute(text("SELECT 1"))
"""
OURS = """
from sqlmodel import text
from dbconfig import Registry
with Registry("{folder}/config", profile="development", environ={{}}) as db, db.session() as session:
    session.execute(text("SELECT 1"))
"""


def first_row(folder: str, url: str, goal: str) -> None:
    """Compare the whole processes, on the database of a URL."""
    config = Path(folder, "config")
    (config / "development.yaml").write_text(f"url: {url}\n")
    process = {
        "sqlmodel + SELECT 1": [sys.executable, "-c", BARE.format(url=url)],
        "dbconfig + SELECT 1": [sys.executable, "-c", OURS.format(folder=folder)],
    }
    report("process to SELECT 1", as_processes(process, rounds=21), base="sqlmodel + SELECT 1", goal=goal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", action="store_true", help="on a private PostgreSQL server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config")
        config.mkdir()
        (config / "default.yaml").write_text("pool_size: 5\npool_timeout: 30s\n")
        if given.postgresql:
            with servers.postgresql() as server:
                first_row(folder, server.url("postgresql+psycopg2"), "<= 1.10")
            return
        first_row(folder, f"sqlite:///{folder}/app.db", "<= 1.05")
        imports = {
            "import sqlmodel": [sys.executable, "-c", "import sqlmodel"],
            "import sqlmodel, dbconfig": [sys.executable, "-c", "import sqlmodel, dbconfig"],
            "dbconfig.load() alone": [
                sys.executable,
                "-c",
                f"import dbconfig; dbconfig.load('development', path='{config}', environ={{}})",
            ],
        }
        report(
            "imports",
            as_processes(imports, rounds=11),
            base="import sqlmodel",
            goal="import dbconfig <= 1.02, load <= 0.60",
        )


if __name__ == "__main__":
    main()
