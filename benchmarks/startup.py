"""What a process costs from its start to SELECT 1: with dbconfig and a profile, and with bare SQLModel."""

import sys
import tempfile
from pathlib import Path

from benchmarks.paired import as_processes, report

BARE = """
from sqlmodel import Session, create_engine, text
engine = create_engine("sqlite:///{folder}/bare.db")
with Session(engine) as session:
    session.execute(text("SELECT 1"))
"""
OURS = """
from sqlmodel import text
from dbconfig import Registry
with Registry("{folder}/config", profile="development", environ={{}}) as db, db.session() as session:
    session.execute(text("SELECT 1"))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config")
        config.mkdir()
        (config / "default.yaml").write_text("pool_size: 5\npool_timeout: 30s\n")
        (config / "development.yaml").write_text("url: sqlite:///data/app.db\n")
        process = {
            "sqlmodel + SELECT 1": [sys.executable, "-c", BARE.format(folder=folder)],
            "dbconfig + SELECT 1": [sys.executable, "-c", OURS.format(folder=folder)],
        }
        report("process to SELECT 1", as_processes(process, rounds=21), base="sqlmodel + SELECT 1", goal="<= 1.10")
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
