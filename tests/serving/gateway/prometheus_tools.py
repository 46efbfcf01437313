"""Debian's Prometheus, and what the files of deploy/ hold, for the tests of metrics."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
_VARIABLES = {"$__rate_interval": "5m", "$job": ".+", "$instance": ".+"}
_NAME = re.compile(r"\b(?:spade|nv)[_:][\w:]+\b")
_LABELS = re.compile(r"\{[^}]*\}")


def tool(name: str) -> str:
    """A program that scripts/debian_tools fetched, or one of the machine's own."""
    unpacked = Path(sys.prefix) / "debian" / "usr"
    found = shutil.which(name, path=f"{unpacked / 'bin'}:{unpacked / 'sbin'}") or shutil.which(name)
    assert found, f"expected {name}, which scripts/debian_tools fetches"
    return found


def rules() -> list[dict[str, Any]]:
    """Every rule of deploy/prometheus."""
    groups = yaml.safe_load((PROMETHEUS / "spade.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """The PromQL of every panel, with Grafana's variables filled in."""
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                text = target["expr"]
                for name, value in _VARIABLES.items():
                    text = text.replace(name, value)
                found.append(text)
    return found


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(_NAME.findall(_LABELS.sub("", expression)))
