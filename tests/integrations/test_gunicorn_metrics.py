"""The metrics of gunicorn's workers, each on a port of its own: the configuration of docs/observability.md, run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.support.ports import free_port
from tests.support.processes import wait_until

ROOT = Path(__file__).parents[2]
APPLICATION = """
import os
from flask import Flask
from sqlalchemy import text
from dbconfig import db

app = Flask("shop")

@app.get("/")
def home():
    with db.session() as session:
        session.execute(text("SELECT 1"))
    return str(os.getpid())
"""


def get(port: int, path: str) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except (URLError, ConnectionError, TimeoutError):
        return ""


def test_each_worker_has_a_port_and_who_replaces_it_takes_that(tmp_path: Path) -> None:
    for package in ("gunicorn", "flask", "prometheus_client"):
        pytest.importorskip(package)
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(# gunicorn\.conf\.py\n.*?)^```", page, re.S | re.M)
    assert found is not None
    first, own = free_port(), free_port()
    (tmp_path / "gunicorn.conf.py").write_text(found[1].replace("range(9100, 9200)", f"range({first}, {first + 100})"))
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/development.yaml").write_text("url: sqlite:///shop.db\n")
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{own}", "shop:app"]
    environ = {name: value for name, value in os.environ.items() if not re.match("DBCONFIG_|ENVIRONMENT", name)}

    def both_serve() -> bool:
        return all("db_client_connection_max" in get(first + number, "/metrics") for number in (0, 1))

    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as running:
        try:
            wait_until(both_serve, "the metrics of two workers", timeout=120)
            worker = int(get(own, "/"))
            counts = [get(first + number, "/metrics") for number in (0, 1)]
            served = r"^db_client_connection_wait_time_seconds_count\{.*\} 1\.0$"
            assert sum(bool(re.search(served, each, re.M)) for each in counts) == 1
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: get(own, "/") not in ("", str(worker)), "another worker", timeout=120)
            wait_until(both_serve, "the metrics of the worker that replaces it", timeout=120)
        finally:
            running.terminate()
            _, said = running.communicate(timeout=60)
    assert "Address already in use" not in said
