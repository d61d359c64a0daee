"""The dashboard and the alerts ask for series that exist."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbconfig import Profile, Registry

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from dbconfig.integrations.figures import nothing  # noqa: E402
from dbconfig.integrations.prometheus import register  # noqa: E402

CONTRIB = Path(__file__).parents[2] / "contrib"
ALERTS = CONTRIB / "prometheus" / "alerts.yml"
DASHBOARD = CONTRIB / "grafana" / "dashboard.json"
SERIES = re.compile(r"\b(?:db_client|dbconfig)_\w+\b")


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The names of all series, each with its labels, of a process that has done nothing."""
    replicas = [
        replace(nothing(f"shop/{name}"), role=role, number=n)
        for n, (name, role) in enumerate((("replica1", "replica"), ("reads", "reads")), 1)
    ]
    into = prometheus_client.CollectorRegistry()
    with Registry.from_profile(Profile(name="shop", url="sqlite:///x.db")) as db:
        monkeypatch.setattr(db, "all_stats", lambda: replicas)
        register(db, into=into)
        families = list(text_string_to_metric_families(prometheus_client.generate_latest(into).decode()))
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> dict[str, str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    lines = {f"{each['title']} {line['refId']}": line["expr"] for each in panels for line in each["targets"]}
    return lines | {rule["alert"]: rule["expr"] for rule in rules()}


def test_every_series_and_label_of_the_dashboard_and_the_alerts_exists(exported: dict[str, set[str]]) -> None:
    labels = set().union(*exported.values())
    assert len(expressions()) > 25
    for where, expression in expressions().items():
        names = set(SERIES.findall(expression))
        series = names & exported.keys()
        assert series, where
        assert names - exported.keys() <= labels, where
        by = re.findall(r"by \(([^)]*)\)", expression)
        wanted = {label.strip() for each in by for label in each.split(",")} - {"job", "instance"}
        assert all(wanted <= exported[each] for each in series), where


def test_what_is_exported_is_shown(exported: dict[str, set[str]]) -> None:
    shown = {name for expression in expressions().values() for name in SERIES.findall(expression)}
    usual = {"db_client_connection_idle_max", "db_client_connection_idle_min"}  # settings, beside the limit
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in exported}
    covered = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    assert families - covered - usual == set()


def test_the_dashboard_is_the_one_of_its_script() -> None:
    script = runpy.run_path(str(CONTRIB / "grafana" / "generate.py"))
    assert script["text"]() == DASHBOARD.read_text()


def test_the_variables_of_the_dashboard_are_asked_of_a_series_that_exists(exported: dict[str, set[str]]) -> None:
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        assert match
        assert match[1] in exported
        assert match[2] in exported[match[1]] | {"job"}


def test_prometheus_takes_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install --no-install-recommends prometheus")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_two_alerts_fire_under_load(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install --no-install-recommends prometheus")
    pool = '{job="shop",instance="a",db_client_connection_pool_name="shop"}'
    unit = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": f"db_client_connection_pending_requests{pool}", "values": "0 7x30"},
                    {"series": f"db_client_connection_timeouts_total{pool}", "values": "0+2x30"},
                    {"series": f"dbconfig_failovers_total{pool}", "values": "0x30"},
                ],
                "promql_expr_test": [
                    {
                        "expr": 'sum by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "5m",
                        "exp_samples": [
                            {"labels": '{alertname="DatabasePoolExhausted"}', "value": 1},
                            {"labels": '{alertname="DatabasePoolTimeouts"}', "value": 1},
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "unit.yml").write_text(yaml.safe_dump(unit))
    done = subprocess.run(
        [promtool, "test", "rules", "unit.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
