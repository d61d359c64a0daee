"""examples/observability under its load: the series move, and the alerts fire in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.support.ports import free_port
from tests.support.processes import wait_until

pytest.importorskip("prometheus_client")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prometheus() -> str:
    """The program; asked for before the example starts, which shows nothing when it is ended at once."""
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("prometheus is not installed")
    return found


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of the example, which runs until the test has ended."""
    for folder in ("examples", "contrib"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    found = free_port()
    command = [sys.executable, "-W", "error", "examples/observability/main.py", "--port", str(found)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == f"http://127.0.0.1:{found}/metrics\n"
        yield found
        running.send_signal(signal.SIGINT)
        told, _ = running.communicate(timeout=60)
        assert re.match(r"\d+ requests, \d+ timed out, \d+ turned away\n", told)
        # Its requests sleep while their transaction is open.
        assert re.search(
            r"^development: \d+ connections? (was|were) idle in transaction .*\d taken at "
            r"examples/observability/main\.py:\d+ in request",
            told,
            re.M,
        )
        assert running.returncode == 0


def get(url: str) -> str:
    try:
        with urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())
    except (URLError, ConnectionError):
        return ""  # not up yet


def value(port: int, series: str) -> float:
    found = re.search(rf"^{series}\{{.*\}} (\S+)$", get(f"http://127.0.0.1:{port}/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_the_series_of_the_example_move(port: int) -> None:
    for series in (
        "db_client_connection_timeouts_total",
        "dbconfig_connection_refused_total",
        "dbconfig_connection_leaks_total",
        "db_client_connection_wait_time_seconds_count",
    ):
        wait_until(lambda series=series: value(port, series) > 0, series, timeout=120)  # type: ignore[misc]


def test_alerts_fire_in_a_prometheus_that_scrapes_the_example(prometheus: str, port: int, tmp_path: Path) -> None:
    file = tmp_path / "examples/observability/prometheus.yml"
    file.write_text(file.read_text().replace("127.0.0.1:9100", f"127.0.0.1:{port}"))
    own = free_port()
    command = [prometheus, f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/tsdb"]
    command += [f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"]

    def firing() -> set[str]:
        alerts = json.loads(get(f"http://127.0.0.1:{own}/api/v1/alerts") or '{"data": {"alerts": []}}')["data"][
            "alerts"
        ]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            wait_until(lambda: {"DatabasePoolTimeouts", "DatabasePoolSheds"} <= firing(), "two alerts", timeout=200)
        finally:
            running.terminate()
