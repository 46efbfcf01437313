"""The text of the files: rules, configuration, dashboards, and the page of alerts."""

# ruff: noqa: E501 - sentences of a page

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml
from alerts import JOB, Alert
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from objectives import recording_rules

_HEAD = "# Written by scripts/monitoring.\n"
_PAGE_HEAD = """# Alerts

Written by `scripts/monitoring`, as `deploy/prometheus/spade.rules.yml` is. `page` wakes somebody, `ticket` waits for the morning.
The [metrics](metrics.md) are those of the gateway's port 8002. The job of the scrape is called `spade`.

`scripts/debian_tools` fetches `promtool`; `promtool test rules deploy/prometheus/spade.rules.test.yml` runs the alerts on made-up series.
"""


def rules_file(alerts: Sequence[Alert]) -> str:
    """Recording rules and alerts, as Prometheus reads them."""
    groups = [
        {"name": "spade-recorded", "rules": recording_rules()},
        {"name": "spade-alerts", "rules": [_rule(alert) for alert in alerts]},
    ]
    return _yaml({"groups": groups})


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.meaning,
            "runbook": f"docs/alerts.md#{alert.name.lower()}",
        },
    }


def config_files() -> dict[str, str]:
    """The configuration of Prometheus and Grafana beside a `spade serve` that is called `spade`."""
    scrape = {
        "job_name": JOB,
        "static_configs": [{"targets": ["spade:8002"]}],
        "scrape_interval": "15s",
        "scrape_timeout": "10s",
    }
    prometheus = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["spade.rules.yml"],
        "scrape_configs": [scrape],
    }
    source = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": "http://prometheus:9090",
        "isDefault": True,
        "jsonData": {"timeInterval": "15s"},
    }
    provider = {"name": "spade", "type": "file", "options": {"path": "/var/lib/grafana/dashboards"}}
    grafana = "deploy/grafana/provisioning"
    return {
        "deploy/prometheus/prometheus.yml": _yaml(prometheus),
        f"{grafana}/datasources/prometheus.yml": _yaml({"apiVersion": 1, "datasources": [source]}),
        f"{grafana}/dashboards/spade.yml": _yaml({"apiVersion": 1, "providers": [provider]}),
    }


def dashboard_file(dashboard: Dashboard) -> str:
    """A dashboard as Grafana's JSON."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def alerts_page(alerts: Sequence[Alert]) -> str:
    """The runbook: a section an alert."""
    sections = [_PAGE_HEAD]
    for alert in alerts:
        wait = "at once" if alert.wait == "0m" else f"after {alert.wait}"
        sections.append(
            f"## {alert.name}\n\n{alert.severity}, {wait}. {alert.meaning}\n\n"
            f"```\n{alert.expression.replace(' or (', chr(10) + 'or (')}\n```\n\n"
            + "\n".join(f"{number}. {action}" for number, action in enumerate(alert.actions, 1))
            + "\n"
        )
    return "\n".join(sections)


def _yaml(value: Any) -> str:
    return _HEAD + str(yaml.safe_dump(value, sort_keys=False, width=10_000, allow_unicode=True))
