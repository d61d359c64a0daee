"""Write dashboard.json: run ``python contrib/grafana/generate.py`` after a panel has changed; a test compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

POOL = "db_client_connection_pool_name"
WHERE = f'{{job=~"$job",{POOL}=~"$pool"}}'


def quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {POOL}) (rate({name}_bucket{WHERE}[$__rate_interval])))"


def rate(name: str, *by: str) -> str:
    return f"sum by ({', '.join((POOL, *by))}) (rate({name}{WHERE}[$__rate_interval]))"


def level(name: str, *by: str) -> str:
    return f"sum by ({', '.join((POOL, *by))}) ({name}{WHERE})"


# title, unit, and the lines of each panel: expression and legend
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "Connections",
        "short",
        [
            (
                level("db_client_connection_count", "db_client_connection_state"),
                f"{{{{{POOL}}}}} {{{{db_client_connection_state}}}}",
            ),
            (level("dbconfig_connection_connecting"), f"{{{{{POOL}}}}} connecting"),
            (level("db_client_connection_max"), f"{{{{{POOL}}}}} limit"),
        ],
    ),
    ("Callers that wait", "short", [(level("db_client_connection_pending_requests"), f"{{{{{POOL}}}}}")]),
    (
        "Wait for a connection",
        "s",
        [
            (quantile(share, "db_client_connection_wait_time_seconds"), f"{{{{{POOL}}}}} p{share * 100:g}")
            for share in (0.5, 0.99)
        ],
    ),
    (
        "Time that connections are held",
        "s",
        [
            (quantile(share, "db_client_connection_use_time_seconds"), f"{{{{{POOL}}}}} p{share * 100:g}")
            for share in (0.5, 0.99)
        ],
    ),
    ("Checkouts per second", "ops", [(rate("db_client_connection_wait_time_seconds_count"), f"{{{{{POOL}}}}}")]),
    ("Time to connect", "s", [(quantile(0.99, "db_client_connection_create_time_seconds"), f"{{{{{POOL}}}}} p99")]),
    (
        "Connections opened and closed",
        "ops",
        [
            (rate("db_client_connection_create_time_seconds_count"), f"{{{{{POOL}}}}} opened"),
            (rate("dbconfig_connection_closed_total", "dbconfig_reason"), f"{{{{{POOL}}}}} {{{{dbconfig_reason}}}}"),
        ],
    ),
    (
        "Callers that got none",
        "ops",
        [
            (rate("db_client_connection_timeouts_total"), f"{{{{{POOL}}}}} timed out"),
            (rate("dbconfig_connection_refused_total"), f"{{{{{POOL}}}}} turned away"),
        ],
    ),
    (
        "Retries and uncertain commits",
        "ops",
        [
            (rate("dbconfig_transaction_retries_total", "dbconfig_reason"), f"{{{{{POOL}}}}} {{{{dbconfig_reason}}}}"),
            (rate("dbconfig_transaction_uncertain_commits_total"), f"{{{{{POOL}}}}} uncertain"),
        ],
    ),
    (
        "Leaks and failovers",
        "ops",
        [
            (rate("dbconfig_connection_leaks_total"), f"{{{{{POOL}}}}} leaks"),
            (rate("dbconfig_failovers_total"), f"{{{{{POOL}}}}} failovers"),
        ],
    ),
    (
        "Reads by server",
        "ops",
        [(rate("dbconfig_replica_reads_total"), f"{{{{{POOL}}}}}")],
    ),
    (
        "Replicas: lag, and out of rotation",
        "s",
        [
            (f"max by ({POOL}) (dbconfig_replica_lag_seconds{WHERE})", f"{{{{{POOL}}}}} lag"),
            (f"max by ({POOL}) (dbconfig_replica_out_of_rotation{WHERE})", f"{{{{{POOL}}}}} out"),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + line), "datasource": source, "expr": expression, "legendFormat": legend}
                for line, (expression, legend) in enumerate(lines)
            ],
        }
        for number, (title, unit, lines) in enumerate(PANELS)
    ]
    labels = [("job", "job"), ("pool", POOL)]
    variables: list[dict[str, Any]] = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    variables += [
        {
            "name": name,
            "type": "query",
            "datasource": source,
            "query": f"label_values(db_client_connection_count, {label})",
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }
        for name, label in labels
    ]
    return {
        "title": "Database connection pools (dbconfig)",
        "uid": "dbconfig-pools",
        "tags": ["dbconfig", "database"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("dashboard.json").write_text(text(), encoding="utf-8")
