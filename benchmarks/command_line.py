"""What the commands cost from start to end, beside Python alone and the import of SQLModel."""

import sys
import tempfile
from pathlib import Path

from benchmarks.paired import as_processes, report
from dbconfig.cli.commands.init import templates


def main() -> None:
    dbconfig = [sys.executable, "-m", "dbconfig"]
    alternatives = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "dbconfig --help": [*dbconfig, "--help"],
    }
    report("help", as_processes(alternatives, rounds=21), base="python -c pass", goal="<= 3")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in templates.profiles().items():
            Path(folder, name).write_text(text)
        alternatives = {
            "import sqlmodel": [sys.executable, "-c", "import sqlmodel"],
            "dbconfig validate --all": [*dbconfig, "validate", "--all", "--config", folder],
            "dbconfig list": [*dbconfig, "list", "--config", folder],
        }
        report("three profiles", as_processes(alternatives, rounds=21), base="import sqlmodel", goal="validate <= 0.5")


if __name__ == "__main__":
    main()
