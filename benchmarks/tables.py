"""A result as a table in Markdown and as one line of JSON."""

import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> None:
    print(f"\n### {title}\n")
    if note:
        print(f"{note}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    packages = {name: version(name) for name in ("sqlalchemy", "sqlmodel", "psycopg2-binary", "pymysql")}
    machine = {"python": sys.version.split()[0], "machine": platform.machine(), **packages}
    document = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "machine": machine}
    print("\n" + json.dumps(document), flush=True)
