"""examples/observability under its load: the series move, and the alerts fire in a real Prometheus."""

from __future__ import annotations

import os
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


def copied(target: Path) -> Path:
    """Return a copy of the example, which writes its data beside its configuration."""
    for folder in ("examples", "contrib"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return target / "examples" / "observability"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of the example, which runs until the test has ended."""
    copied(tmp_path)
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


def test_two_alerts_fire_in_a_prometheus_that_scrapes_the_example(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed: apt-get install --no-install-recommends prometheus")
    command = [sys.executable, "-W", "error", copied(tmp_path) / "alerts.py", "--seconds", "240"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    fired = re.findall(r"^ *[\d.]+ s  (\w+) fires: .*development", done.stdout, re.MULTILINE)
    assert len(fired) >= 2, done.stdout
    assert {"DatabasePoolTimeouts", "DatabasePoolSheds", "DatabaseConnectionsLeak"} >= {*fired}
    assert re.search(r"^\d+ requests, [1-9]\d* timed out", done.stdout, re.MULTILINE)


def test_without_a_prometheus_the_example_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, copied(tmp_path) / "alerts.py"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "apt-get install --no-install-recommends prometheus" in done.stderr
